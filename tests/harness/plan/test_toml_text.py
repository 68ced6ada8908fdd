"""Options as TOML: what is written is read back, whatever is in a name."""

from __future__ import annotations

import sys

import pytest

from harness.errors import UsageError
from harness.plan.toml_text import toml_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.mark.parametrize(
    "value",
    [
        "plain",
        'a "quote"',
        "back\\slash",
        "line\nend\ttab\r",
        "\x00\x1f\x7f\x85",
        "ümlaut 图 \U0001f600",
        "='''",
        "#",
        "",
    ],
)
def test_a_text_is_read_back(value: str) -> None:
    assert tomllib.loads(toml_text({"data": value})) == {"data": value}


def test_numbers_and_switches_are_read_back_and_none_is_left_out() -> None:
    values = {"gpus": 4, "learning_rate": 0.8, "hw_decoder_load": 1.0, "to_static": True, "workers": None}
    assert tomllib.loads(toml_text(values)) == {k: v for k, v in values.items() if v is not None}


def test_a_name_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(UsageError, match="is not UTF-8, as TOML is"):
        toml_text({"data": "caf\udce9"})
