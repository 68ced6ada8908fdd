from __future__ import annotations

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from harness import ROOT
from harness.artifacts.lock import exclusive_lock
from harness.artifacts.record import write_record
from harness.artifacts.shared_schema import BAD_FILES
from harness.artifacts.tables import read_table
from harness.cli import main
from harness.commands.data.verify import fingerprint
from pipelines.dataset import open_dataset
from pipelines.verification import KINDS
from tests.support.bad_files import Kind, encoded, kinds
from tests.support.plans import a_record

# A list has one line for each image, so these can't be in one.
LISTED = [kind for kind in kinds() if "\n" not in kind.name and "\0" not in kind.name]


def write_list(folder: Path, split: str, names: list[str], classes: int = 3) -> None:
    lines = [os.fsencode(name) + f" {index % classes}\n".encode() for index, name in enumerate(names)]
    (folder / f"{split}_list.txt").write_bytes(b"".join(lines))


def write_good(folder: Path, count: int) -> list[str]:
    """Small images of one content."""
    content = encoded(Image.new("RGB", (8, 8), (200, 10, 10)))
    names = [f"good{index}.jpg" for index in range(count)]
    for name in names:
        (folder / name).write_bytes(content)
    return names


def folder_of_kinds(folder: Path) -> tuple[Path, list[Kind | None]]:
    """Every kind that can be listed, two good images (None) behind each; validation is of the first two good ones."""
    data = folder / "data"
    data.mkdir()
    good = write_good(data, 2 * len(LISTED) + 2)
    names: list[str] = []
    made: list[Kind | None] = []
    for index, kind in enumerate(LISTED):
        kind.write(data / kind.name)
        names += [kind.name, good[2 * index], good[2 * index + 1]]
        made += [kind, None, None]
    write_list(data, "train", names)
    write_list(data, "val", good[-2:])
    return data, made


def rows(results: Path) -> list[tuple[str, str, int, str]]:
    """Split, path, label and kind of every row of the only table."""
    (table,) = results.glob("*.csv")
    frame = read_table(table, BAD_FILES)
    return [(str(row["split"]), str(row["path"]), int(row["label"]), str(row["kind"])) for _, row in frame.iterrows()]


def state(results: Path) -> dict[str, Any]:
    (file,) = results.glob("*.json")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_every_kind_has_its_row_and_nothing_else_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, made = folder_of_kinds(tmp_path)
    assert main(["verify", str(data), "--results", str(tmp_path / "out"), "--classes", "3"]) == 4
    expected = [(index % 3, kind) for index, kind in enumerate(made) if kind is not None and kind.verdict]
    found = rows(tmp_path / "out")
    assert [(label, kind) for _, _, label, kind in found] == [(label, kind.verdict) for label, kind in expected]
    assert {split for split, *_ in found} == {"train"}
    plain = [(path, kind.name) for (_, path, _, _), (_, kind) in zip(found, expected, strict=True)]
    assert all(path == name for path, name in plain if name.isascii())

    counts: dict[str, int] = {}
    for _, kind in expected:
        counts[kind.verdict] = counts.get(kind.verdict, 0) + 1
    assert state(tmp_path / "out")["counts"] == counts
    printed, errors = capsys.readouterr()
    total = len(made) + 2
    assert f"train: {len(made):,} images of 3 classes" in printed
    assert "val: 2 images of 2 classes" in printed
    assert "warning: 6 images have another format than their names say: they are used anyway" in printed
    message = errors[errors.index("error:") :].splitlines()
    assert message[0] == f"error: {total:,} images checked in 'data':"
    assert "  1 image is empty (0 bytes): restore it" in message
    assert "  1 image has more than 178,956,970 pixels: scale it down" in message
    assert f"  {counts['undecodable']} images can't be decoded: restore them" in message
    assert f"{tmp_path / 'out' / 'verify-data.csv'} lists each of them with its reason." in message[-1]


