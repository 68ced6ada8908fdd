"""Images whose storage goes away for a while: nothing is left out, and batches are those of an undisturbed run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.launch.rank_files import Notices, RankFiles, leave_notice
from pipelines.augmentation import Augmentation
from pipelines.bad_image_probe import Fault, find_faults
from pipelines.dali_graphs import evaluation_graph, training_graph
from pipelines.errors import StorageError
from pipelines.file_checks import FileCheck
from pipelines.image_lists import ImageList
from pipelines.sampling import EvaluationOrder, Order, Position, TrainingOrder
from pipelines.settings import PipelineSettings
from pipelines.source import DaliSource, SourceState
from pipelines.storage import FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS, Clock, Patience, Storage
from pipelines.verification import Verification

IMAGES, BATCH = 24, 4


class Time:
    """A clock that passes only while somebody sleeps; then it calls what is due."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []
        self.due: list[tuple[int, Callable[[], object]]] = []

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)
        for at, event in self.due:
            if at == len(self.pauses):
                event()

    def clock(self) -> Clock:
        return Clock(lambda: self.now, lambda: self.now, self.sleep)


class Disturbed:
    """A folder of images that can be taken away and put back, and the patience of who reads it."""

    def __init__(self, folder: Path, limit_seconds: float = 60.0) -> None:
        self.root, self.aside = folder / "data", folder / "aside"
        self.root.mkdir()
        generator = np.random.default_rng(2)
        for index in range(IMAGES):
            pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(self.root / f"{index}.jpg")
        self.images = ImageList(self.root, tuple(f"{i}.jpg" for i in range(IMAGES)), tuple(range(IMAGES)))
        self.time, self.said = Time(), list[str]()
        self.patience = Patience(limit_seconds, self.said.append, clock=self.time.clock())
        self.storage = Storage(self.images, self.patience)

    def move_away(self) -> None:
        self.root.rename(self.aside)

    def move_back(self) -> None:
        self.aside.rename(self.root)

    def remove(self) -> None:
        shutil.copytree(self.root, self.aside)
        shutil.rmtree(self.root)

    def copy_back(self) -> None:
        shutil.copytree(self.aside, self.root)
        shutil.rmtree(self.aside)

    def unmount(self) -> None:
        """As without its disk: the mount point stays, and is empty."""
        self.root.rename(self.aside)
        self.root.mkdir()

    def mount(self) -> None:
        self.root.rmdir()
        self.aside.rename(self.root)

    def empty(self) -> None:
        """As after a power failure of the server: all files have 0 bytes."""
        shutil.copytree(self.root, self.aside)
        for path in self.root.iterdir():
            path.write_bytes(b"")

    def fill(self) -> None:
        shutil.copytree(self.aside, self.root, dirs_exist_ok=True)
        shutil.rmtree(self.aside)


WAYS = {
    "mv": (Disturbed.move_away, Disturbed.move_back),
    "rm": (Disturbed.remove, Disturbed.copy_back),
    "umount": (Disturbed.unmount, Disturbed.mount),
    "0 bytes": (Disturbed.empty, Disturbed.fill),
}


def refuse(faults: Sequence[Fault], position: Position) -> None:
    raise AssertionError(f"{faults} at {position}, though the files are good")


def source_of(disturbed: Disturbed, mode: str, start: SourceState | None = None) -> DaliSource:
    settings = PipelineSettings(batch_size=BATCH, image_size=16)
    order: Order = EvaluationOrder(IMAGES, 0, 1, BATCH)
    if mode == "training":
        order = TrainingOrder(IMAGES, 0, 1, BATCH, 5)
    return DaliSource(
        disturbed.images,
        order,
        lambda feed, seed, state: (
            training_graph(feed, Augmentation(), settings, seed, state)
            if mode == "training"
            else evaluation_graph(feed, settings)
        ),
        settings,
        refuse,
        seed=(5, 0),
        start=start,
        storage=disturbed.storage,
    )


