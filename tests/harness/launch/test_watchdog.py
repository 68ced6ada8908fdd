"""A rank that stands still ends by itself and says where it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness import ROOT
from harness.launch.failures import stalled
from harness.launch.watchdog import innermost_frame, timed_out

SCRIPT = """
import sys, time
from pathlib import Path
from harness.launch import watchdog
def run_rank(seconds, first):
    watchdog.arm(seconds, Path(sys.argv[1]), start_seconds=first)
    {body}
run_rank({seconds}, {first})
print("alive")
"""


def run(folder: Path, body: str, seconds: float = 0.5, first: float | None = None) -> subprocess.CompletedProcess[str]:
    script = SCRIPT.format(body=body, seconds=seconds, first=first)
    return subprocess.run([sys.executable, "-c", script, str(folder / "pulse.0")], cwd=ROOT, capture_output=True,
                          text=True, timeout=60, check=False)  # fmt: skip


def test_a_rank_without_progress_ends_with_its_stacks(tmp_path: Path) -> None:
    done = run(tmp_path, "time.sleep(60)")
    assert done.returncode == 1
    assert timed_out(done.stderr)
    assert "in run_rank" in done.stderr
    assert (tmp_path / "pulse.0").exists()


def test_it_ends_while_native_code_holds_the_interpreter_lock(tmp_path: Path) -> None:
    done = run(tmp_path, "import ctypes; ctypes.PyDLL(None).sleep(60)")
    assert done.returncode == 1
    assert timed_out(done.stderr)


def test_progress_starts_the_count_again(tmp_path: Path) -> None:
    done = run(tmp_path, "[(time.sleep(0.5), watchdog.progress()) for _ in range(4)]", seconds=1.5)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


@pytest.mark.parametrize("progress", ["pass", "watchdog.progress()"])
def test_the_first_step_may_take_longer(tmp_path: Path, progress: str) -> None:
    """Case E13: joining other nodes is progress, but no step."""
    body = f"{progress}; time.sleep(1); assert not Path(sys.argv[1]).exists(); watchdog.step_made(); time.sleep(60)"
    done = run(tmp_path, body, first=30.0)
    assert done.returncode == 1
    assert "Timeout (0:00:00.5" in done.stderr
    assert (tmp_path / "pulse.0").exists()


def test_a_hang_before_the_first_step_is_found(tmp_path: Path) -> None:
    """Case E13."""
    done = run(tmp_path, "watchdog.progress(); time.sleep(60)", seconds=30.0, first=0.5)
    assert done.returncode == 1
    assert timed_out(done.stderr)
    assert not (tmp_path / "pulse.0").exists()


LOG = """started
Timeout (0:00:08)!
Thread 0x00007f1 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 331 in wait
  File "/repo/harness/machine/sampler.py", line 80 in _run

Thread 0x00007f2 (most recent call first):
  File "/usr/lib/python3.11/site-packages/paddle/distributed/all_gather.py", line 60 in all_gather
  File "/repo/harness/training/ranks.py", line 31 in gather
  File "/repo/harness/training/worker.py", line 130 in run_rank
  File "/repo/run_bench.py", line 9 in <module>
"""


def test_the_innermost_own_frame_of_the_training_thread_is_told() -> None:
    assert innermost_frame(LOG, Path("/repo")) == "harness/training/ranks.py:31 in gather"


@pytest.mark.parametrize("log", ["", "step 1\n", LOG.replace("/repo", "/elsewhere")])
def test_a_log_without_own_frames_has_no_place(log: str) -> None:
    assert innermost_frame(log, Path("/repo")) is None


def test_only_a_timeout_is_one() -> None:
    assert timed_out(LOG)
    assert not timed_out(LOG.replace("Timeout (0:00:08)!", "Timeout of 8 s"))


def test_who_was_ended_by_a_watchdog_is_known_by_rank(tmp_path: Path) -> None:
    """A rank that failed leaves others waiting until their watchdogs end them; it is not one of these."""
    (tmp_path / "workerlog.0").write_text("Timeout (0:00:12)!\nThread 0x1:\n", encoding="utf-8")
    (tmp_path / "workerlog.1").write_text("OSError: (External) CustomDevice error\n", encoding="utf-8")
    assert [stalled(tmp_path), stalled(tmp_path, 0), stalled(tmp_path, 1)] == [True, True, False]
