"""File systems without locks, and processes of another user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from harness import ROOT
from tests.support.nvml_standin import build_library

SOURCE = Path(__file__).parent / "no_locks.c"
NOBODY = "65534"
# Runs several command lines of run_bench.py in one process; their exit codes are printed between their errors.
COMMAND_LINES = """
import json, sys
from harness.cli import main
for arguments in json.loads(sys.argv[1]):
    print("exit code", main(arguments), file=sys.stderr, flush=True)
"""


@pytest.fixture(scope="session")
def no_locks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a process for which every file system is without flock, which fails with ENOSYS."""
    library = build_library(tmp_path_factory.mktemp("no-locks") / "no_locks.so", SOURCE)
    return {**os.environ, "LD_PRELOAD": str(library)}


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are this user's alone."""
    with TemporaryDirectory(prefix="every-user-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def as_nobody() -> list[str]:
    """The beginning of a command line that runs Python as a user without rights.

    Skips the test where this process isn't root's, or Python can't be started by others.
    """
    if os.geteuid() or shutil.which("setpriv") is None:
        pytest.skip("only root, with setpriv, can become another user")
    command = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", sys.executable]
    tried = subprocess.run([*command, "-c", "import harness.cli, numpy"], cwd=ROOT, capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("other users can't start this Python")
    return command
