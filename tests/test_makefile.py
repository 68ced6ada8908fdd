"""What `make` says of a Python that can't be used. A script stands in for python3, so nothing is ever installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make")

# Runs what make asks of it as if it were another version, notes each call, and refuses to make an environment.
STAND_IN = """#!/bin/sh
echo "$1 $2" | head -1 >> '{calls}'
[ "$1" = -c ] || exit 9
exec '{python}' -I -c 'import sys
sys.version_info = {version}
sys.executable = "/usr/bin/python3"
sys.modules.update(dict({missing}))
exec(sys.argv[1])' "$2"
"""


class Make:
    """Runs make with a stand-in for python3, for an environment that isn't there yet."""

    def __init__(self, folder: Path) -> None:
        self._bin, self._calls, self.environment = folder / "bin", folder / "calls", folder / "venv"
        self._bin.mkdir()

    def stand_in(self, version: tuple[int, int], *missing: str) -> None:
        script = STAND_IN.format(
            calls=self._calls,
            python=sys.executable,
            version=(*version, 1),
            missing=", ".join(f"{name}=None" for name in missing),
        )
        (self._bin / "python3").write_text(script)
        (self._bin / "python3").chmod(0o755)

    def __call__(self, *arguments: str, device: str = "cpu") -> subprocess.CompletedProcess[str]:
        # As a person's shell has it, though `make test` may have started these tests.
        shell = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "WHEEL"))}
        return subprocess.run(
            ["make", *arguments, f"VENV={self.environment}", f"DEVICE={device}"],
            env={**shell, "PATH": f"{self._bin}{os.pathsep}{os.environ['PATH']}"},
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines() if self._calls.exists() else []


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return Make(tmp_path)


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that is printed besides make's own last word."""
    assert done.returncode != 0
    assert done.stdout == ""
    line, last = done.stderr.splitlines()
    assert re.fullmatch(r"make: \*\*\* \[Makefile:\d+: .+\] Error 1", last)
    return line


@pytest.mark.parametrize("target", ["install", "bench", "test"])
@pytest.mark.parametrize("version", [(2, 7), (3, 9), (3, 14)])
def test_a_python_that_is_not_supported_is_named_with_the_cure(
    make: Make, target: str, version: tuple[int, int]
) -> None:
    make.stand_in(version)
    assert complaint(make(target)) == (
        f"error: Python {version[0]}.{version[1]} (/usr/bin/python3) is not supported;"
        " name one of 3.10 to 3.13: make install PYTHON=python3.12"
    )
    assert make.calls() == ["-c import sys"]
    assert not make.environment.exists()


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_a_python_without_venv_is_named_with_the_cure(make: Make, module: str) -> None:
    make.stand_in((3, 12), module)
    assert complaint(make("install")) == (
        "error: Python 3.12 (/usr/bin/python3) lacks venv or ensurepip; install it (Debian, Ubuntu: apt install"
        " python3-venv) or name another Python: make install PYTHON=python3.12"
    )
    assert make.calls() == ["-c import sys"]
    assert not make.environment.exists()


def test_no_python_at_all_is_named_with_the_cure(make: Make) -> None:
    assert complaint(make("install", "PYTHON=python3.999")) == (
        "error: there is no python3.999 here; install Python 3.10 to 3.13, or name it: make install"
        " PYTHON=/path/to/python"
    )


@pytest.mark.parametrize("version", [(3, 10), (3, 13)])
def test_a_supported_python_makes_the_environment(make: Make, version: tuple[int, int]) -> None:
    make.stand_in(version)
    done = make("install")
    assert done.stderr.splitlines()[0].endswith("Error 9")  # the stand-in's own end
    assert make.calls() == ["-c import sys", "-m venv"]
    declared = re.search(r'^requires-python = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared is not None
    assert declared[1] == ">=3.10,<3.14"


@pytest.mark.parametrize("target", ["install", "bench", "test", "benchmarks", "soak", "lint", "docs", "site", "lock"])
def test_every_target_can_be_looked_through(make: Make, target: str) -> None:
    done = make("-n", target)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert make.calls() == []


@pytest.mark.parametrize(("wheel", "passed"), [("", ""), ("cu129", " cu129")])
def test_the_build_for_gpus_is_chosen_or_named(make: Make, wheel: str, passed: str) -> None:
    done = make("-n", "install", *([f"WHEEL={wheel}"] if wheel else []), device="gpu")
    assert (done.returncode, done.stderr) == (0, "")
    call, touch = done.stdout.splitlines()[-2:]
    python, _, rest = call.partition(" ")
    assert python == f"{make.environment}/bin/python"
    assert rest.split() == ["-m", "harness.machine.gpu_fit.wheels", "--install", *passed.split()]
    # What is installed stays for commands that name no build; naming another one installs it.
    marks = {f"{make.environment}/installed-gpu", f"{make.environment}/installed-gpu{passed.replace(' ', '-')}"}
    assert set(touch.split()[1:]) == marks


def test_a_build_that_was_chosen_stays(make: Make) -> None:
    make.environment.mkdir()
    (make.environment / "installed-gpu").touch()
    assert make("-n", "install", device="gpu").stdout == "make: Nothing to be done for 'install'.\n"
    assert "--install cu130" in make("-n", "install", "WHEEL=cu130", device="gpu").stdout
    assert make("-n", "install", device="cpu").stdout
