"""What comes of each kind of file that a data set may hold by mistake: it trains, or it is left out with a reason."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.augmentation import Augmentation
from pipelines.bad_image_probe import Fault, find_faults
from pipelines.batch import Batch
from pipelines.dali_graphs import evaluation_graph, training_graph
from pipelines.file_checks import check_files
from pipelines.image_lists import ImageList
from pipelines.packed.members import WrittenFormat
from pipelines.packed.recordio import RECORDIO
from pipelines.packed.shards import FORMATS
from pipelines.sampling import EvaluationOrder, Position, TrainingOrder
from pipelines.settings import PipelineSettings
from pipelines.source import DaliSource, SourceState
from pipelines.verification import Verification
from tests.support.bad_files import Kind, encoded, kinds, picture
from tests.support.packed import packed
from tests.support.storage import unpaused

# Nothing by chance: the whole of the good pictures, which are 4:3.
WHOLE = Augmentation(crop_area_min=1.0, crop_area_max=1.0, aspect_min=4 / 3, aspect_max=4 / 3, flip_probability=0.0)
SETTINGS = PipelineSettings(batch_size=2, image_size=16, decode_threads=2)
WHOLE_DECODING = replace(SETTINGS, decode_region=False)
KINDS = kinds()
# What can't be reached is left out by the look before a run alone; in the middle of a run it is waited for.
REACHED = [kind for kind in KINDS if not kind.looked_at or kind.name == "empty.jpg"]
LOOKED_AT = [(kind, True) for kind in KINDS if kind.looked_at]
MODES = ("training", "evaluation")


def write_good(folder: Path) -> None:
    for index in (0, 1, 3, 4):
        (folder / f"{index}.jpg").write_bytes(encoded(picture(index), quality=90))


def folder_with(folder: Path, kind: Kind) -> ImageList:
    """Five images, of which the third (label 2) is of the kind and the others are good."""
    write_good(folder)
    if "\0" not in kind.name:
        kind.write(folder / kind.name)
    return ImageList(folder, ("0.jpg", "1.jpg", kind.name, "3.jpg", "4.jpg"), (0, 1, 2, 3, 4))


def source(
    images: ImageList,
    mode: str,
    faults: list[Fault],
    bad: frozenset[int],
    settings: PipelineSettings = SETTINGS,
) -> DaliSource:
    def remember(found: Sequence[Fault], position: Position) -> None:
        faults.extend(found)

    if mode == "training":
        return DaliSource(
            images,
            TrainingOrder(len(images), 0, 1, 2, seed=1),
            lambda feed, seed, state: training_graph(feed, WHOLE, settings, seed, state),
            settings,
            remember,
            start=SourceState(bad=bad),
            storage=unpaused(images),
        )
    return DaliSource(
        images,
        EvaluationOrder(len(images), 0, 1, 2),
        lambda feed, seed, state: evaluation_graph(feed, settings),
        settings,
        remember,
        start=SourceState(bad=bad),
        storage=unpaused(images),
    )


def pixels_by_label(batches: list[Batch]) -> dict[int, list[bytes]]:
    pixels: dict[int, list[bytes]] = {}
    for batch in batches:
        for label, image in zip(batch.labels.tolist(), batch.images.numpy(), strict=True):
            pixels.setdefault(label, []).append(np.asarray(image).tobytes())
    return pixels


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, list[bytes]]]:
    """By mode, the pixels of the four good images where no other is among them."""
    folder = tmp_path_factory.mktemp("clean")
    write_good(folder)
    alone = ImageList(folder, ("0.jpg", "1.jpg", "3.jpg", "4.jpg"), (0, 1, 3, 4))
    found = {}
    for mode in MODES:
        batches = source(alone, mode, [], frozenset())
        found[mode] = pixels_by_label([next(batches) for _ in range(2)])
        assert len({*map(tuple, found[mode].values())}) == 4
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("settings", [SETTINGS, WHOLE_DECODING], ids=["region", "whole"])
@pytest.mark.parametrize(("kind", "known"), [*((kind, False) for kind in REACHED), *LOOKED_AT], ids=str)
def test_a_bad_file_is_left_out_with_a_reason_and_the_others_come_whole(
    tmp_path: Path,
    kind: Kind,
    mode: str,
    known: bool,
    settings: PipelineSettings,
    clean: dict[str, dict[int, list[bytes]]],
) -> None:
    """Three batches of 2 from 5 images, of which 4 are good; known from a look before the run, or by surprise."""
    images = folder_with(tmp_path, kind)
    seen = check_files(images).faults
    assert set(seen) == ({2} if kind.looked_at else set())
    faults: list[Fault] = [Fault(index, reason) for index, reason in seen.items() if known]
    batches_of = source(images, mode, faults, frozenset(seen) if known else frozenset(), settings)
    batches = [next(batches_of) for _ in range(3)]

    if kind.fault:
        ((index, reason),) = ((fault.index, fault.reason) for fault in faults)
        assert index == 2
        assert re.fullmatch(kind.fault, reason)
    else:
        assert faults == []
    good = {0, 1, 3, 4} if kind.fault else {0, 1, 2, 3, 4}
    pixels = pixels_by_label(batches)
    assert set(pixels) == good
    if mode == "training":
        assert batches_of.state().bad == {0, 1, 2, 3, 4} - good
    else:
        assert sum(batch.valid_images for batch in batches) == len(good)
    for label in (0, 1, 3, 4):
        assert set(pixels[label]) == set(clean[mode][label])


@pytest.mark.parametrize("container", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.verdict == "empty" or not kind.looked_at], ids=str)
def test_a_bad_image_in_a_shard_is_left_out_and_named_like_a_file(
    tmp_path: Path, kind: Kind, container: WrittenFormat, clean: dict[str, dict[int, list[bytes]]]
) -> None:
    (tmp_path / "files").mkdir()
    folder = folder_with(tmp_path / "files", kind)
    shards = tmp_path / "shards"
    images = packed(
        shards, container, [(path, label, folder.content(label)) for label, path in enumerate(folder.paths)]
    )
    seen = check_files(images).faults
    assert set(seen) == ({2} if kind.looked_at else set())
    faults: list[Fault] = [Fault(index, reason) for index, reason in seen.items()]
    batches_of = source(images, "training", faults, frozenset(seen))
    batches = [next(batches_of) for _ in range(3)]
    if kind.fault:
        ((index, reason),) = ((fault.index, fault.reason) for fault in faults)
        assert index == 2
        assert images.paths[index].startswith(f"train/train-000{container.endings[0]}/")
        assert re.fullmatch(kind.fault, reason)
    else:
        assert faults == []
    good = {0, 1, 3, 4} if kind.fault else {0, 1, 2, 3, 4}
    pixels = pixels_by_label(batches)
    assert set(pixels) == good
    for label in (0, 1, 3, 4):
        assert set(pixels[label]) == set(clean["training"][label])
    # What verify says of a file it says of a member.
    verdicts = {finding.kind for checked in Verification(unpaused(images), 2) for finding in checked.findings}
    # RecordIO keeps no names, and so no endings that could be wrong.
    expected = "" if container is RECORDIO and kind.verdict == "format" else kind.verdict
    assert verdicts == ({expected} if expected else set())


def test_every_kind_at_once(tmp_path: Path) -> None:
    """What an evaluation of all of them counts, in batches that hold several bad ones."""
    for kind in KINDS:
        if "\0" not in kind.name:
            kind.write(tmp_path / kind.name)
    images = ImageList(tmp_path, tuple(kind.name for kind in KINDS), tuple(range(len(KINDS))))
    known = check_files(images).faults
    faults: list[Fault] = [Fault(index, reason) for index, reason in known.items()]
    evaluation = source(images, "evaluation", faults, frozenset(known))
    batches = [next(evaluation) for _ in range(-(-len(images) // 2))]

    bad = {index for index, kind in enumerate(KINDS) if kind.fault}
    assert len(bad) >= 25
    assert {fault.index for fault in faults} == bad
    assert len(faults) == len(bad)
    counted = [label for batch in batches for label in batch.labels.tolist()[: batch.valid_images]]
    assert counted == [index for index in range(len(KINDS)) if index not in bad]


def test_the_faults_of_named_images_alone_are_looked_for(tmp_path: Path) -> None:
    for index, content in enumerate((encoded(picture()), b"", b"text", encoded(picture()), b"text")):
        (tmp_path / f"{index}.jpg").write_bytes(content)
    images = ImageList(tmp_path, tuple(f"{index}.jpg" for index in range(5)), (0,) * 5)
    assert find_faults(unpaused(images), [3, 2, 0, 1]).faults == [
        Fault(2, "not an image format that DALI decodes"),
        Fault(1, "0 bytes"),
    ]
