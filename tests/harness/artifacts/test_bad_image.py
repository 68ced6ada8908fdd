"""The limits on bad images: what ends a run, and how its message counts them."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.artifacts.bad_image import BadImage, BadImageRule, bad_image_row, found_so_far, left_out_of, rule_of
from harness.artifacts.record import RunFiles
from harness.artifacts.schema import BAD_IMAGES
from harness.artifacts.tables import TableWriter
from harness.plan.left_out import Limit
from harness.plan.option_groups.data import FAIL, SKIP
from pipelines.errors import DataError
from pipelines.misread import WRONG_PIXELS
from tests.support.plans import a_plan, a_record

SIZES = {"val": 50, "train": 64}


def bad(split: str, count: int, rank: int | None = None) -> list[BadImage]:
    return [BadImage(split, index, f"{split}/{index}.jpg", 0, "0 bytes", rank, rank) for index in range(count)]


def refusal(images: list[BadImage], limit: Limit, policy: str = SKIP, sizes: Mapping[str, int] = SIZES) -> DataError:
    with pytest.raises(DataError) as caught:
        BadImageRule(policy, limit, sizes).enforce(images, place="Paths are relative to '/data'.")
    return caught.value


def test_each_split_is_counted() -> None:
    """Case E7: one bad file in each split, and one allowed."""
    error = refusal([*bad("train", 1), *bad("val", 1)], Limit(1, 1.0))
    assert error.message == (
        "1 of 50 validation images and 1 of 64 training images can't be used, and the limit is --max-bad-images 1:\n"
        "  'train/0.jpg': 0 bytes\n  'val/0.jpg': 0 bytes"
    )
    assert error.cure == (
        "Paths are relative to '/data'. Restore these files, remove them from the list, or leave them out with"
        " --max-bad-images 2. A top-1 without so many images is not written to the table with the reference's header."
    )


@pytest.mark.parametrize(("val", "train"), [(45, 0), (0, 3), (1, 1)])
def test_a_share_that_is_too_large_ends_a_run(val: int, train: int) -> None:
    """Case A4: by default one image of a hundred may be bad."""
    error = refusal([*bad("val", val), *bad("train", train)], Limit())
    assert "--max-bad-share 0.01" in error.message
    assert "--max-bad-images" not in error.message


def test_few_of_many_end_nothing() -> None:
    rule = BadImageRule(SKIP, Limit(), {"val": 50_000, "train": 1_281_167})
    rule.enforce([*bad("val", 40), *bad("train", 60)])
    with pytest.raises(DataError, match=r"the limit is --max-bad-images 100:"):
        rule.enforce([*bad("val", 41), *bad("train", 60)])


@pytest.mark.parametrize("policy", [SKIP, FAIL])
@pytest.mark.parametrize(("val", "train"), [(45, 0), (1, 63), (49, 49), (0, 1)])
def test_the_cure_allows_exactly_what_was_refused(policy: str, val: int, train: int) -> None:
    """Cases A4 and E7: following it ends in no second refusal of the same images."""
    images = [*bad("val", val), *bad("train", train)]
    error = refusal(images, Limit(2, 0.001), policy)
    words = shlex.split(error.cure.partition("leave them out with ")[2].partition(". ")[0])
    given = dict(zip(words[::2], words[1::2], strict=True))
    limit = Limit(int(given.get("--max-bad-images", 2)), float(given.get("--max-bad-share", 0.001)))
    BadImageRule(given.get("--bad-images", policy), limit, SIZES).enforce(images)
    assert "not written to the table" in error.cure


def test_a_split_without_any_usable_image_is_refused_whatever_is_allowed() -> None:
    """Case A4: no option is named that would lead to a top-1 of nothing."""
    error = refusal(bad("val", 50), Limit(1000, 1.0))
    assert error.message.startswith("none of the 50 validation images can be used:\n  'val/0.jpg': 0 bytes\n")
    assert error.message.endswith("\n  and 40 more")
    assert error.cure == "Paths are relative to '/data'. Check that the files are there, and that they are images."
    assert refusal(bad("train", 64), Limit(), FAIL).message.startswith("none of the 64 training images")


@pytest.mark.parametrize("count", [3, 50])
def test_images_that_would_be_misread_have_a_cure_of_their_own(count: int) -> None:
    """Attacks 45 and 46."""
    misread = [dataclasses.replace(image, reason=f"a TIFF in CIELAB, {WRONG_PIXELS}") for image in bad("val", count)]
    assert "Convert those that DALI would misread to PNG." in refusal(misread, Limit(1, 0.01)).cure


def test_what_a_rank_met_last_is_named_first() -> None:
    error = refusal([*bad("train", 3), *bad("val", 2, rank=1)], Limit(4, 1.0))
    assert "can't be used so far, and the limit is" in error.message
    named = [line.strip().partition(":")[0] for line in error.message.splitlines()[1:]]
    assert named == ["'val/1.jpg'", "'val/0.jpg'", "'train/0.jpg'", "'train/1.jpg'", "'train/2.jpg'"]
    assert "run_bench.py verify" in error.cure


def test_a_file_name_cannot_forge_lines_of_the_message() -> None:
    name = "x.jpg': 0 bytes\n  and 99 more\x1b[2J\u202e"
    images = [dataclasses.replace(image, path=name, reason="cut") for image in bad("train", 2)]
    assert (
        refusal(images, Limit(0, 1.0)).message.splitlines()[1:]
        == [r"""  "x.jpg': 0 bytes\n  and 99 more\x1b[2J\u202e": cut"""] * 2
    )


def test_of_many_unusable_files_ten_are_named_and_all_counted() -> None:
    lines = refusal(bad("train", 1500), Limit(), sizes={"train": 3000}).message.splitlines()
    assert lines[0].startswith("1,500 of 3,000 training images can't be used, and the limit is --max-bad-images 100")
    assert lines[0].endswith(" and --max-bad-share 0.01:")
    assert lines[1:] == [*(f"  'train/{index}.jpg': 0 bytes" for index in range(10)), "  and 1,490 more"]


def test_none_may_be_bad_where_the_policy_says_so() -> None:
    error = refusal(bad("train", 1), Limit(100, 1.0), FAIL)
    assert error.message.startswith("1 of 64 training images can't be used, and --bad-images is fail:\n")
    assert "leave them out with --bad-images skip. " in error.cure
    BadImageRule(FAIL, Limit(0, 0.0), SIZES).enforce([])
    BadImageRule(SKIP, Limit(0, 0.0), SIZES).enforce([])


def test_a_plan_has_the_limits() -> None:
    rule = rule_of(a_plan(max_bad_images=7, max_bad_share=0.2, bad_images=FAIL))
    assert rule == BadImageRule(FAIL, Limit(7, 0.2), {"val": 450, "train": 1347})


def test_a_finished_run_has_its_counts_in_its_summary() -> None:
    record = a_record()
    record = dataclasses.replace(record, summary={**record.summary, "left_out_val_images": 45})
    assert left_out_of(record).parts == ["45 of 450 validation images"]
    without = {name: value for name, value in record.summary.items() if not name.startswith("left_out")}
    assert left_out_of(dataclasses.replace(record, summary=without)).total == 0


def test_what_a_resumed_run_knows_is_counted_once(tmp_path: Path) -> None:
    """Case A4: those in the table and those that were found now, by path; a name may be any bytes."""
    files = RunFiles(tmp_path, "it")
    again = dataclasses.replace(bad("val", 1)[0], path="val/=caf\udce9\n.jpg")
    record = dataclasses.replace(a_record(), bad_images=tuple(map(dataclasses.asdict, [*bad("train", 2), again])))
    assert found_so_far(files, record).parts == ["1 of 450 validation images", "2 of 1,347 training images"]
    with TableWriter(files.table(BAD_IMAGES.name), BAD_IMAGES) as table:
        for image in (again, *bad("train", 1), *bad("val", 3)):
            table.write(bad_image_row(image))
    assert found_so_far(files, record).parts == ["4 of 450 validation images", "2 of 1,347 training images"]
