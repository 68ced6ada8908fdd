"""Options as a TOML file for --config."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from harness.errors import UsageError


def toml_text(values: Mapping[str, Any]) -> str:
    """Returns options as lines of TOML; those that are None are decided by the run, and left out.

    Raises UsageError for a text that TOML, which is UTF-8, can't have.
    """
    return "".join(f"{name} = {_value(name, value)}\n" for name, value in values.items() if value is not None)


def _value(name: str, value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{name} {value!r} is not UTF-8, as TOML is", "Rename it.") from error
    # Of what TOML escapes, JSON leaves only this one as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