def pixels(source: DaliSource, batches: int) -> list[bytes]:
    return [next(source).images.numpy().tobytes() for _ in range(batches)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_batches_after_a_disturbance_are_those_of_an_undisturbed_run(mode: str, way: str, tmp_path: Path) -> None:
    """Case B1: to the bit, crops and flips included, from the first batch on and twice in one run."""
    away, back = WAYS[way]
    disturbed = Disturbed(tmp_path)
    expected = pixels(source_of(disturbed, mode), 6 if mode == "evaluation" else 14)
    source = source_of(disturbed, mode)
    found: list[bytes] = []
    for begin in (0, 3):
        found += pixels(source, begin - len(found))
        away(disturbed)
        disturbed.time.due.append((len(disturbed.time.pauses) + 3, lambda: back(disturbed)))
        found += pixels(source, min(3 * (begin + 3), len(expected)) - len(found) if begin else 2)
    assert found == expected[: len(found)]
    assert len(found) > 4
    assert disturbed.said
    assert all("the data could not be read from" in line and "waited" in line for line in disturbed.said)


def test_a_source_that_resumes_after_a_disturbance_continues_the_same_sequence(tmp_path: Path) -> None:
    """Case B1: the state that a checkpoint keeps is the undisturbed one, too."""
    disturbed = Disturbed(tmp_path)
    expected = pixels(source_of(disturbed, "training"), 8)
    source = source_of(disturbed, "training")
    found = pixels(source, 2)
    disturbed.move_away()
    disturbed.time.due.append((2, disturbed.move_back))
    found += pixels(source, 2)
    found += pixels(source_of(disturbed, "training", source.state()), 4)
    assert found == expected


def test_storage_that_stays_away_ends_the_run_as_the_machine_s_fault(tmp_path: Path) -> None:
    """Case B1: with growing pauses, after the limit, and with a cure that says what a resumed run does."""
    disturbed = Disturbed(tmp_path, limit_seconds=20.0)
    source = source_of(disturbed, "training")
    next(source)
    disturbed.move_away()
    with pytest.raises(StorageError) as caught:
        pixels(source, 10)
    assert caught.value.exit_code == 3
    assert "for 20.0 s" in caught.value.message
    assert "No such file or directory" in caught.value.message
    assert "--stall-timeout" in caught.value.cure
    assert "--max-bad-images" in caught.value.cure
    pauses = disturbed.time.pauses
    assert pauses[0] == FIRST_PAUSE_SECONDS
    assert pauses == sorted(pauses[:-1]) + pauses[-1:]
    assert max(pauses) == MAX_PAUSE_SECONDS
    assert sum(pauses) == pytest.approx(20.0)


def test_the_limit_counts_from_the_last_progress(tmp_path: Path) -> None:
    """Other ranks wait since then, too, and end after the stall limit."""
    disturbed = Disturbed(tmp_path, limit_seconds=20.0)
    disturbed.patience.silent_seconds = lambda: disturbed.time.now - 985.0

    def wait_for_ever() -> None:
        while True:
            disturbed.storage.wait("away")

    with pytest.raises(StorageError):
        wait_for_ever()
    assert sum(disturbed.time.pauses) == pytest.approx(5.0)


def test_a_wait_ends_at_once_when_the_process_is_asked_to_end(tmp_path: Path) -> None:
    """Case B1: before the next pause, or right after it."""
    disturbed = Disturbed(tmp_path)
    asked: list[bool] = []

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    disturbed.patience.check = check
    disturbed.time.due.append((3, lambda: asked.append(True)))
    with pytest.raises(KeyboardInterrupt):
        find_all_the_time(disturbed)
    assert len(disturbed.time.pauses) == 3


def find_all_the_time(disturbed: Disturbed) -> None:
    disturbed.move_away()
    find_faults(disturbed.storage, [0])


@pytest.mark.parametrize("name", ["1.jpg", "23.jpg"])
def test_a_missing_file_is_waited_for_in_a_run_and_reported_by_an_inspection(name: str, tmp_path: Path) -> None:
    """Case B1: its absence says nothing about its content; before a run it is left out."""
    disturbed = Disturbed(tmp_path, limit_seconds=5.0)
    index = disturbed.images.paths.index(name)
    (disturbed.root / name).rename(tmp_path / name)
    assert disturbed.storage.inspect().faults == {index: "no such file or directory"}
    assert disturbed.time.pauses == []
    with pytest.raises(StorageError, match=f"{name}.*No such file"):
        find_faults(disturbed.storage, [index])
    disturbed.time.due.append((len(disturbed.time.pauses) + 1, lambda: (tmp_path / name).rename(disturbed.root / name)))
    disturbed.patience.over()
    assert find_faults(disturbed.storage, [0, index]).faults == []


@pytest.mark.parametrize("way", WAYS)
def test_an_inspection_while_the_storage_is_away_finds_nothing_wrong(way: str, tmp_path: Path) -> None:
    """Case B1: before a run, and in a verification."""
    away, back = WAYS[way]
    disturbed = Disturbed(tmp_path)
    away(disturbed)
    disturbed.time.due.append((3, lambda: back(disturbed)))
    assert disturbed.storage.inspect().faults == {}
    assert len(disturbed.time.pauses) == 3
    away(disturbed)
    disturbed.time.due.append((6, lambda: back(disturbed)))
    checks = list(Verification(disturbed.storage, 1))
    assert [finding for checked in checks for finding in checked.findings] == []
    assert checks[-1].end == IMAGES
    assert len(disturbed.time.pauses) == 6


@pytest.mark.parametrize("way", WAYS)
def test_a_verification_whose_batches_are_good_reports_each_wait(way: str, tmp_path: Path) -> None:
    """Case B1: a wait is over when the storage is back, so that a later one has the whole limit again."""
    away, back = WAYS[way]
    disturbed = Disturbed(tmp_path, limit_seconds=60.0)
    images = disturbed.images.part([*range(len(disturbed.images))] * 40)
    checks = iter(Verification(Storage(images, disturbed.patience), 1))
    for wait in (1, 2):
        assert next(checks).findings == ()
        away(disturbed)
        disturbed.time.due.append((len(disturbed.time.pauses) + 3, lambda: back(disturbed)))
        while len(disturbed.said) < wait:
            assert next(checks).findings == ()
        disturbed.time.now += 100.0


@pytest.mark.parametrize("pauses", [8, 30])
@pytest.mark.parametrize("check", ["inspection", "verification"])
def test_files_that_return_one_by_one_are_not_reported_as_missing(check: str, pauses: int, tmp_path: Path) -> None:
    """Case B1: as when a folder is restored from a copy. One that stays away for a minute longer is missing."""
    disturbed = Disturbed(tmp_path)
    late, lost = [disturbed.root / f"{index}.jpg" for index in (7, 10)], disturbed.root / "20.jpg"
    for path in (*late, lost):
        shutil.copy(path, tmp_path / path.name)

    def begin_to_return() -> None:
        disturbed.copy_back()
        for path in (*late, lost):
            path.unlink()

    def return_late() -> None:
        for path in late:
            shutil.copy(tmp_path / path.name, path)

    verification = Verification(disturbed.storage, 1)
    checks = iter(verification)
    disturbed.remove()
    disturbed.time.due += [(3, begin_to_return), (pauses, return_late)]
    if check == "inspection":
        faults = list(disturbed.storage.inspect().faults)
    else:
        faults = [finding.index for checked in checks for finding in checked.findings]
    assert faults == [disturbed.images.paths.index(lost.name)]
    assert 60.0 < sum(disturbed.time.pauses) < 70.0


def test_the_first_files_that_go_away_in_a_verification_are_not_reported_as_missing(tmp_path: Path) -> None:
    """Case B1: as while a folder is being removed, when most of it is still there."""
    disturbed = Disturbed(tmp_path)
    checks = iter(Verification(disturbed.storage, 1))
    away = [disturbed.root / f"{index}.jpg" for index in (3, 4)]

    def begin_to_remove() -> None:
        for path in away:
            path.rename(tmp_path / path.name)

    def return_all() -> None:
        for path in away:
            (tmp_path / path.name).rename(path)

    inspect = disturbed.storage.inspect

    def inspect_then_remove(images: ImageList | None = None) -> FileCheck:
        check = inspect(images)
        begin_to_remove()
        return check

    disturbed.storage.inspect = inspect_then_remove  # type: ignore[method-assign]
    disturbed.time.due.append((5, return_all))
    assert [finding for checked in checks for finding in checked.findings] == []
    assert len(disturbed.time.pauses) == 5


@pytest.mark.parametrize("kept", [0, 1, 500])
def test_an_image_that_is_cut_while_it_is_looked_at_is_not_blamed(kept: int, tmp_path: Path) -> None:
    """Case B1: a file that is on its way back is whole at the second look."""
    disturbed = Disturbed(tmp_path)
    path = disturbed.root / "7.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    disturbed.time.due.append((1, lambda: path.write_bytes(whole)))
    assert find_faults(disturbed.storage, range(4, 12)).faults == []
    path.write_bytes(whole[:kept])
    (fault,) = find_faults(disturbed.storage, range(4, 12)).faults
    assert fault.index == 7


def test_the_launching_process_reads_whole_notices_once(tmp_path: Path) -> None:
    """What a rank says about its waiting; the rank may be writing a line at this moment."""
    names = ("failure.0", "pulse.0", "joined.0", "notices.0", "lists")
    rank = RankFiles(*(tmp_path / name for name in names))
    notices = Notices(tmp_path)
    assert notices.new() == []
    leave_notice(rank, "one\nline")
    with rank.notices.open("a", encoding="utf-8") as stream:
        stream.write("tw")
        stream.flush()
        assert notices.new() == ["one line"]
        stream.write("o\n")
    assert notices.new() == ["two"]
    assert notices.new() == []
