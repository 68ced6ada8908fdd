"""How the ranks are started, watched and ended. A small script stands in for Paddle's launcher."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

import harness.launch.launcher
import harness.plan.plan
from harness import ROOT
from harness.artifacts.record import RunFiles
from harness.errors import InterruptedRunError, MachineError, OutOfMemoryError, TrainingError
from harness.launch import signals
from harness.launch.launcher import launch_command, run_workers
from harness.launch.process_tree import run_root
from harness.launch.rank_files import RankFiles, leave_lists, lists_left
from harness.machine.device import Devices
from harness.plan.nodes import Node
from models.errors import ActionableError
from pipelines.image_lists import ImageList
from tests.support.plans import a_plan, with_settings
from tests.support.seen import python_path

PLAN = a_plan(compute_threads=3)
# What every stand-in may use: the folder of the logs, and the run's own.
PREAMBLE = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
logs, results, ranks = Path(sys.argv[1]), Path(sys.argv[2]).parent, sys.argv[3]
def fail(rank, code, message, cure, seconds=0):
    path = logs / f"failure.{rank}"
    path.write_text(json.dumps({"kind": "ActionableError", "exit_code": code, "message": message, "cure": cure}))
    os.utime(path, (seconds, seconds))
def wait_for(path):
    while not path.exists():
        time.sleep(0.01)
"""


