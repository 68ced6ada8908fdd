"""Requirements of pyproject.toml, read without the libraries that they name."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import ROOT
from harness.doctor.requirements import Requirement, parse_requirement, read_project, satisfies


@pytest.mark.parametrize(
    ("version", "versions", "holds"),
    [
        ("2.4.0", ">=2.4,<3", True),
        ("3", ">=2.4,<3", False),
        ("2.3.9", ">=2.4", False),
        ("2.10", ">=2.4", True),
        ("3.13.1", ">=3.10,<3.14", True),
        ("3.14.0", ">=3.10,<3.14", False),
        ("2.4.0rc1", ">=2.4", True),
        ("1", "==1.0", True),
        ("unknown", ">=1", False),
        ("5.0", "", True),
    ],
)
def test_versions(version: str, versions: str, holds: bool) -> None:
    assert satisfies(version, versions) is holds


def test_markers_decide_for_which_python() -> None:
    text = "tomli>=2; python_version < '3.11'"
    assert parse_requirement(text, "3.10.12") == Requirement("tomli", ">=2")
    assert parse_requirement(text, "3.11.0") is None


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match="can't be read"):
        parse_requirement("numpy>=1; sys_platform == 'win32'", "3.11")
    with pytest.raises(ValueError, match="can't be read"):
        satisfies("1.0", "~=1.0")


def test_the_projects_own_can_be_read() -> None:
    project = read_project(ROOT / "pyproject.toml")
    needed = [parse_requirement(text, "3.10") for text in project["dependencies"]]
    assert len([one for one in needed if one is not None and satisfies("99", one.versions) in (True, False)]) >= 10
    assert read_project(Path(ROOT / "pyproject.toml"))["name"] == "pplcnet-bench"
