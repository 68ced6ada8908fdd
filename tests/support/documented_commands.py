"""Runs the shell blocks of the documentation in a folder that has what they speak of, with everything made small.

Each page has a folder of its own, in which bash runs its blocks in their order. There `python` and `.venv/bin/python`
lead to `main` below, which gives commands their small data, models and times; their words are otherwise the page's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness import ROOT
from harness.artifacts.record import SCHEMA_VERSION
from pipelines.imagenet.numbering import kit_number_of_label, known_validation_labels, wnids
from pipelines.imagenet.validation import VALIDATION_IMAGES
from tests.support.data_sets import write_colours, write_noise
from tests.support.seen import python_path

PYTHON = "DOCUMENTED_PYTHON"
# Of the repository: what commands are started from.
LINKED = ("run_bench.py", "harness", "models", "pipelines", "campaigns", "requirements", "Makefile")
# What a page's folder has below disk/, where the pages have /data/.
FOLDERS = ("imagenet", "flowers")
STORED = ("20261124-162055-x1_0-cpu2", "20261124-093012-x1_0-cpu2", "before", "after", "first", "second")
DATED = re.compile(r"\d{8}-\d{6}-\S+")
FENCE = re.compile(r" *```(\w*)$")
REASON = re.compile(r" *<!-- not run: (.+) -->$")


@dataclass(frozen=True, slots=True)
class Block:
    """Commands of a page; reason says why they aren't run, and is empty where they are."""

    page: str
    body: str
    reason: str


def fenced(page: Path) -> list[tuple[str, str, str]]:
    """The language of each fenced block of a page, its lines, and the line before it."""
    found: list[tuple[str, list[str], str]] = []
    is_open, before = False, ""
    for line in page.read_text(encoding="utf-8").splitlines():
        if fence := FENCE.match(line):
            is_open = not is_open
            if is_open:
                found.append((fence[1], [], before))
        elif is_open:
            found[-1][1].append(line)
        before = line
    return [(language, "\n".join(lines), before) for language, lines, before in found]


def blocks_of(page: Path) -> list[Block]:
    """The shell blocks of a page."""
    return [
        Block(page.name, body, reason[1] if (reason := REASON.match(before)) else "")
        for language, body, before in fenced(page)
        if language == "sh"
    ]


def prepare(folder: Path) -> None:
    """Make what the commands of a page need."""
    from models.weights import encode_weights
    from tests.support.finished_runs import gpu_throughput
    from tests.support.idx_files import write_set
    from tests.support.published import shapes

    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    for name in FOLDERS:
        write_colours(folder / "disk" / name)
    _write_lists(folder / "disk" / "imagenet")
    write_set(folder / "disk" / "mnist")
    results = folder / "results"
    results.mkdir()
    for name in STORED:
        gpu_throughput(results, name)
    arrays = {name: np.zeros(sides, np.float32) for name, sides in shapes("x1_0", 1000).items()}
    within = {f"Student.{name}": value for name, value in arrays.items()}
    for name, values in (("PPLCNet_x1_0_pretrained.pdparams", arrays), ("distilled.pdparams", within)):
        (folder / name).write_bytes(encode_weights(folder / name, values, {}))
    members = ["a-series.r1", "a-series.r2"]
    for name in members:
        gpu_throughput(results, name, series="a-series")
    series = {
        "schema_version": SCHEMA_VERSION,
        "kind": "repeats",
        "run": "a-series",
        "status": "finished",
        "runs": members,
    }
    (results / "a-series.json").write_text(json.dumps(series), encoding="utf-8")
    _write_validation_labels(folder)
    _write_archives(folder)
    for place in (folder / "bin", folder / ".venv" / "bin"):
        place.mkdir(parents=True)
        script = f'#!/bin/sh\nexec "${PYTHON}" -m tests.support.documented_commands "$@"\n'
        (place / "python").write_text(script, encoding="utf-8")
        (place / "python").chmod(0o755)
    # As `make install` leaves it.
    (folder / ".venv" / "installed-cpu").touch()


def _write_lists(data: Path) -> None:
    """Write lists of a set's class folders, with the labels that sorted folders have."""
    for split in ("train", "val"):
        folders = sorted((data / split).iterdir())
        images = [(image, label) for label, folder in enumerate(folders) for image in sorted(folder.iterdir())]
        lines = [f"{image.relative_to(data)} {label}\n" for image, label in images]
        (data / f"{split}_list.txt").write_text("".join(lines), encoding="utf-8")


