from __future__ import annotations

import threading
from pathlib import Path

import pytest

from harness.artifacts.bad_image import BadImage, BadImageRule, bad_image_row
from harness.artifacts.schema import BAD_IMAGES
from harness.artifacts.tables import TableWriter
from harness.plan.left_out import Limit
from harness.plan.option_groups.data import FAIL, SKIP
from harness.training.loading.bad_images import BadImages
from pipelines.bad_image_probe import Fault
from pipelines.errors import DataError
from pipelines.image_lists import ImageList
from pipelines.sampling import Position
from tests.support.simulation import Cluster, SimulatedRanks

SIZES = {"train": 50, "val": 50}
IMAGES = ImageList(Path("/data"), tuple(f"{index}.jpg" for index in range(50)), tuple(range(50)))


def on_ranks(
    count: int, max_images: int, met: dict[int, list[int]]
) -> tuple[list[BadImages], list[str], list[list[str]]]:
    """Each rank meets its images and tells them; what each then has, how it ended, and what it recorded."""
    cluster = Cluster(count)
    rule = BadImageRule(SKIP, Limit(max_images, 1.0), SIZES)
    ranks = [BadImages(rule, SimulatedRanks(rank, count, cluster)) for rank in range(count)]
    ended = [""] * count
    recorded: list[list[str]] = [[] for _ in range(count)]

    def run(rank: int) -> None:
        bad = ranks[rank]
        bad.record = lambda image: recorded[rank].append(image.path)
        try:
            bad.report("train", IMAGES, [Fault(index, "0 bytes") for index in met.get(rank, [])], Position(epoch=2))
            bad.share()
        except DataError as error:
            ended[rank] = error.message

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return ranks, ended, recorded


def test_every_rank_learns_what_each_has_met() -> None:
    ranks, ended, recorded = on_ranks(3, 10, {0: [4, 7], 2: [9]})
    assert ended == ["", "", ""]
    for bad in ranks:
        assert bad.of("train") == {4, 7, 9}
        assert bad.of("val") == frozenset()
        assert bad.unshared == []
    assert recorded == [["4.jpg", "7.jpg", "9.jpg"]] * 3
    assert ranks[1].known["train", 9] == BadImage("train", 9, "9.jpg", 9, "0 bytes", 2, 3)


def test_an_image_that_two_ranks_meet_counts_once() -> None:
    ranks, ended, recorded = on_ranks(2, 1, {0: [4], 1: [4]})
    assert ended == ["", ""]
    assert recorded == [["4.jpg"]] * 2
    assert ranks[0].known["train", 4].rank == 0


def test_more_than_the_run_bears_end_it_on_every_rank() -> None:
    _, ended, _ = on_ranks(3, 2, {0: [1], 1: [2], 2: [3]})
    assert len(set(ended)) == 1
    assert ended[0].startswith(
        "3 of 50 training images can't be used so far, and the limit is --max-bad-images 2:\n  '3.jpg': 0 bytes\n"
    )


@pytest.mark.parametrize(
    ("limit", "reported"), [(Limit(2, 1.0), "--max-bad-images 2"), (Limit(100, 0.05), "--max-bad-share 0.05")]
)
def test_more_than_the_run_bears_on_one_rank_end_it_before_it_meets_all(limit: Limit, reported: str) -> None:
    """Case A4: a share counts in the middle of a run, too."""
    bad = BadImages(BadImageRule(SKIP, limit, SIZES), SimulatedRanks(0, 1, Cluster(1)))
    bad.report("train", IMAGES, [Fault(1, "0 bytes"), Fault(2, "0 bytes")], Position())
    with pytest.raises(DataError, match=f"3 of 50 training images can't be used so far, and the limit is {reported}:"):
        bad.report("train", IMAGES, [Fault(3, "0 bytes")], Position())


def test_one_is_too_many_where_the_policy_says_so() -> None:
    bad = BadImages(BadImageRule(FAIL, Limit(100, 1.0), SIZES), SimulatedRanks(0, 1, Cluster(1)))
    with pytest.raises(DataError, match=r"--bad-images is fail:\n  '8.jpg': cut"):
        bad.report("val", IMAGES, [Fault(8, "cut")], Position())


def test_a_hostile_name_is_one_row_and_no_formula(tmp_path: Path) -> None:
    image = BadImage("train", 3, '=cmd|\n"<script>', 7, "0 bytes")
    with TableWriter(tmp_path / "it.csv", BAD_IMAGES) as table:
        table.write(bad_image_row(image))
    lines = (tmp_path / "it.csv").read_text().splitlines()
    assert lines == ["split,path,label,reason,rank,epoch", 'train,"\'=cmd|\\n""<script>",7,0 bytes,,']
