"""The command `pack`: what it makes, what it refuses, and how it resumes after an interruption."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import ROOT
from harness.cli import main
from pipelines.dataset import open_dataset
from pipelines.packed.manifest import MANIFEST, read_manifest
from pipelines.packed.shards import FORMATS, INDEX
from tests.support.data_sets import write_noise


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("packed") / "data", 24, 8)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_packed_set_is_the_same_set(
    kind: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["pack", str(data), str(out), "--format", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"32 images in 2 shards of {kind}, 0\.00 GB, in [\d.]+ s", lines[0])
    assert lines[1:] == [
        f"To check them: python run_bench.py verify {out}", f"To train on them: python run_bench.py --data {out}",
    ]  # fmt: skip
    folder, packed = open_dataset(data), open_dataset(out)
    assert packed.name == folder.name == "data"
    for split in ("train", "val"):
        one, other = folder.splits[split], packed.splits[split]
        assert other.labels == one.labels
        assert [other.content(index) for index in range(len(other))] == [one.content(i) for i in range(len(one))]
    assert sorted(path.name for path in out.iterdir()) == ["dataset.toml", MANIFEST, INDEX, "train", "val"]
    assert main(["verify", str(out), "--results", str(tmp_path)]) == 0
    # Again, it has nothing to do.
    before = (out / MANIFEST).read_bytes()
    assert main(["pack", str(data), str(out), "--format", kind]) == 0
    assert (out / MANIFEST).read_bytes() == before


KILLED = """
import os, signal, sys
from harness.cli import main
from pipelines.packed import packing
write, count = packing._write, 0
def interrupted(*arguments):
    global count
    count += 1
    if count == int(sys.argv[1]):
        if sys.argv[2] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise KeyboardInterrupt
    return write(*arguments)
packing._write = interrupted
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.parametrize("way", ["kill", "interrupt"])
def test_an_interrupted_pack_resumes(way: str, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["pack", str(data), str(out), "--format", "webdataset", "--shard-megabytes", "1", "--threads", "1"]
    # All images fit in a megabyte: a shard of each split.
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, "2", way, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == (-9 if way == "kill" else 75), ended.stderr
    if way == "interrupt":
        assert ended.stderr.splitlines() == [
            "error: interrupted: 1 of 2 shards written",
            f"  To resume: python run_bench.py pack {data} {out} --format webdataset --shard-megabytes 1 --threads 1",
        ]
    with pytest.raises(Exception, match="are not complete: packing them was interrupted"):
        open_dataset(out)
    first = read_manifest(out)
    assert first is not None
    done = [shard.sha256 is not None for shards in first.splits.values() for shard in shards]
    # A kill may come between a shard's end and the manifest that says so.
    assert done == [True, False] or (way == "kill" and done == [False, False])
    (out / "val/.val-000000.tar.1.abcd").write_bytes(b"left by a killed process")
    again = subprocess.run(
        [sys.executable, str(ROOT / "run_bench.py"), *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert ("resuming after 1 shard that an earlier pack wrote" in again.stderr + again.stdout) == done[0]
    assert len(open_dataset(out).splits["val"]) == 8
    assert list((out / "val").glob(".*")) == []


def refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    assert main(["pack", *arguments]) == code
    return capsys.readouterr().err.partition("\n")[0]


def test_what_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    given = (str(data), str(out), "--format", "recordio")
    assert refused(capsys, 2, *given, "--threads", "0") == "error: --threads is 0; it must be at least 1"
    assert (
        refused(capsys, 2, *given, "--shard-megabytes", "0") == "error: --shard-megabytes is 0; it must be at least 1"
    )
    out.mkdir()
    (out / "mine.txt").write_text("x")
    assert refused(capsys, 2, *given) == f"error: '{out}' holds other files, and no pack that was interrupted"
    (out / "mine.txt").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        line = refused(capsys, 3, *given)
        assert re.fullmatch(rf"error: the shards need 0\.\d GB, and '{out}' has 0\.0 GB left", line)
    assert main(["pack", *given]) == 0
    capsys.readouterr()
    other = write_noise(tmp_path / "data", 25, 8)
    assert refused(capsys, 2, str(other), str(out), "--format", "recordio") == (
        f"error: '{out}' holds shards of other images, or was begun with other options"
    )


@pytest.mark.parametrize("way", ["link", "closed"])
def test_images_that_can_t_be_read_are_not_silently_left_out(
    way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_noise(tmp_path / "data", 8, 4)
    image = data / "train/1/1.jpg"
    if way == "closed":
        if os.geteuid() == 0:
            pytest.skip("root may read everything")
        image.chmod(0)
    else:
        image.unlink()
        image.symlink_to("nothing")
    (data / "train/2/2.jpg").write_bytes(b"")
    reason = "no such file or directory" if way == "link" else "permission denied"
    assert main(["pack", str(data), str(tmp_path / "out"), "--format", "webdataset"]) == 4
    assert capsys.readouterr().err.splitlines()[:2] == [
        "error: 1 image can't be read, and so not packed:", f"  train: 'train/1/1.jpg': {reason}",
    ]  # fmt: skip
    image.unlink()
    # An empty one can be packed, and is then left out as it is in the folder.
    assert main(["pack", str(data), str(tmp_path / "out"), "--format", "webdataset"]) == 0


def test_verify_finds_a_shard_that_has_changed(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["pack", str(data), str(out), "--format", "webdataset"]) == 0
    shard = out / "train/train-000000.tar"
    content = bytearray(shard.read_bytes())
    # A byte of a header that nobody reads.
    content[300] ^= 1
    content[148:156] = b"%06o\0 " % (sum(content[:148]) + 8 * 32 + sum(content[156:512]))
    shard.write_bytes(content)
    capsys.readouterr()
    assert main(["verify", str(out), "--results", str(tmp_path)]) == 4
    assert "1 shard isn't what was packed: fetch it again" in capsys.readouterr().err
    assert "train/train-000000.tar/train/0/0.jpg,0,checksum" in (tmp_path / "verify-data.csv").read_text()
