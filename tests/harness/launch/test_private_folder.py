"""Folders for temporary files: private, locked, and swept once their process is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from harness import ROOT
from harness.errors import MachineError
from harness.launch.private_folder import PREFIX, private_folder, sweep

HOLDER = """
import time
from harness.launch.private_folder import private_folder
with private_folder("run") as folder:
    (folder / "workerlog.0").write_text("planted-1234")
    (folder / "more").mkdir()
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, of this process and of those that it starts."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_it_is_private_and_ends_with_its_block(temporary: Path) -> None:
    with private_folder("run") as folder:
        assert folder.parent == temporary
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "more").mkdir()
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_left_is_swept_by_the_next(temporary: Path) -> None:
    """Case B5. While the process runs, its folder stays."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    left = Path(holder.stdout.readline().strip())
    with private_folder("doctor"):
        assert left.exists()
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert left.exists()
    with private_folder("doctor"):
        assert not left.exists()
    assert list(temporary.iterdir()) == []


def test_nothing_is_swept_without_proof(temporary: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Case B5: a folder without a lock, a link to one with a lock, and another program's."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for folder in (temporary / f"{PREFIX}run-unknown", temporary / "other-run-a", elsewhere):
        folder.mkdir(exist_ok=True)
        (folder / "kept").touch()
    (temporary / "other-run-a" / "lock").touch()
    (elsewhere / "lock").touch()
    (temporary / f"{PREFIX}run-link").symlink_to(elsewhere)
    trap = temporary / f"{PREFIX}run-trap"
    trap.mkdir()
    (trap / "lock").symlink_to(elsewhere / "lock")
    before = sorted(temporary.rglob("*"))
    sweep(temporary)
    assert sorted(temporary.rglob("*")) == before
    assert sorted(path.name for path in elsewhere.iterdir()) == ["kept", "lock"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's folder")
def test_another_user_s_folder_is_not_swept(temporary: Path) -> None:
    folder = temporary / f"{PREFIX}run-theirs"
    folder.mkdir()
    (folder / "lock").touch()
    os.chown(folder, 65534, 65534)
    os.chown(folder / "lock", 65534, 65534)
    sweep(temporary)
    assert folder.exists()
    os.chown(folder, 0, 0)
    os.chown(folder / "lock", 0, 0)
    sweep(temporary)
    assert not folder.exists()


NO_LOCKS = """
import errno, fcntl
def flock(*_):
    raise OSError(errno.ENOSYS, "Function not implemented")
fcntl.flock = flock
from pathlib import Path
from harness.launch.private_folder import private_folder
with private_folder("run") as folder:
    assert list(folder.iterdir()) == []
assert not folder.exists()
"""


def test_a_file_system_without_locks_has_folders_all_the_same(temporary: Path) -> None:
    """Case B5 with B2: nothing is swept there."""
    assert temporary.exists()
    subprocess.run([sys.executable, "-c", NO_LOCKS], cwd=ROOT, check=True)


@pytest.mark.parametrize("fault", ["missing", "a file"])
def test_without_a_temporary_folder_the_machine_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Case B7: tempfile has tried them all, or the one that it chose has gone since."""
    chosen = tmp_path / "gone"
    if fault == "a file":
        chosen.touch()
    monkeypatch.setattr(tempfile, "tempdir", str(chosen))
    with pytest.raises(MachineError) as caught, private_folder("run"):
        pass
    assert str(chosen) in caught.value.message
    assert caught.value.exit_code == 3
    assert "TMPDIR=" in caught.value.cure
    # The cure helps.
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with private_folder("run") as folder:
        assert folder.parent == tmp_path