def _write_validation_labels(folder: Path) -> None:
    """Write files as ImageNet's validation labels are handed out, and a list with the kit's numbers."""
    labels = known_validation_labels()
    numbers = [kit_number_of_label()[labels.get(image, 0)] for image in range(1, VALIDATION_IMAGES + 1)]
    known = [(f"ILSVRC2012_val_{image:08d}", label) for image, label in sorted(labels.items())]
    kaggle = "".join(f"{name},{wnids()[label]} 1 2 3 4\n" for name, label in known)
    (folder / "LOC_val_solution.csv").write_text(f"ImageId,PredictionString\n{kaggle}", encoding="ascii")
    kit = folder / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{number}\n" for number in numbers), "ascii")
    mine = "".join(f"val/{name}.JPEG {kit_number_of_label()[label]}\n" for name, label in known)
    (folder / "my_val_list.txt").write_text(mine, encoding="ascii")


def _write_archives(folder: Path) -> None:
    """Write archives as image-net.org hands them out, with few images of three classes."""
    made = write_noise(folder / "made", 24, 0)
    images = sorted((made / "train").rglob("*.jpg"))
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as train:
        for number, wnid in enumerate(wnids()[:3]):
            one = made / f"{wnid}.tar"
            with tarfile.open(one, "w") as of_class:
                for index in range(8):
                    of_class.add(images[8 * number + index], f"{wnid}_{index}.JPEG")
            train.add(one, one.name)
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as val:
        for image in range(1, 9):
            val.add(images[image], f"ILSVRC2012_val_{image:08d}.JPEG")
    with tarfile.open(folder / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as kit:
        kit.add(folder / "ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12")
    shutil.rmtree(made)


def run(folder: Path, block: Block) -> subprocess.CompletedProcess[str]:
    """Run a block in a prepared folder."""
    environment = {
        **os.environ,
        PYTHON: sys.executable,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": python_path(ROOT),
        "MAKEFLAGS": "DEVICE=cpu",
    }
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.body],
        cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip


def smaller(words: Sequence[str], folder: Path) -> list[str]:
    """The words of a command, as it can be run in a prepared folder in some seconds."""
    words = [word.replace("/data/", f"{folder}/disk/", 1) if word.startswith("/data/") else word for word in words]
    words = [str(folder / "results") if word == "/shared/results" else word for word in words]
    if words[:1] != ["run_bench.py"] or "--help" in words or "--dry-run" in words:
        return words
    command = words[1] if len(words) > 1 and not words[1].startswith("-") else ""
    if command == "doctor" and not {"--level", "--list", "shm"} & {*words}:
        return [*words, "--level", "quick"]
    if command == "latency":
        small = ["--image-size", "32", "--seconds", "0.1", "--rounds", "1", "--threads", "1"]
        return [*words, *small, *([] if "--weights" in words else ["--model", "x0_25"])]
    if command not in ("", "tune"):
        return words
    if command == "tune" and "--resume" in words:
        *_, tuning = sorted((folder / "results").glob("*.tuning"))
        return [tuning.name.removesuffix(".tuning") if DATED.fullmatch(word) else word for word in words]
    small = ["--device", "cpu", "--gpus", "1", "--image-size", "32", "--batch-size", "4"]
    if "--pretrained" not in words:
        small += ["--model", "x0_25"]
    if "--data" not in words:
        small += ["--data", str(folder / "disk" / "imagenet")]
    if words[words.index("--data") + 1 if "--data" in words else 0] == "digits":
        small += ["--batch-size", "128"]
    if not {"--throughput-only", "--eval-only"} & {*words} and command != "tune":
        small += ["--epochs", "1"]
    if command == "tune":
        # A trial needs ten steps, on slow processors beside other tests, too.
        small += ["--minutes", "0.1", "--max-seconds", "4"]
    if "--repeats" in words:
        small += ["--repeats", "2"]
    if "--device-counts" in words:
        small = [word for word in small if word not in ("--gpus", "1")] + ["--device-counts", "1,2"]
    if "--throughput-only" in words:
        small += ["--max-seconds", "0.5"]
    return [*words, *small]


def main(words: Sequence[str]) -> None:
    """Run a command of Python's in the current folder, made small; tests are not started from tests."""
    if list(words[:2]) == ["-m", "pytest"]:
        return
    small = smaller(words, Path.cwd())
    print("$", *small, file=sys.stderr, flush=True)
    os.execv(sys.executable, [sys.executable, *small])


if __name__ == "__main__":
    if shutil.which("bash") is None:
        sys.exit("bash is needed")
    main(sys.argv[1:])