def test_class_folders_are_verified_with_hostile_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only what a folder lists: of a name that ends in an image's extension."""
    for split in ("train", "val"):
        for label in ("=cat", "dog"):
            (tmp_path / "=data" / split / label).mkdir(parents=True)
    for kind in kinds():
        if kind.name.endswith(".jpg") and "\0" not in kind.name:
            kind.write(tmp_path / "=data" / "train" / "=cat" / kind.name)
    evil = "=cmd|'\n<script>\x1b[2J.jpg"
    (tmp_path / "=data" / "train" / "=cat" / evil).write_bytes(b"text")
    (tmp_path / "=data" / "train" / "dog" / "0.png").write_bytes(encoded(Image.new("RGB", (8, 8)), "PNG"))
    (tmp_path / "=data" / "val" / "dog" / "0.png").write_bytes(encoded(Image.new("RGB", (8, 8)), "PNG"))
    assert main(["verify", str(tmp_path / "=data"), "--results", str(tmp_path / "out")]) == 4
    (table,) = (tmp_path / "out").glob("*.csv")
    assert table.name.startswith("verify-data-")
    there = [kind for kind in kinds() if kind.verdict and kind.verdict != "missing" and "\0" not in kind.name]
    # Of a missing file and one whose name is too long no folder tells; a link to nothing is listed.
    expected = sorted([kind.verdict for kind in there if len(kind.name) < 256] + ["missing", "undecodable"])
    assert sorted(kind for *_, kind in rows(tmp_path / "out")) == expected
    text = table.read_text()
    assert r"train/=cat/=cmd|'\n<script>\x1b[2J.jpg" in text
    assert "\x1b" not in text + "".join(capsys.readouterr())
    assert len(text.splitlines()) == len(expected) + 1


@pytest.mark.parametrize(("name", "train", "val"), [("digits", 1442, 355), ("photos", 1024, 128)])
def test_the_built_in_sets_are_clean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, train: int, val: int
) -> None:
    assert main(["verify", name, "--results", str(tmp_path)]) == 0
    printed, errors = capsys.readouterr()
    assert errors == ""
    assert f"{train + val:,} images verified" in printed
    assert f"train: {train:,} images of" in printed
    assert f"val: {val:,} images of" in printed
    assert "every image can be read and decoded" in printed
    assert rows(tmp_path) == []
    assert state(tmp_path)["done"] == {"train": train, "val": val}
    assert state(tmp_path)["status"] == "finished"


def test_warnings_alone_are_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_good(tmp_path, 2)
    (tmp_path / "png.jpg").write_bytes(encoded(Image.new("RGB", (8, 8)), "PNG"))
    write_list(tmp_path, "train", ["good0.jpg", "png.jpg", "good1.jpg", "good0.jpg"])
    assert main(["verify", str(tmp_path), "--results", str(tmp_path / "out"), "--classes", "4"]) == 0
    assert rows(tmp_path / "out") == [("train", "png.jpg", 1, "format"), ("train", "good0.jpg", 0, "twice")]
    printed, _ = capsys.readouterr()
    assert "train: 4 images of 3 classes\nclasses: 4, from --classes\n" in printed
    assert "warning: train: 1 of the model's 4 classes has no image: 3\n" in printed
    assert "warning: 1 image is a repetition in its list: it counts as often as it is listed" in printed
    assert "every image can be read and decoded; see " in printed


def test_an_image_of_both_splits_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = write_good(tmp_path, 80)
    write_list(tmp_path, "train", names[:40])
    write_list(tmp_path, "val", names[39:])
    assert main(["verify", str(tmp_path), "--results", str(tmp_path / "out")]) == 4
    assert rows(tmp_path / "out") == [("val", "good39.jpg", 0, "leak")]
    assert capsys.readouterr().err.startswith(
        f"error: 81 images checked in {tmp_path.name!r}: 1 validation image is also in the training list: remove it"
        " from one of them\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["verify"], 2, "the following arguments are required: DATA"),
        (["verify", "digits", "--threads", "0"], 2, "--threads is 0; it must be at least 1"),
        (["verify", "digits", "--classes", "0"], 4, "0 classes asked for; at least 1 is needed"),
        (["verify", "digits", "--classes", "3"], 4, "holds 10 class folders, more than the 3 classes asked for"),
        (["verify", "/nowhere"], 4, "no such folder: '/nowhere'"),
        (["verify", "digits", "--results", "/dev/null/x"], 3, "can't write /dev/null/x: Not a directory"),
    ],
)
def test_what_cannot_be_verified_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    assert message in capsys.readouterr().err


