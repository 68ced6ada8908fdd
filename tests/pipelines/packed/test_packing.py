"""A set that was packed gives the same batches as its folder, in the same order, and resumes after an interruption."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.artifacts.atomic import replaced
from pipelines import sequential
from pipelines.augmentation import Augmentation
from pipelines.dali_graphs import training_graph
from pipelines.dataset import Dataset, open_dataset
from pipelines.file_checks import check_files
from pipelines.packed.manifest import MANIFEST, Manifest, read_manifest
from pipelines.packed.members import WrittenFormat
from pipelines.packed.packing import StoppedError, plan_shards, write_shards, wrong_checksums
from pipelines.packed.shards import FORMATS
from pipelines.sampling import BEGINNING, TrainingOrder
from pipelines.settings import PipelineSettings
from pipelines.settings_file import settings_text
from pipelines.source import DaliSource, SourceState
from pipelines.storage import Clock, Patience, Storage
from tests.support.data_sets import write_noise

ALL = pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS)
SHARD_BYTES = 20_000


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(write_noise(tmp_path_factory.mktemp("folder"), 40, 12))


def planned(dataset: Dataset, kind: WrittenFormat, shard_bytes: int = SHARD_BYTES) -> Manifest:
    checks = {split: check_files(images) for split, images in dataset.splits.items()}
    return plan_shards(dataset, checks, kind, shard_bytes)


def write(dataset: Dataset, kind: WrittenFormat, folder: Path, advance: Callable[[int], None] = lambda _: None) -> None:
    manifest = read_manifest(folder) or planned(dataset, kind)
    for split in manifest.splits:
        (folder / split).mkdir(parents=True, exist_ok=True)
    for state in write_shards(manifest, dataset, kind, folder, 2, replaced, advance):
        (folder / MANIFEST).write_text(state.as_text())
    (folder / "dataset.toml").write_text(settings_text("it", dataset.num_classes, dataset.augmentation))


def batches(
    dataset: Dataset, start: SourceState | None = None, storage: Storage | None = None, window: int = 0
) -> DaliSource:
    settings = PipelineSettings(8, image_size=32, seed=3, decode_threads=2, shuffle_window=window)
    return DaliSource(
        dataset.train,
        TrainingOrder(len(dataset.train), 0, 1, 8, seed=3),
        lambda feed, seed, state: training_graph(feed, Augmentation(), settings, seed, state),
        settings,
        lambda *_: pytest.fail("an image is taken for a bad one"),
        start=start,
        storage=storage,
    )


def values(source: DaliSource, count: int) -> list[tuple[bytes, list[int]]]:
    return [
        (np.asarray(batch.images.numpy()).tobytes(), batch.labels.tolist()) for batch in itertools.islice(source, count)
    ]


def test_a_plan_covers_all_images_in_order_and_keeps_shards_small(dataset: Dataset) -> None:
    plan = planned(dataset, FORMATS["webdataset"])
    sizes = check_files(dataset.train).sizes
    shards = plan.splits["train"]
    assert [shard.begin for shard in shards] == [0, *(shard.end for shard in shards[:-1])]
    assert shards[-1].end == len(dataset.train)
    assert all(sum(sizes[shard.begin : shard.end]) <= SHARD_BYTES for shard in shards)
    # The next image would have been too much.
    assert all(sum(sizes[shard.begin : shard.end + 1]) > SHARD_BYTES for shard in shards[:-1])
    single = planned(dataset, FORMATS["webdataset"], 1)
    assert [(shard.begin, shard.end) for shard in single.splits["val"]] == [(n, n + 1) for n in range(12)]
    assert single.splits["val"][3].file == "val/val-000003.tar"


@ALL
def test_batches_are_those_of_the_folder_to_the_bit_also_after_resuming(
    kind: WrittenFormat, dataset: Dataset, tmp_path: Path
) -> None:
    write(dataset, kind, tmp_path)
    packed = open_dataset(tmp_path)
    assert (packed.num_classes, packed.train.labels) == (dataset.num_classes, dataset.train.labels)
    expected = values(batches(dataset), 12)
    source = batches(packed)
    assert values(source, 7) == expected[:7]
    assert values(batches(packed, source.state()), 5) == expected[7:]


@ALL
def test_a_pack_that_was_interrupted_becomes_what_an_undisturbed_one_is(
    kind: WrittenFormat, dataset: Dataset, tmp_path: Path
) -> None:
    write(dataset, kind, tmp_path / "whole")
    interrupted = 0
    for limit in range(8, 80, 16):
        written = itertools.count()

        def advance(images: int, written: Any = written, limit: int = limit) -> None:
            for _ in range(images):
                if next(written) == limit:
                    raise KeyboardInterrupt

        try:
            write(dataset, kind, tmp_path / "again", advance)
        except (KeyboardInterrupt, StoppedError):
            interrupted += 1
    write(dataset, kind, tmp_path / "again")
    assert interrupted
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_shard_has_its_checksum_and_a_changed_one_is_found(dataset: Dataset, tmp_path: Path) -> None:
    write(dataset, FORMATS["tfrecord"], tmp_path)
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    assert manifest.finished
    shards = [shard for of_split in manifest.splits.values() for shard in of_split]
    assert len(shards) > 3
    for shard in shards:
        data = (tmp_path / shard.file).read_bytes()
        assert (shard.bytes, shard.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert wrong_checksums(manifest, tmp_path, 2) == {"train": {}, "val": {}}
    changed, gone = manifest.splits["train"][1], manifest.splits["val"][0]
    damaged = bytearray((tmp_path / changed.file).read_bytes())
    damaged[-1] ^= 1
    (tmp_path / changed.file).write_bytes(damaged)
    (tmp_path / gone.file).unlink()
    assert wrong_checksums(manifest, tmp_path, 2) == {
        "train": {changed.begin: f"the shard {changed.file} has another checksum than in pack.json"},
        "val": {0: f"the shard {gone.file}: no such file or directory"},
    }


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"version": 2}), json.dumps({"version": 1, "splits": 1})])
def test_a_manifest_that_can_t_be_read_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(Exception, match=r"pack.json' can't be read: ") as caught:
        read_manifest(tmp_path)
    assert "Remove it to use the shards without their checksums" in caught.value.cure  # type: ignore[attr-defined]


def test_a_data_set_s_settings_go_with_it(tmp_path: Path) -> None:
    text = settings_text('a "name" \udcff', 5, Augmentation(flip_probability=0.0, crop_area_min=0.35))
    (tmp_path / "dataset.toml").write_text(text)
    assert text == (
        'name = "a \\"name\\" \ufffd"\nnum_classes = 5\n'
        "\n[augmentation]\ncrop_area_min = 0.35\nflip_probability = 0.0\n"
    )
    assert settings_text("it", 2, Augmentation()) == 'name = "it"\nnum_classes = 2\n'


@ALL
def test_shards_that_can_t_be_read_for_a_while_are_waited_for(
    kind: WrittenFormat, dataset: Dataset, tmp_path: Path
) -> None:
    place, aside = tmp_path / "shards", tmp_path / "aside"
    write(dataset, kind, place)
    packed = open_dataset(place)
    expected = values(batches(packed), 20)
    said: list[str] = []
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            aside.rename(place)

    storage = Storage(packed.train, Patience(60.0, said.append, clock=Clock(sleep=sleep)))
    source = batches(packed, storage=storage)
    found = values(source, 3)
    place.rename(aside)
    found += values(source, 17)
    assert found == expected
    assert len(pauses) == 3
    assert len(said) == 1
    assert "the data could not be read" in said[0]


def test_a_source_of_windows_reads_each_before_it_is_used(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(dataset, FORMATS["webdataset"], tmp_path)
    packed = open_dataset(tmp_path)
    windows: list[list[int]] = []
    monkeypatch.setattr(sequential, "read_in_sequence", lambda _, indices: windows.append(indices.tolist()))
    plain = values(batches(packed), 5)
    assert windows == []
    assert values(batches(packed, window=16), 5) == plain  # the order is another one's business
    assert [len(window) for window in windows[:3]] == [16, 16, 16]
    order = TrainingOrder(len(packed.train), 0, 1, 8, seed=3)
    first = order.draw(BEGINNING, frozenset())
    second = order.draw(first.next, frozenset())
    assert windows[0] == [*first.indices.tolist(), *second.indices.tolist()]
