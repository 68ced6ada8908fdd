"""Accelerators that Paddle loads as plugins (custom devices): which types there are, and how many of each."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from harness.errors import MachineError

# Where Paddle looks for plugins (paddle/base/core.py): this variable's folder, else the one beside Paddle's own.
PLUGIN_ROOT = "CUSTOM_DEVICE_ROOT"
DEFAULT_FOLDER = "paddle_custom_device"
MAX_SECONDS = 120.0

# Plugins print, too, so that the answer is the last line. A lone device may be listed without its number.
ASK = """
import json, paddle
types = paddle.device.get_all_custom_device_type()
found = [name.partition(":")[0] for name in paddle.device.get_available_custom_device()]
print("\\n" + json.dumps({name: found.count(name) for name in types}))
"""


def plugin_devices(environment: Mapping[str, str]) -> dict[str, int]:
    """Returns the types of accelerator that Paddle's plugins offer, in Paddle's order, and the number of each.

    Paddle is asked in another process, as it takes seconds to load; it is not asked where no plugin is installed.
    Raises MachineError when Paddle can't load a plugin.
    """
    folder = _plugin_folder(environment)
    if folder is None or not any(folder.glob("*.so")):
        return {}
    try:
        done = subprocess.run(
            [sys.executable, "-c", ASK],
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=MAX_SECONDS,
            check=False,
        )
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1] if done.returncode else ""
    except subprocess.TimeoutExpired:
        reason = f"no answer within {MAX_SECONDS:.0f} s"
    if reason:
        raise MachineError(
            f"Paddle can't load its plugins from {str(folder)!r}: {reason}",
            f"Check the accelerator's driver, or hide the plugins: {PLUGIN_ROOT}= (empty).",
        )
    counted: dict[str, int] = json.loads(done.stdout.strip().splitlines()[-1])
    return counted


def _plugin_folder(environment: Mapping[str, str]) -> Path | None:
    root = environment.get(PLUGIN_ROOT)
    if root is not None:
        return Path(root) if root else None
    beside = folder_of_packages()
    return None if beside is None else beside / DEFAULT_FOLDER


def folder_of_packages() -> Path | None:
    """Returns the folder that Paddle's package is installed in, without importing it; None if it isn't installed."""
    paddle = find_spec("paddle")
    return None if paddle is None or paddle.origin is None else Path(paddle.origin).parents[1]
