"""The one lock, held and asked for by real processes."""

from __future__ import annotations

import errno
import fcntl
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import ROOT
from harness.artifacts.lock import exclusive_lock, has_locks, is_locked
from harness.artifacts.record import RunFiles, write_record
from harness.artifacts.run_claim import exclusive_run_lock
from harness.errors import MachineError, UsageError
from tests.support.plans import a_record
from tests.support.small_disk import SmallDisk, fill, make_read_only

HOLDER = """
import sys
from pathlib import Path
from harness.artifacts.lock import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), wait=sys.argv[2] == "wait"):
    print("has it", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(path: Path, how: str = "wait") -> Iterator[subprocess.Popen[str]]:
    """A process that asks for the lock, and keeps it until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path, how],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def has_it(process: subprocess.Popen[str]) -> bool:
    assert process.stdout is not None
    return process.stdout.readline() == "has it\n"


def is_free(path: Path) -> bool:
    """Whether this process can have it, asked of the kernel."""
    with path.open("r+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_another_process_has_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with another_process(path) as other:
        assert has_it(other)
        with pytest.raises(UsageError) as caught, exclusive_lock(path, wait=False, held="it is being written"):
            raise AssertionError
        assert (caught.value.message, caught.value.cure) == ("it is being written", "Wait for its end.")
        assert caught.value.exit_code == 2
        other.communicate()
    with exclusive_lock(path, wait=False):
        assert not is_free(path)
    assert is_free(path)


def test_a_second_lock_in_one_process_is_another_s(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with exclusive_lock(path, wait=False), pytest.raises(UsageError), exclusive_lock(path, wait=False):
        raise AssertionError
    with exclusive_lock(path, wait=False):
        pass


def test_who_waits_gets_it_when_it_is_free(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with another_process(path) as first, another_process(tmp_path / "not this one") as elsewhere:
        assert has_it(first)
        assert has_it(elsewhere)
        with another_process(path) as second:
            assert second.poll() is None
            first.communicate()
            assert has_it(second)
    with exclusive_lock(path, wait=True):
        pass


def test_it_is_free_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with another_process(path) as other:
        assert has_it(other)
        assert not is_free(path)
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert is_free(path)
        with exclusive_lock(path, wait=False):
            pass


def test_an_error_in_the_block_frees_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with pytest.raises(ZeroDivisionError), exclusive_lock(path, wait=False):
        raise ZeroDivisionError
    assert is_free(path)


FORKING = """
import fcntl, gc, os, sys
from pathlib import Path
from harness.artifacts.lock import exclusive_lock
path, (heard, told) = Path(sys.argv[1]), os.pipe()

def is_free():
    with path.open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

with exclusive_lock(path, wait=False):
    living = os.fork()
    if living == 0:
        os.close(told)
        gc.collect()
        os.read(heard, 1)
        os._exit(0)
    leaving = os.fork()
    if leaving:
        os.waitpid(leaving, 0)
        print("a child left the block:", "free" if is_free() else "held")
if leaving == 0:
    sys.exit()
print("this process left it:", "free" if is_free() else "held")
os.close(told)
os.waitpid(living, 0)
"""


def test_a_forked_child_neither_keeps_nor_frees_it(tmp_path: Path) -> None:
    """One child lives on when the block has ended here, the other leaves the block before."""
    done = subprocess.run(
        [sys.executable, "-c", FORKING, tmp_path / ".lock"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("a child left the block: held\nthis process left it: free\n", "")


UNLOCKED = """
import sys
from pathlib import Path
from harness.artifacts.lock import exclusive_lock, has_locks, is_locked
path = Path(sys.argv[1])
print(has_locks(path.parent))
for wait in (True, False):
    with exclusive_lock(path, wait=wait) as locked, exclusive_lock(path, wait=False):
        print(locked, is_locked(path))
print(sorted(one.name for one in path.parent.iterdir()))
"""


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP])
def test_on_a_file_system_without_locks_the_block_runs_without(
    tmp_path: Path, no_locks: dict[str, str], code: int
) -> None:
    """Case B2: it is not taken for another process that has the lock, nor does the file's presence stand for one."""
    done = subprocess.run(
        [sys.executable, "-c", UNLOCKED, tmp_path / ".lock"],
        cwd=ROOT, env={**no_locks, "FLOCK_ERRNO": str(code)}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("False\nFalse None\nFalse None\n['.lock']\n", "")


def test_an_error_that_has_nothing_to_do_with_locks_is_not_taken_for_their_absence(
    tmp_path: Path, no_locks: dict[str, str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNLOCKED, tmp_path / ".lock"],
        cwd=ROOT, env={**no_locks, "FLOCK_ERRNO": str(errno.EIO)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "True\n"
    assert "MachineError" in done.stderr
    assert "Input/output error" in done.stderr


def test_who_asks_whether_it_is_locked_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    assert not is_locked(path)
    assert list(tmp_path.iterdir()) == []
    assert has_locks(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with another_process(path) as other:
        assert has_it(other)
        assert is_locked(path)
        other.communicate()
    assert not is_locked(path)


def test_a_folder_that_can_t_be_written_or_is_gone_is_the_machine_s_fault(
    tmp_path: Path, small_disk: SmallDisk
) -> None:
    disk = small_disk(64 * 1024)
    make_read_only(disk)
    for folder, reason in (
        (disk, "Read-only file system"), (tmp_path / "gone", "No such file or directory")
    ):  # fmt: skip
        with pytest.raises(MachineError) as caught, exclusive_lock(folder / ".lock", wait=False):
            raise AssertionError
        assert caught.value.message == f"can't write {folder / '.lock'}: {reason}"
        assert caught.value.cure == "Name another folder with --results."
    assert not (tmp_path / "gone").exists()


def test_a_full_disk_can_be_locked(small_disk: SmallDisk) -> None:
    disk = small_disk(64 * 1024)
    with exclusive_lock(disk / ".lock", wait=False):
        pass
    fill(disk)
    with exclusive_lock(disk / ".lock", wait=False):
        pass


def test_a_lock_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MachineError, match="can't write"), exclusive_lock(tmp_path / ".lock", wait=False):
        raise AssertionError
    assert not (tmp_path / "elsewhere").exists()


def test_two_runs_locks_are_apart_and_outlast_their_records_rewriting(tmp_path: Path) -> None:
    a, b = RunFiles(tmp_path, "a"), RunFiles(tmp_path, "b")
    with exclusive_run_lock(a), exclusive_run_lock(b):
        for files in (a, b, a):
            write_record(files.record, a_record())
            for locked in (a, b):
                held = f"run '{locked.run}' is running in another process"
                with pytest.raises(UsageError, match=held), exclusive_run_lock(locked):
                    raise AssertionError
    with exclusive_run_lock(a), exclusive_run_lock(b):
        pass
