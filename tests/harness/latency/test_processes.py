"""An engine's process: its answers, and every way in which it can fail. The test says what it runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import harness.latency.processes
from harness.analysis.latency.job import Job, write_job
from harness.errors import MachineError
from harness.latency.folder import Folder
from harness.latency.processes import EngineFailed, EngineProcess, Timed, export

# Answers each request with what `answer` returns for it.
BEGIN = """
import json, os, sys, time
def answers(answer):
    with os.fdopen(int(sys.argv[3]), "w") as stream:
        for line in sys.stdin:
            stream.write(json.dumps(answer(json.loads(line))) + chr(10))
            stream.flush()
"""
FIGURES = (
    "answers(lambda asked: {'milliseconds': [asked.get('min_calls', asked.get('calls')) or 0, 2.5], 'error': 1e-6})"
)


def engine(code: str, folder: Path = Path()) -> EngineProcess:
    return EngineProcess("paddle", folder, os.environ, f"{BEGIN}\n{code}")


def test_it_answers_until_it_is_over(tmp_path: Path) -> None:
    with engine(f"print('printed', sys.argv[1], sys.argv[2], flush=True)\n{FIGURES}", tmp_path) as process:
        process.load("x1_0")
        assert process.time("x1_0", 0.1, 7) == Timed((7.0, 2.5), 1e-6)
        assert process.profile("x1_0", 5) == Timed((5.0, 2.5), 1e-6)
        assert process.printed == f"printed paddle {tmp_path}\n"
        pid = process._process.pid
    assert not Path(f"/proc/{pid}").exists()


def test_a_long_answer_comes_whole() -> None:
    with engine("answers(lambda asked: {'milliseconds': [1.5] * 200000, 'error': 0})") as process:
        assert len(process.time("x1_0", 0.1, 1).milliseconds) == 200_000


def test_what_the_engine_raises_is_the_reason_and_it_goes_on() -> None:
    code = """
said = {"x1_0": {"failed": "ValueError: no"}, "x0_5": {"milliseconds": [1], "error": 0}}
answers(lambda asked: said[asked["size"]])
"""
    with engine(code) as process:
        with pytest.raises(EngineFailed, match="ValueError: no") as caught:
            process.load("x1_0")
        assert not caught.value.is_over
        assert process.time("x0_5", 0.1, 1) == Timed((1,), 0.0)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("print('bad pointer', flush=True); sys.stdin.readline(); os.kill(os.getpid(), 11)",
         "crashed by SIGSEGV; its last words: bad pointer"),
        ("sys.stdin.readline(); sys.exit('out of tricks')", "ended with exit code 1; its last words: out of tricks"),
        ("sys.stdin.readline(); os._exit(0)", "ended with exit code 0; its last words: none"),
    ],
)  # fmt: skip
def test_an_end_of_the_process_is_the_reason(code: str, reason: str) -> None:
    with engine(code) as process:
        with pytest.raises(EngineFailed) as caught:
            process.load("x1_0")
        assert (caught.value.reason, caught.value.is_over) == (reason, True)
        # What can't be asked any more says the same.
        with pytest.raises(EngineFailed) as again:
            process.time("x1_0", 0.1, 1)
        assert (again.value.reason, again.value.is_over) == (reason, True)


def test_a_hang_ends_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness.latency.processes, "LOAD_SECONDS", 0.2)
    with engine("time.sleep(60)") as process, pytest.raises(EngineFailed, match=r"no answer within 0\.2 s") as caught:
        process.load("x1_0")
    assert caught.value.is_over


def test_a_real_worker_says_what_it_lacks(tmp_path: Path) -> None:
    """Without exported models it ends at its start; an engine that isn't there would do the same."""
    write_job(Folder(tmp_path).job, Job(("x1_0",), ("paddle",), "cpu"))
    with EngineProcess("paddle", tmp_path, os.environ) as process, pytest.raises(EngineFailed) as caught:
        process.load("x1_0")
    assert "images.npy" in caught.value.reason


def test_networks_that_can_not_be_exported(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="the networks could not be exported") as caught:
        export(tmp_path, os.environ)
    assert "exit code 1" in caught.value.message
    assert "orders.json" in caught.value.message
    assert "doctor" in caught.value.cure
    with pytest.raises(MachineError, match=r"no end within 0\.1 s"):
        export(tmp_path, os.environ, 0.1)
