"""Paddle's launcher writes no environment to the disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import ROOT
from harness.launch.launcher import launch_command
from harness.launch.paddle_launcher import only_logs
from harness.launch.process_tree import launcher_environment

SECRET = "planted-1234"
RANK = """
import json, os, sys
values = {name: os.environ.get(name) for name in ("SECRET_TOKEN", "PADDLE_TRAINER_ID", "LONG")}
from paddle.distributed.backup_env import getenv_or_backup
values["trainers"] = getenv_or_backup("PADDLE_TRAINERS_NUM")
with open(sys.argv[1], "w") as stream:
    json.dump({**values, "SECRET_TOKEN": values["SECRET_TOKEN"] is not None, "LONG": len(values["LONG"])}, stream)
print("a rank's log", flush=True)
"""


@pytest.mark.slow
def test_no_file_of_paddle_s_launcher_has_a_planted_secret(tmp_path: Path) -> None:
    """Case B5: the launcher's own files while it runs, which is what SIGKILL leaves; its rank has the variables."""
    logs, script = tmp_path / "logs", tmp_path / "rank.py"
    logs.mkdir()
    script.write_text(RANK, encoding="utf-8")
    planted = {"SECRET_TOKEN": SECRET, "LONG": "x" * 100_000, "FLAGS_print_launcher_env": "true"}
    done = subprocess.run(
        launch_command(1, logs, (str(script), str(tmp_path / "seen"))),
        env=launcher_environment({**os.environ, **planted}), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "seen").read_text(encoding="utf-8") == (
        '{"SECRET_TOKEN": true, "PADDLE_TRAINER_ID": "0", "LONG": 100000, "trainers": "1"}'
    )
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert (logs / "workerlog.0").read_text(encoding="utf-8").endswith("a rank's log\n")
    assert [path.name for path in files if SECRET.encode() in path.read_bytes()] == []
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["envlog.0", "default.abcdef.log", "deeper/any", "backup_env.3.json"])
def test_only_the_ranks_logs_are_written(tmp_path: Path, name: str) -> None:
    """Case B5, also for files that another version of Paddle may write."""
    (tmp_path / "logs" / "deeper").mkdir(parents=True)
    opened = only_logs(tmp_path / "logs", open)
    for path in (tmp_path / "logs" / name, f"{tmp_path}/logs/../logs/{name}"):
        for mode in ("w", "a+", "xb", "r+"):
            with opened(path, mode) as stream:
                stream.write(b"secret" if "b" in mode else "secret")
    left = [path.read_text(encoding="utf-8") for path in (tmp_path / "logs").rglob("*") if path.is_file()]
    assert left == (["{}"] if name.startswith("backup") else [])


def test_what_is_read_or_lies_elsewhere_is_as_ever(tmp_path: Path) -> None:
    opened = only_logs(tmp_path / "logs", open)
    (tmp_path / "logs").mkdir()
    for path in (tmp_path / "beside", tmp_path / "logs" / "workerlog.1"):
        with opened(path, "w") as stream:
            stream.write("text")
        with opened(path) as stream:
            assert stream.read() == "text"


def test_the_launcher_is_started_by_the_same_interpreter(tmp_path: Path) -> None:
    assert launch_command(1, tmp_path, ("x.py",))[:3] == [sys.executable, str(ROOT / "run_bench.py"), "launcher"]