class Launch:
    """Runs a script in the launcher's place. folders: where the launcher was told to put its logs."""

    def __init__(self, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files = RunFiles(results, "first")
        self.folders: list[Path] = []
        self._monkeypatch = monkeypatch

    def __call__(
        self,
        script: str,
        poll: Callable[[], None] = lambda: None,
        environment: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        def command(ranks: int, logs: Path, program: Sequence[str], _: object) -> list[str]:
            self.folders.append(logs)
            return [sys.executable, "-c", PREAMBLE + script, str(logs), program[-1], str(ranks)]

        self._monkeypatch.setattr(harness.launch.launcher, "launch_command", command)
        own = {name: more.pop(name) for name in ("stall_timeout", "rendezvous_timeout") if name in more}
        run_workers(
            self.files,
            Devices("cpu", 2, "CPU"),
            with_settings(more.pop("plan", PLAN), **own),
            environment or dict(os.environ),
            poll,
            **{"splits": {}, "node": Node(), "kept": self.files.folder / "first.logs", **more},
        )


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    results = tmp_path / "results"
    results.mkdir()
    return Launch(results, monkeypatch)


def ended(process: int) -> bool:
    """Whether the process behind this pidfd has ended, or does so in the next seconds."""
    return bool(select.select([process], [], [], 5.0)[0])


def test_the_launcher_s_command_line() -> None:
    program = (str(ROOT / "run_bench.py"), "worker", "results/first.json")
    assert launch_command(4, Path("/tmp/logs"), program, ("--nnodes", "2")) == [
        sys.executable,
        *(str(ROOT / "run_bench.py"), "launcher"),
        *("--nproc_per_node", "4"),
        *("--log_dir", "/tmp/logs"),
        *("--enable_gpu_log", "0"),
        *("--nnodes", "2"),
        *program,
    ]


CHAIN = """
import subprocess, sys
from harness.launch.process_tree import run_root
depth = int(sys.argv[1])
if depth:
    sys.exit(subprocess.call([sys.executable, __file__, str(depth - 1)]))
import os
print(os.getpid(), run_root({}, os.getpid()), run_root({"PADDLE_TRAINER_ID": "0"}, os.getpid()))
"""


def test_a_run_hangs_from_the_process_above_the_launcher(tmp_path: Path) -> None:
    script = tmp_path / "chain.py"
    script.write_text(CHAIN)
    # The bench, the launcher, a rank.
    with subprocess.Popen(
        [sys.executable, str(script), "2"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": python_path(ROOT)},
    ) as bench:
        rank, without_launcher, launched = map(int, bench.communicate()[0].split())
    assert without_launcher == rank
    assert launched == bench.pid


def test_a_rank_that_is_gone_is_its_own_root() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert run_root({"PADDLE_TRAINER_ID": "0"}, ended.pid) == ended.pid


def test_a_rank_leaves_its_error_beside_its_log() -> None:
    files = RankFiles.of({"PADDLE_LOG_DIR": "/tmp/logs", "PADDLE_TRAINER_ID": "3"})
    assert files == RankFiles(
        Path("/tmp/logs/failure.3"), Path("/tmp/logs/pulse.3"), Path("/tmp/logs/joined.3"), Path("/tmp/logs/notices.3"),
        Path("/tmp/logs/lists"),
    )  # fmt: skip


def test_ranks_get_the_lists_with_their_roots(tmp_path: Path) -> None:
    splits = {
        "train": ImageList(Path("/data/\udcff"), ("a.jpg", "\udcfe.jpg"), (3, 4)),
        "val": ImageList(Path("relative"), ("b.jpg",), (0,)),
    }
    leave_lists(tmp_path, splits)
    assert lists_left(tmp_path / "lists") == splits


def test_a_folder_without_room_for_the_lists_is_named(tmp_path: Path) -> None:
    (tmp_path / "lists").touch()
    with pytest.raises(MachineError, match=f"can't write {tmp_path}/lists/train: ") as caught:
        leave_lists(tmp_path, {"train": ImageList(Path(), ("a.jpg",), (0,))})
    assert caught.value.cure == "Name another folder for temporary files: TMPDIR=/path/to/folder."


def test_a_process_without_a_launcher_has_no_such_files() -> None:
    assert RankFiles.of({}) is None


def test_what_is_done_meanwhile_is_done_once_while_the_ranks_run(launch: Launch) -> None:
    """The script, which stands in for the ranks, ends only when it has been done."""
    done = launch.files.folder / "done"
    calls: list[bool] = []

    def meanwhile() -> None:
        calls.append(done.exists())
        done.touch()

    launch('wait_for(results / "done")', meanwhile=meanwhile)
    assert calls == [False]


def test_ranks_that_end_well_leave_nothing_behind(launch: Launch) -> None:
    launch("(logs / 'workerlog.0').write_text('done')")
    assert list(launch.files.folder.iterdir()) == []
    assert not launch.folders[0].exists()


def test_the_launcher_gets_the_workers_environment(launch: Launch) -> None:
    launch(
        "(results / 'seen').write_text(json.dumps([dict(os.environ), ranks]))",
        environment={"PATH": os.environ["PATH"], "CUDA_VISIBLE_DEVICES": "0", "MINE": "kept"},
    )
    seen, ranks = json.loads((launch.files.folder / "seen").read_text(encoding="utf-8"))
    assert ranks == "2"
    assert (seen["OMP_NUM_THREADS"], seen["PADDLE_DISTRI_BACKEND"], seen["MINE"]) == ("3", "gloo", "kept")
    assert "CUDA_VISIBLE_DEVICES" not in seen


def test_logs_go_to_a_private_folder(launch: Launch) -> None:
    """What ranks print may name files that are nobody else's business."""
    launch("(results / 'mode').write_text(oct(logs.stat().st_mode & 0o777))")
    assert (launch.files.folder / "mode").read_text(encoding="utf-8") == "0o700"
    assert launch.folders[0].parent == Path(tempfile.gettempdir())


def test_poll_is_called_while_the_ranks_run_and_once_behind_them(launch: Launch) -> None:
    """The stand-in waits for what the second poll writes; its own last words are there when the last poll comes."""
    seen: list[bool] = []

    def poll() -> None:
        seen.append((launch.files.folder / "last").exists())
        if len(seen) == 2:
            (launch.files.folder / "go").touch()

    launch("wait_for(results / 'go'); (results / 'last').touch()", poll)
    assert len(seen) >= 3
    assert seen[:2] == [False, False]
    assert seen[-1]


def test_a_rank_s_error_is_told_as_its_own(launch: Launch) -> None:
    with pytest.raises(ActionableError) as caught:
        launch("fail(1, 4, 'no such file: a.jpg', 'Restore it.'); sys.exit(1)")
    error = caught.value
    assert (error.message, error.cure, error.exit_code) == ("no such file: a.jpg", "Restore it.", 4)
    assert list(launch.files.folder.iterdir()) == []


def test_of_several_errors_the_first_is_told(launch: Launch) -> None:
    """The others mostly follow from it."""
    with pytest.raises(ActionableError) as caught:
        launch("fail(0, 5, 'lost rank 1', '', 300); fail(1, 3, 'disk full', 'Make room.', 200); sys.exit(1)")
    assert (caught.value.message, caught.value.exit_code) == ("disk full", 3)
    assert ActionableError.exit_code == 1


CRASH = """
(logs / "workerlog.0").write_text("waiting for rank 1\\n")
(logs / "workerlog.1").write_text(
    "".join(f"step {n}\\n" for n in range(100)) + "Traceback (most recent call last):\\nMemoryError\\n"
)
(logs / "pulse.0").touch()
sys.exit(3)
"""


def test_a_rank_that_dies_is_told_with_the_end_of_its_log(launch: Launch) -> None:
    with pytest.raises(TrainingError) as caught:
        launch(CRASH)
    kept = launch.files.folder / "first.logs"
    assert caught.value.exit_code == 5
    assert "exit code 3" in caught.value.message
    assert caught.value.cure.splitlines() == [
        "The end of workerlog.1:",
        *(f"step {number}" for number in range(90, 100)),
        "Traceback (most recent call last):",
        "MemoryError",
        f"Logs: {kept}",
    ]


@pytest.mark.parametrize("before", [[], ["workerlog.0", "workerlog.7"]])
def test_the_logs_of_the_last_failure_alone_are_kept(launch: Launch, before: list[str]) -> None:
    """Case E11: an earlier failure may have been one of more ranks. What else is there is the user's."""
    kept = launch.files.folder / "first.logs"
    kept.mkdir()
    for name in (*before, "notes"):
        (kept / name).write_text("earlier")
    with pytest.raises(TrainingError):
        launch(CRASH)
    assert sorted(path.name for path in kept.iterdir()) == ["notes", "workerlog.0", "workerlog.1"]
    assert (kept / "workerlog.0").read_text(encoding="utf-8") == "waiting for rank 1\n"
    assert not launch.folders[0].exists()


def test_a_log_that_is_no_text_can_be_told_all_the_same(launch: Launch) -> None:
    with pytest.raises(TrainingError) as caught:
        launch("(logs / 'workerlog.0').write_bytes(b'Error \\xff\\xfe'); sys.exit(1)")
    assert "The end of workerlog.0:\nError \N{REPLACEMENT CHARACTER}" in caught.value.cure


def test_a_rank_that_is_killed_is_an_error_too(launch: Launch) -> None:
    with pytest.raises(TrainingError) as caught:
        launch("os.kill(os.getpid(), signal.SIGKILL)")
    assert "-9" in caught.value.message


def test_a_launcher_that_never_starts_a_rank_is_told_with_its_own_words(launch: Launch) -> None:
    with pytest.raises(TrainingError) as caught:
        launch("sys.exit('ValueError: port 6170 is taken')")
    assert "port 6170 is taken" in caught.value.cure


def test_an_error_file_that_was_cut_short_is_not_the_last_word(launch: Launch) -> None:
    """A rank may be killed, or the disk be full, while it writes the file."""
    with pytest.raises(TrainingError) as caught:
        launch(
            "(logs / 'failure.0').write_text('{\"exit_code\": 4, \"mess');"
            "(logs / 'workerlog.0').write_text('Error: no space'); sys.exit(1)"
        )
    assert "Error: no space" in caught.value.cure


SLEEP = "time.sleep(60)"
# A rank that doesn't listen, but begins as every worker does. Paddle's launcher, too, gives each its own session
# (launch/utils/process_context.py).
# The poll finds its process id in a file that is complete once it is there.
DEAF_RANK = """
rank = subprocess.Popen([sys.executable, "-c", '''
import os, signal, sys, time
from harness.launch.launcher import die_with_parent
die_with_parent()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(sys.argv[1] + ".part", "w") as stream:
    stream.write(str(os.getpid()))
os.rename(sys.argv[1] + ".part", sys.argv[1])
time.sleep(60)
''', str(results / "rank")], start_new_session=True)
wait_for(results / "rank")
"""


class Watch:
    """A poll that opens the rank's process as soon as it is known, and then does what it is told to."""

    def __init__(self, results: Path, then: Callable[[], None]) -> None:
        self._file, self._then = results / "rank", then
        self.rank: int | None = None

    def __call__(self) -> None:
        if self.rank is None and self._file.exists():
            self.rank = os.pidfd_open(int(self._file.read_text(encoding="utf-8")))
            self._then()

    def rank_ended(self) -> bool:
        """Asked once: kills a rank that was left running, so that the test leaves none."""
        assert self.rank is not None
        try:
            if ended(self.rank):
                return True
            signal.pidfd_send_signal(self.rank, signal.SIGKILL)
            return False
        finally:
            os.close(self.rank)


# A launcher that is not to be asked to end: only its ranks are.
SHIELDED = """
assert {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1} <= signal.pthread_sigmask(signal.SIG_BLOCK, [])
"""


@pytest.fixture
def listening() -> Iterator[None]:
    """Signals end what this process does as they end a run."""
    before = {number: signal.getsignal(number) for number in signals.STOP_SIGNALS}
    signals.listen()
    yield
    signals.listen()  # forgets what was asked
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize("number", signals.STOP_SIGNALS)
def test_a_launcher_without_ranks_is_ended_at_once(launch: Launch, number: int) -> None:
    """Case B4, for a signal before the ranks have started."""
    began = launch.files.folder / "began"

    def poll() -> None:
        if began.exists() and not signals.requested():
            signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt):
        launch(f"{SHIELDED}\n(results / 'began').touch()\n{SLEEP}", poll)
    assert began.exists()
    assert not launch.folders[0].exists()


def fail_once_ready(folder: Path) -> Callable[[], None]:
    """A poll that fails once a rank is ready."""

    def poll() -> None:
        if (folder / "ready").exists():
            raise ZeroDivisionError

    return poll


def test_an_error_of_the_poll_lets_the_ranks_save(launch: Launch) -> None:
    script = f"{RANK}\nprocess = rank({SAVING_RANK!r})\nprocess.wait()\n(results / 'saved').touch()"
    with pytest.raises(ZeroDivisionError):
        launch(script, fail_once_ready(launch.files.folder))
    assert (launch.files.folder / "saved").exists()
    assert not launch.folders[0].exists()


def test_an_error_of_the_poll_ends_a_rank_that_does_not_listen(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness.launch.launcher, "STOP_SECONDS", 0.2)
    script = SAVING_RANK.replace("sys.exit(75)", "return")
    with pytest.raises(ZeroDivisionError):
        launch(
            f"{RANK}\nprocess = rank({script!r})\n(results / 'id').write_text(str(process.pid))\n{SLEEP}",
            fail_once_ready(launch.files.folder),
        )
    assert gone(int((launch.files.folder / "id").read_text(encoding="utf-8")))


def test_a_launcher_that_is_killed_leaves_no_rank_behind(launch: Launch) -> None:
    """The kernel kills whoever takes the most memory: the launcher's ranks must not keep training for nobody."""
    watch = Watch(launch.files.folder, (launch.files.folder / "go").touch)
    with pytest.raises(TrainingError):
        launch(f"{DEAF_RANK}\nwait_for(results / 'go')\nos.kill(os.getpid(), signal.SIGKILL)", watch)
    assert watch.rank_ended()


# A rank as the watching process knows it: a child of the launcher with a number, whose code the launcher passes on.
RANK = """
def rank(script, number=0, *more):
    environment = {**os.environ, "PADDLE_TRAINER_ID": str(number), "PADDLE_LOCAL_RANK": str(number)}
    log = (logs / f"workerlog.{number}").open("w")
    return subprocess.Popen([sys.executable, "-c", script, str(logs), str(results), *more], env=environment, stdout=log,
                            stderr=log, start_new_session=True)
def end_with(process):
    # As Paddle's launcher does, which looks once a second.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    time.sleep(0.5)
    sys.exit(process.wait())
"""
SAVING_RANK = """
import json, signal, sys, time
from pathlib import Path
def save(*_):
    told = {"kind": "InterruptedRunError", "exit_code": 75, "message": "stopped at step 7", "cure": "Use --resume."}
    (Path(sys.argv[1]) / "failure.0").write_text(json.dumps(told))
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
(Path(sys.argv[2]) / "ready").touch()
time.sleep(60)
"""


def gone(pid: int) -> bool:
    """Whether a process has ended, waited for or not, or does so in the next seconds: the kernel takes a moment."""
    for _ in range(500):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


def signal_once_ready(folder: Path, *numbers: int) -> Callable[[], None]:
    """A poll in which the signals arrive at this process, once a rank is ready."""
    left = list(numbers)

    def poll() -> None:
        while left and (folder / "ready").exists():
            signal.raise_signal(left.pop())

    return poll


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize("number", signals.STOP_SIGNALS)
def test_a_signal_lets_the_ranks_save_and_tells_what_they_say(launch: Launch, number: int) -> None:
    """Case B4. It comes twice, as from a terminal and from the shell in it; the launcher gets it, too."""
    said: list[str] = []
    with pytest.raises(InterruptedRunError) as caught:
        launch(
            f"{RANK}\nprocess = rank({SAVING_RANK!r})\nos.kill(os.getpid(), {int(number)})\nend_with(process)",
            signal_once_ready(launch.files.folder, number, number), say=said.append,
        )  # fmt: skip
    assert (caught.value.message, caught.value.cure) == ("stopped at step 7", "Use --resume.")
    assert caught.value.exit_code == 75
    assert said == ["finishing the step and saving; press Ctrl-C again to stop at once"]


@pytest.mark.usefixtures("listening")
def test_ranks_that_die_of_the_first_signal_are_an_interruption(launch: Launch) -> None:
    script = SAVING_RANK.replace("signal.signal(signal.SIGTERM, save)\n", "")
    with pytest.raises(KeyboardInterrupt):
        launch(f"{RANK}\nend_with(rank({script!r}))", signal_once_ready(launch.files.folder, signal.SIGHUP))


STARTING_RANK = """
import os, sys, time
from pathlib import Path
from harness.launch.signals import end_at_once
if sys.argv[3:]:
    os.kill(os.getpid(), int(sys.argv[3]))
(Path(sys.argv[2]) / "loaded").touch()
end_at_once()
(Path(sys.argv[2]) / "ready").touch()
time.sleep(60)
"""


@pytest.mark.parametrize("number", signals.STOP_SIGNALS)
def test_a_rank_that_is_asked_while_it_starts_ends_the_run_as_interrupted(launch: Launch, number: int) -> None:
    """Case B4: the signal goes to the rank alone."""
    with pytest.raises(KeyboardInterrupt):
        launch(
            f"{RANK}\nprocess = rank({STARTING_RANK!r})\nwait_for(results / 'ready')\n"
            f"process.send_signal({int(number)})\nend_with(process)"
        )
    assert not (launch.files.folder / "first.logs").exists()


def test_a_signal_waits_while_the_interpreter_of_a_rank_starts(launch: Launch) -> None:
    """Case B4: it would end that process, as if it had crashed."""
    with pytest.raises(KeyboardInterrupt):
        launch(f"{RANK}\nend_with(rank({STARTING_RANK!r}, 0, '{int(signal.SIGUSR2)}'))")
    assert [path.name for path in launch.files.folder.iterdir()] == ["loaded"]


@pytest.mark.usefixtures("listening")
def test_a_second_ctrl_c_ends_everything_at_once(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "AGAIN_SECONDS", 0.0)
    script = SAVING_RANK.replace("sys.exit(75)", "return").replace("(Path(sys.argv[1])", "0 and (Path(sys.argv[1])")
    with pytest.raises(KeyboardInterrupt):
        launch(
            f"{RANK}\n(results / 'id').write_text(str(rank({script!r}).pid))\n{SLEEP}",
            signal_once_ready(launch.files.folder, signal.SIGINT, signal.SIGINT),
        )
    assert gone(int((launch.files.folder / "id").read_text(encoding="utf-8")))


def test_an_error_of_memory_is_told_as_one(launch: Launch) -> None:
    with pytest.raises(OutOfMemoryError) as caught:
        launch(
            "(logs / 'failure.0').write_text(json.dumps("
            "{'exit_code': 5, 'message': 'full', 'cure': 'smaller', 'kind': 'OutOfMemoryError'})); sys.exit(1)"
        )
    assert (caught.value.message, caught.value.exit_code) == ("full", 5)


def test_a_rank_that_native_code_ends_for_want_of_memory_is_told_as_one(launch: Launch) -> None:
    """A C++ exception that nobody catches becomes SIGABRT."""
    text = "terminate called after throwing an instance of 'std::bad_alloc'"
    script = f"import os, sys, time; print({text!r}, flush=True); time.sleep(1); os.abort()"
    with pytest.raises(OutOfMemoryError) as caught:
        launch(f"{RANK}\nend_with(rank({script!r}))")
    assert caught.value.message.startswith("32 images per device do not fit into the memory of rank 0: terminate")
    assert "Use --batch-size 16 or less, or --auto-batch" in caught.value.cure


def test_a_rank_that_was_killed_is_named_though_another_is_found_first(launch: Launch) -> None:
    """The launcher names the failed rank with the lowest number, whose log has an error that follows from the kill."""
    follower = "import time; print('RuntimeError: lost rank 1', flush=True); time.sleep(1.5); raise SystemExit(1)"
    victim = "import time; print('at step 7', flush=True); time.sleep(60)"
    with pytest.raises(TrainingError) as caught:
        launch(
            f"{RANK}\nfirst, second = rank({follower!r}, 0), rank({victim!r}, 1)\n"
            "time.sleep(1); second.kill(); time.sleep(1); first.wait(); sys.exit(1)"
        )
    assert caught.value.message == "rank 1 was ended by SIGKILL (signal 9)"
    assert "dmesg" in caught.value.cure
    assert "The end of workerlog.1:\nat step 7\n" in caught.value.cure


def test_a_rank_that_the_launcher_asked_to_end_is_not_what_ended_the_run(launch: Launch) -> None:
    """Case B1: a rank that waits for its storage ends when it is asked to, here because another one was killed."""
    victim = "import time; time.sleep(60)"
    with pytest.raises(TrainingError) as caught:
        launch(
            f"{RANK}\nfirst, second = rank({victim!r}, 0), rank({victim!r}, 1)\n"
            "time.sleep(1); second.kill(); time.sleep(1); fail(0, 75, 'interrupted', ''); first.kill(); sys.exit(1)"
        )
    assert caught.value.message == "rank 1 was ended by SIGKILL (signal 9)"


@pytest.mark.parametrize(("pulse", "what"), [("(logs / 'pulse.0').touch()", "no step"), ("", "no first step")])
def test_ranks_that_all_stand_still_are_ended_from_outside(
    launch: Launch, monkeypatch: pytest.MonkeyPatch, pulse: str, what: str
) -> None:
    """A stopped rank's own watchdog is stopped with it. Case E13: also before the first step."""
    monkeypatch.setattr(harness.launch.launcher, "WATCHDOG_GRACE_SECONDS", 0.5)
    monkeypatch.setattr(harness.plan.plan, "MIN_START_SECONDS", 0.5)
    with pytest.raises(TrainingError) as caught:
        launch(
            f"{RANK}\nprocess = rank('import time; time.sleep(60)')\n{pulse}\n"
            f"os.kill(process.pid, signal.SIGSTOP)\n{SLEEP}",
            stall_timeout=1.5,
        )
    assert caught.value.message == (
        f"{what} for 1.5 s: rank 0: no answer (stopped or hung in the kernel);"
        " rank 1: no answer (stopped or hung in the kernel)"
    )
    assert caught.value.exit_code == 5


CONTAINER = """
import subprocess, sys
from functools import partial
import os
from harness.launch.launcher import die_with_parent
assert os.getpid() == 1
child = subprocess.run([sys.executable, "-c", "print('alive')"], preexec_fn=partial(die_with_parent, os.getpid()))
sys.exit(child.returncode)
"""


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="only root can start a process 1")
def test_the_first_process_of_a_container_can_start_a_launcher() -> None:
    """There its children's parent is process 1, as an orphan's is elsewhere."""
    done = subprocess.run(
        ["unshare", "--pid", "--fork", sys.executable, "-c", CONTAINER],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if "unshare failed" in done.stderr:
        pytest.skip("this system makes no process namespace")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "alive\n"
