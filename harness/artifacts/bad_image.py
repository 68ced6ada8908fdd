"""Images that a run skips: each as a row of its table, how many of them there are, and how many there may be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harness.artifacts.record import RunFiles, RunRecord
from harness.artifacts.schema import BAD_IMAGES
from harness.artifacts.tables import format_cell, read_table
from harness.plan.left_out import SPLIT_WORDS, LeftOut, Limit, split_sizes
from harness.plan.option_groups.data import FAIL
from harness.plan.plan import RunPlan
from pipelines.errors import DataError
from pipelines.image_lists import FAULTS_NAMED, shown
from pipelines.layout import TRAIN_SPLIT, VAL_SPLIT
from pipelines.misread import WRONG_PIXELS

# The columns of summary.csv that count left-out images, by split.
LEFT_OUT_COLUMNS = {TRAIN_SPLIT: "left_out_train_images", VAL_SPLIT: "left_out_val_images"}


@dataclass(frozen=True, slots=True)
class BadImage:
    """An image that is skipped: its split, its index there, its path relative to the data set's folder, and the reason.

    rank and epoch (from 1) are where it was found; None for an image that was found before the first step.
    """

    split: str
    index: int
    path: str
    label: int
    reason: str
    rank: int | None = None
    epoch: int | None = None


def bad_image_row(image: BadImage) -> dict[str, Any]:
    """Returns the row of a bad image in its table."""
    row = asdict(image)
    del row["index"]
    return row


def left_out_of(record: RunRecord) -> LeftOut:
    """The images that a finished run left out, from its row of summary.csv."""
    counts = {split: record.summary.get(column) or 0 for split, column in LEFT_OUT_COLUMNS.items()}
    return LeftOut(counts, split_sizes(record.plan))


def found_so_far(files: RunFiles, record: RunRecord) -> LeftOut:
    """The images that a run will leave out from its start, or from where it is resumed, as far as they are known."""
    columns = [column for column in BAD_IMAGES.columns if column.name in ("split", "path")]
    known = Counter(tuple(format_cell(image[column.name], column) for column in columns) for image in record.bad_images)
    table = files.table(BAD_IMAGES.name)
    if table.exists() and table.stat().st_size:
        rows = read_table(table, BAD_IMAGES, [column.name for column in columns])
        # A list may name a file twice; an image of the table may have been found again.
        known |= Counter(zip(*(rows[column.name] for column in columns), strict=True))
    counts: Counter[str] = Counter()
    for (split, _), count in known.items():
        counts[split] += count
    return LeftOut(counts, split_sizes(record.plan))


@dataclass(frozen=True, slots=True)
class BadImageRule:
    """What a run does about bad images: policy "fail" allows none of them, "skip" as many as the limit says.

    sizes are the numbers of images in the splits that the run reads.
    """

    policy: str
    limit: Limit
    sizes: Mapping[str, int]

    def enforce(self, images: Iterable[BadImage], *, place: str = "") -> None:
        """Raise DataError, which counts each split's bad images, when there are more of them than the run allows.

        place is a sentence that says where the files were looked for.
        """
        every = list(images)
        met = [image for image in reversed(every) if image.rank is not None]
        bad = [*met, *(image for image in every if image.rank is None)]  # what ranks met is news, the last one most
        left_out = LeftOut(Counter(image.split for image in bad), self.sizes)
        exceeded, whole = self.limit.exceeded(left_out), left_out.whole_splits
        if not bad or not (whole or exceeded or self.policy == FAIL):
            return
        parts = " and ".join(left_out.parts)
        so_far = " so far" if met else ""
        named = "\n".join(f"  {shown(image.path)}: {image.reason}" for image in bad[:FAULTS_NAMED])
        if len(bad) > FAULTS_NAMED:
            named += f"\n  and {len(bad) - FAULTS_NAMED:,} more"
        convert = " Convert those that DALI would misread to PNG." if any(map(_is_misread, bad)) else ""
        if whole:
            raise DataError(
                f"none of the {self.sizes[whole[0]]:,} {SPLIT_WORDS[whole[0]]} images can be used:\n{named}",
                f"{place} Check that the files are there, and that they are images.{convert}".lstrip(),
            )
        why = (
            "--bad-images is fail"
            if self.policy == FAIL
            else "the limit is " + " and ".join(one for one, _ in exceeded)
        )
        allow = [*(["--bad-images skip"] if self.policy == FAIL else []), *(wider for _, wider in exceeded)]
        cure = f"Restore these files, remove them from the list, or leave them out with {' '.join(allow)}.{convert}"
        if Limit().exceeded(left_out):
            cure += " A top-1 without so many images is not written to the table with the reference's header."
        if so_far:
            cure = f"List all of them with run_bench.py verify. {cure}"
        raise DataError(f"{parts} can't be used{so_far}, and {why}:\n{named}", f"{place} {cure}".lstrip())


def _is_misread(image: BadImage) -> bool:
    return image.reason.endswith(WRONG_PIXELS)


def rule_of(plan: RunPlan) -> BadImageRule:
    """What a plan says about bad images."""
    operation = plan.operation
    limit = Limit(operation.max_bad_images, operation.max_bad_share)
    return BadImageRule(operation.bad_images, limit, split_sizes(plan))
