"""Checks of the doctor that fail in every way that a check can: they hang, crash, raise, or end without an answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness.doctor.check import OK, WARN, Context, Finding
from harness.errors import MachineError

ENDLESS = "import time; time.sleep(600)"


def fine(_: Context) -> Finding:
    return Finding(OK, "all is well")


def doubtful(_: Context) -> Finding:
    return Finding(WARN, "a little", "much", "there is less", "get more")


def hang(context: Context) -> Finding:
    """Start a child in this group and one in its own, write their ids to the folder of results, and never end."""
    children = [subprocess.Popen([sys.executable, "-c", ENDLESS], start_new_session=own) for own in (False, True)]
    unfinished = Path(context.results) / "unfinished"
    unfinished.write_text(" ".join(str(child.pid) for child in children))
    unfinished.rename(Path(context.results) / "children")
    print("waiting for the driver", flush=True)
    time.sleep(600)
    return Finding(OK)


def crash(_: Context) -> Finding:
    print("about to fall", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)
    return Finding(OK)


def leave_a_child(context: Context) -> Finding:
    """Answer, and leave a child running."""
    child = subprocess.Popen([sys.executable, "-c", ENDLESS])
    (Path(context.results) / "children").write_text(str(child.pid))
    return Finding(OK)


def stop(_: Context) -> Finding:
    print("no licence", file=sys.stderr, flush=True)
    os._exit(9)


def raise_an_error(_: Context) -> Finding:
    raise ValueError("seven is not a number")


def refuse(_: Context) -> Finding:
    raise MachineError("there is no device", "buy one")


def litter(context: Context) -> Finding:
    """Leave files in the temporary folder, and say where."""
    folder = Path(tempfile.mkdtemp())
    (folder / "left").write_text("left")
    return Finding(OK, str(folder))


def echo(context: Context, **options: Any) -> Finding:
    return Finding(OK, f"{context.data} {options}")