# Ends itself at the n-th save, after the rows before it were written. SIGKILL leaves no time for anything.
ENDING = """
import os, signal, sys
from harness.commands.data import verify
from harness.cli import main

signal_number, at = int(sys.argv[1]), int(sys.argv[2])
save, saves = verify._save, []

def save_or_end(table, state):
    saves.append(state)
    if len(saves) == at:
        os.kill(os.getpid(), signal_number)
    save(table, state)

verify._save, verify.SAVE_SECONDS = save_or_end, 0.0
sys.exit(main(sys.argv[3:]))
"""


def end_by(number: int, at: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ENDING, str(int(number)), str(at), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("at", [2, 3, 5])
def test_a_killed_verification_resumes_without_a_row_lost_or_doubled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], at: int
) -> None:
    data, made = folder_of_kinds(tmp_path)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(["verify", str(data), "--results", str(whole), "--classes", "3"]) == 4
    ended = end_by(signal.SIGKILL, at, "verify", str(data), "--results", str(parts), "--classes", "3")
    assert ended.returncode == -signal.SIGKILL
    before = state(parts)
    assert before["status"] == "running"
    assert sum(before["done"].values()) < len(made)
    # As if it had been killed in the middle of a row.
    with next(parts.glob("*.csv")).open("ab") as stream:
        stream.write(b"train,half a ro")
    capsys.readouterr()
    assert main(["verify", str(data), "--results", str(parts), "--classes", "3"]) == 4
    note = f"note: resuming after {sum(before['done'].values()):,} images, verified before\n"
    assert note in capsys.readouterr().out
    assert next(parts.glob("*.csv")).read_bytes() == next(whole.glob("*.csv")).read_bytes()
    assert state(parts) == state(whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_verification_prints_the_command_that_resumes_it(tmp_path: Path, number: int) -> None:
    data, made = folder_of_kinds(tmp_path)
    moved = data.rename(tmp_path / "my data")
    whole, parts = tmp_path / "whole", tmp_path / "it's parts"
    assert main(["verify", str(moved), "--results", str(whole), "--classes", "3"]) == 4
    arguments = ["verify", str(moved), "--results", str(parts), "--classes", "3", "--threads", "1"]
    ended = end_by(number, 3, *arguments)
    assert ended.returncode == 75
    told = ended.stderr[ended.stderr.index("error: interrupted") :].splitlines()
    assert state(parts)["status"] == "interrupted"
    assert told[0] == f"error: interrupted: {sum(state(parts)['done'].values())} of {len(made) + 2} images verified"
    assert told[1].startswith("  To resume: ")
    words = shlex.split(told[1].removeprefix("  To resume: "))
    assert words == ["python", "run_bench.py", *arguments]
    assert main(words[2:]) == 4
    assert next(parts.glob("*.csv")).read_bytes() == next(whole.glob("*.csv")).read_bytes()


def test_with_other_lists_a_verification_starts_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = write_good(tmp_path, 100)
    out = ["--results", str(tmp_path / "out")]
    write_list(tmp_path, "train", [*names, "missing.jpg"])
    assert end_by(signal.SIGKILL, 3, "verify", str(tmp_path), *out).returncode == -signal.SIGKILL
    write_list(tmp_path, "train", names[::-1])
    assert main(["verify", str(tmp_path), *out]) == 0
    printed = capsys.readouterr().out
    assert "differ from those of the unfinished verification: starting over" in " ".join(printed.split())
    assert "100 images verified" in printed
    assert "are replaced" not in printed
    # A finished one, too, and then it says so: another data set of the same name has the same files.
    write_list(tmp_path, "train", names[:9])
    assert main(["verify", str(tmp_path), *out]) == 0
    assert "its results are replaced" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("content", ["", "{}", "[]", "nonsense", '{"schema_version": 2}'])
def test_a_state_that_cannot_be_read_is_no_obstacle(tmp_path: Path, content: str) -> None:
    write_list(tmp_path, "train", write_good(tmp_path, 3))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"verify-{tmp_path.name}.json").write_text(content)
    assert main(["verify", str(tmp_path), "--results", str(tmp_path / "out")]) == 0
    assert state(tmp_path / "out")["status"] == "finished"


