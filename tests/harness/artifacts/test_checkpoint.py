from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.artifacts.checkpoint import (
    Checkpoint,
    at_epoch_start,
    forget_newer,
    newest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from harness.errors import MachineError, UsageError
from tests.support.small_disk import SmallDisk


def state(step: int, size: int = 64) -> Checkpoint:
    """Weights of 1/3 times the step, which single precision can't write in few digits, and some values."""
    arrays: dict[str, Any] = {
        "model/fc.weight": np.full(size, step / 3, dtype=np.float32),
        "rank0/dali": np.arange(step, dtype=np.uint8),
        "nothing": np.zeros(0, dtype=np.uint8),
    }
    return Checkpoint(arrays, {"optimizer_steps": step, "loss_sum": step / 7, "rows": {"steps": step}})


def same(a: Checkpoint, b: Checkpoint) -> bool:
    return (
        a.values == b.values
        and set(a.arrays) == set(b.arrays)
        and all(a.arrays[name].tobytes() == b.arrays[name].tobytes() for name in a.arrays)
        and all(a.arrays[name].dtype == b.arrays[name].dtype for name in a.arrays)
    )


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_comes_back_to_the_bit(tmp_path: Path) -> None:
    name = write_checkpoint(tmp_path, state(5))
    assert name == "000001"
    assert same(read_checkpoint(tmp_path, name), state(5))
    assert newest_checkpoint(tmp_path) == (name, state(5).values)


def test_what_is_packed_comes_back_to_the_bit() -> None:
    assert same(Checkpoint.unpack(state(5).pack()), state(5))


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    names = [write_checkpoint(tmp_path, state(step)) for step in range(1, 6)]
    assert names == ["000001", "000002", "000003", "000004", "000005"]
    assert files(tmp_path) == ["000004.json", "000004.safetensors", "000005.json", "000005.safetensors"]


def test_the_last_of_an_epochs_start_is_kept_as_well(tmp_path: Path) -> None:
    """Other devices can resume there alone, and a run may be stopped within an epoch many times."""
    for epoch, steps in ((1, 3), (2, 0), (3, 0), (3, 1), (3, 2), (3, 3)):
        saved = state(steps)
        write_checkpoint(tmp_path, Checkpoint(saved.arrays, {"progress": {"epoch": epoch, "steps": steps}}))
    assert sorted(path.stem for path in tmp_path.glob("*.json")) == ["000003", "000005", "000006"]
    assert newest_checkpoint(tmp_path) == ("000006", {"progress": {"epoch": 3, "steps": 3}})
    assert newest_checkpoint(tmp_path, at_epoch_start) == ("000003", {"progress": {"epoch": 3, "steps": 0}})
    forget_newer(tmp_path, "000003")
    assert newest_checkpoint(tmp_path) == ("000003", {"progress": {"epoch": 3, "steps": 0}})


def test_a_marker_can_be_read_by_people_and_says_what_it_stands_for(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, state(5))
    marker = json.loads((tmp_path / "000001.json").read_text())
    assert marker["values"]["optimizer_steps"] == 5
    assert marker["bytes"] == (tmp_path / "000001.safetensors").stat().st_size
    assert len(marker["sha256"]) == 64


@pytest.mark.parametrize(
    "damage", ["cut", "flipped", "gone", "marker cut", "marker gone", "other version", "no values"]
)
def test_one_that_is_not_whole_gives_its_place_to_the_one_before(tmp_path: Path, damage: str) -> None:
    for step in (1, 2):
        write_checkpoint(tmp_path, state(step))
    tensors, marker = tmp_path / "000002.safetensors", tmp_path / "000002.json"
    data = bytearray(tensors.read_bytes())
    if damage == "cut":
        tensors.write_bytes(data[:-1])
    elif damage == "flipped":
        data[-1] ^= 1
        tensors.write_bytes(data)
    elif damage == "gone":
        tensors.unlink()
    elif damage == "marker cut":
        marker.write_bytes(marker.read_bytes()[:-20])
    elif damage == "marker gone":
        marker.unlink()
    else:
        told = json.loads(marker.read_text())
        if damage == "other version":
            told["version"] = 99
        else:
            del told["values"]
        marker.write_text(json.dumps(told))
    found = newest_checkpoint(tmp_path)
    assert found == ("000001", state(1).values)
    with pytest.raises(MachineError, match=r"000002\.json can't be read"):
        read_checkpoint(tmp_path, "000002")
    # The next one doesn't take a name that is there, and doesn't have the last whole one go.
    name = write_checkpoint(tmp_path, state(3))
    assert name == ("000002" if damage == "marker gone" else "000003")
    if damage not in ("flipped", "no values"):
        assert files(tmp_path) == sorted(
            f"{stem}{suffix}" for stem in ("000001", name) for suffix in (".json", ".safetensors")
        )


def test_checkpoints_of_another_version_are_told_and_left_as_they_are(tmp_path: Path) -> None:
    """Taken for none, a run would begin again and clear them away."""
    for step in (1, 2):
        write_checkpoint(tmp_path, state(step))
    for marker in tmp_path.glob("*.json"):
        marker.write_text(json.dumps({**json.loads(marker.read_text()), "version": 1}))
    before = files(tmp_path)
    with pytest.raises(UsageError, match="have version 1; this version reads 2") as caught:
        newest_checkpoint(tmp_path)
    assert caught.value.cure == "Resume with the version of this project that wrote them."
    assert files(tmp_path) == before


def test_what_a_killed_process_left_half_done_is_cleared_away(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, state(1))
    (tmp_path / ".000002.safetensors.4711.0a1b2c3d").write_bytes(b"half")
    (tmp_path / "000002.safetensors").write_bytes(b"without its marker")
    assert newest_checkpoint(tmp_path) == ("000001", state(1).values)
    assert write_checkpoint(tmp_path, state(2)) == "000002"
    assert files(tmp_path) == ["000001.json", "000001.safetensors", "000002.json", "000002.safetensors"]


@pytest.mark.parametrize(
    "name",
    ["export.safetensors", "best.json", "20261124.safetensors", "1.json", "000001-copy.safetensors", ".000009.json.bak",
     ".2026-notes", "\N{SUPERSCRIPT TWO}.json", "000001.pdparams"],
)  # fmt: skip
def test_what_a_user_puts_beside_checkpoints_is_left_alone(tmp_path: Path, name: str) -> None:
    """Case E1: a run removes the files that it has numbered itself, and no others."""
    (tmp_path / name).write_bytes(b"the user's")
    for step in range(1, 5):
        write_checkpoint(tmp_path, state(step))
    forget_newer(tmp_path, "000003")
    assert newest_checkpoint(tmp_path) == ("000003", state(3).values)
    forget_newer(tmp_path, None)
    assert newest_checkpoint(tmp_path) is None
    write_checkpoint(tmp_path, state(5))
    assert (tmp_path / name).read_bytes() == b"the user's"


def test_without_any_there_is_none(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "not there") is None


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["EVIL_FOLDER"],)


def test_a_crafted_pickle_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    trap = tmp_path / "executed"
    monkeypatch.setenv("EVIL_FOLDER", str(trap))
    data = pickle.dumps(Evil())
    pickle.loads(data)
    assert trap.exists()
    trap.rmdir()
    write_checkpoint(tmp_path, state(1))
    (tmp_path / "000001.safetensors").write_bytes(data)
    marker = json.loads((tmp_path / "000001.json").read_text())
    marker |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (tmp_path / "000001.json").write_text(json.dumps(marker))
    with pytest.raises(MachineError, match="can't be read"):
        read_checkpoint(tmp_path, "000001")
    assert not trap.exists()


def test_a_full_disk_leaves_the_older_ones_whole(small_disk: SmallDisk) -> None:
    disk = small_disk(256 * 1024)
    write_checkpoint(disk, state(1))
    with pytest.raises(MachineError, match="No space left on device") as caught:
        write_checkpoint(disk, state(2, size=100_000))
    assert "older checkpoints are kept" in caught.value.cure
    assert newest_checkpoint(disk) == ("000001", state(1).values)
    assert files(disk) == ["000001.json", "000001.safetensors"]


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="No such file or directory"):
        write_checkpoint(tmp_path / "gone", state(1))
