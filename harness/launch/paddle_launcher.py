"""Paddle's launcher, kept from writing environments to the disk: they may hold passwords and tokens.

Paddle 3.3.1 writes the whole environment of each rank to three files in its log folder (controllers/controller.py and
utils/process_context.py of paddle/distributed/launch), where they stay if everything is killed. Here it can only write
the ranks' logs.
"""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.launch.process_tree import RUN_PID
from pipelines.quick_loading import quick_loading

# The first argument of a command line that is Paddle's launcher.
LAUNCHER_COMMAND = "launcher"
LOG = "workerlog."
# Each rank reads this one: variables that are too long for the launcher to pass on.
BACKUP = "backup_env."
# Longer than any variable can be (MAX_ARG_STRLEN), so that all are passed on.
MAX_VARIABLE_BYTES = 128 * 1024


def is_launcher(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Returns whether a command line is that of Paddle's launcher, which only the bench itself starts."""
    return arguments[:1] == [LAUNCHER_COMMAND] and RUN_PID in environment


def launch(arguments: Sequence[str]) -> None:
    """Be Paddle's launcher, with the arguments that `harness.launch.launcher.launch_command` makes."""
    arguments = arguments[1:]
    folder = Path(arguments[arguments.index("--log_dir") + 1])
    os.environ["PADDLE_ENV_LIMIT_LEN"] = str(MAX_VARIABLE_BYTES)
    # Makes it print the environment.
    os.environ.pop("FLAGS_print_launcher_env", None)
    builtins.open = only_logs(folder, builtins.open)
    sys.argv = ["paddle.distributed.launch", *arguments]
    with quick_loading():
        from paddle.distributed.launch.main import launch as launch_ranks

    launch_ranks()


def only_logs(folder: Path, real: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `open` for a process that writes to nothing in the folder but the ranks' logs.

    What it writes to other files there is discarded. A backup of variables is an empty one.
    """
    own = os.path.realpath(folder)

    def opened(file: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
        if set(mode) & set("wax+") and isinstance(file, (str, os.PathLike)):
            path = Path(os.path.realpath(file))
            if path.is_relative_to(own) and not path.name.startswith(LOG):
                if path.name.startswith(BACKUP):
                    path.write_text("{}", encoding="utf-8")
                return real(os.devnull, mode.replace("x", "w"), *more, **options)
        return real(file, mode, *more, **options)

    return opened