def test_a_table_that_lost_rows_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = write_good(tmp_path, 100)
    out = ["--results", str(tmp_path / "out")]
    write_list(tmp_path, "train", ["missing.jpg", *names])
    assert end_by(signal.SIGKILL, 4, "verify", str(tmp_path), *out).returncode == -signal.SIGKILL
    next((tmp_path / "out").glob("*.csv")).write_bytes(b"")
    assert main(["verify", str(tmp_path), *out]) == 4
    assert "starting over" in " ".join(capsys.readouterr().out.split())
    assert rows(tmp_path / "out") == [("train", "missing.jpg", 0, "missing")]


def test_a_finished_verification_is_done_again(tmp_path: Path) -> None:
    names = write_good(tmp_path, 3)
    write_list(tmp_path, "train", names)
    out = ["--results", str(tmp_path / "out")]
    assert main(["verify", str(tmp_path), *out]) == 0
    (tmp_path / names[1]).write_bytes(b"")
    assert main(["verify", str(tmp_path), *out]) == 4
    assert rows(tmp_path / "out") == [("train", "good1.jpg", 1, "empty")]


def test_two_at_once_do_not_share_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_list(tmp_path, "train", write_good(tmp_path, 3))
    (tmp_path / "out").mkdir()
    with exclusive_lock(tmp_path / "out" / f".verify-{tmp_path.name}.lock", wait=True):
        assert main(["verify", str(tmp_path), "--results", str(tmp_path / "out")]) == 2
    assert "another verification is writing" in capsys.readouterr().err


def test_a_run_of_its_name_keeps_its_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_list(tmp_path, "train", write_good(tmp_path, 3))
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / f"verify-{tmp_path.name}.json"
    write_record(path, a_record())
    before = path.read_bytes()
    assert main(["verify", str(tmp_path), "--results", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == (
        f"error: {str(path)!r} is the record of a run or series\n  Name another --results.\n"
    )
    assert path.read_bytes() == before
    assert not path.with_suffix(".csv").exists()


def test_a_disk_without_locks_is_verified_with_a_note(tmp_path: Path, no_locks: dict[str, str]) -> None:
    """Case B2: it is not taken for another verification."""
    write_list(tmp_path, "train", write_good(tmp_path, 3))
    command = [sys.executable, "run_bench.py", "verify", str(tmp_path), "--results", str(tmp_path / "out")]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**no_locks, "FLOCK_ERRNO": str(errno.ENOLCK)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = " ".join(done.stdout.split())
    note = f"note: the file system of '{tmp_path}/out' has no locks: don't start two verifications of one data set at"
    assert told.startswith(f"{note} the same time")
    assert told.count("no locks") == 1
    assert state(tmp_path / "out")["status"] == "finished"


def test_a_fingerprint_is_of_paths_labels_and_splits(tmp_path: Path) -> None:
    def of(train: str, val: str = "") -> str:
        (tmp_path / "train_list.txt").write_text(train)
        (tmp_path / "val_list.txt").unlink(missing_ok=True)
        if val:
            (tmp_path / "val_list.txt").write_text(val)
        return fingerprint(open_dataset(tmp_path))

    assert of("a 0\nb 1\n") == of("a 0\nb 1\n")
    variants = ["a 0\nb 1\n", "a 0\nb 2\n", "b 1\na 0\n", "a 0\n", "ab 0\n", "a 0\nb 1\nc 1\n"]
    assert len({of(text) for text in variants} | {of("a 0\n", "b 1\n")}) == 7


def test_every_kind_is_said_in_words() -> None:
    (column,) = (column for column in BAD_FILES.columns if column.name == "kind")
    assert all(kind in column.meaning for kind in KINDS)
