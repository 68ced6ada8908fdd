"""Errors that a person can act on: what they carry, and that docs/troubleshooting.md says what each exit code means."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

import harness.errors
import models.weights
import pipelines.errors
from harness import ROOT
from harness.errors import UsageError
from models.errors import ActionableError

MODULES = (harness.errors, models.weights, pipelines.errors)


def every_kind(base: type[ActionableError] = ActionableError) -> Iterator[type[ActionableError]]:
    yield base
    for kind in base.__subclasses__():
        yield from every_kind(kind)


@pytest.mark.parametrize("kind", list(every_kind()), ids=lambda kind: kind.__name__)
def test_the_exit_code_is_documented(kind: type[ActionableError]) -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (\d+) \| \S", page, re.MULTILINE)
    assert str(kind("wrong").exit_code) in table


def test_an_error_carries_message_and_cure_apart() -> None:
    error = UsageError("5 is too many; 4 at most", "Use 4.")
    assert (error.message, error.cure, str(error)) == ("5 is too many; 4 at most", "Use 4.", "5 is too many; 4 at most")
    assert UsageError("5 is too many").cure == ""
