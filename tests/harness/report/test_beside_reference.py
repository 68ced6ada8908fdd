"""Whether a run's top-1 may stand beside the reference's (cases A4 and A9)."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from harness.artifacts.record import RunRecord
from harness.plan.kinds import THROUGHPUT
from harness.plan.plan import IMAGENET
from harness.report.beside_reference import departures, hardware, standing
from tests.support.plans import a_published_plan, a_published_record


def planned(**changes: Any) -> RunRecord:
    return a_published_record(plan=a_published_plan(**changes))


def test_the_published_training_on_other_devices_may_stand_there() -> None:
    record = a_published_record()
    assert departures(record) == []
    assert standing(record) == [
        "May top-1 0.7102 stand beside the reference's 0.7062? Yes: the data and recipe are the same."
    ]
    assert hardware(record) == "Throughput: reference on 4 x BI-V100, this run on 4 x H100."


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (planned(epochs=1, lr_warmup_epochs=1), "method: reference as published, this run 1 epoch"),
        (planned(label_smoothing=0.0, weight_decay=0.1),
         "method: reference as published, this run weight decay 0.1, label smoothing 0"),
        (planned(image_size=192), "crop: reference 224x224, this run 192x192"),
        (planned(image_size="80x160"), "crop: reference 224x224, this run 80x160"),
        (planned(preprocessing="whole"), "method: reference as published, this run whole images"),
        (planned(strides="height"), "method: reference as published, this run height alone halved"),
        (planned(model="x0_5"), "model: reference PPLCNet_x1_0, this run PPLCNet_x0_5"),
        (planned(data=dataclasses.replace(IMAGENET, name="mine", imagenet=False)),
         "data: reference ImageNet (ILSVRC2012), this run mine (not ImageNet by the number and names of its images)"),
        (a_published_record(summary={"left_out_val_images": 3, "val_images": 49_997}),
         "method: reference as published, this run 3 validation images left out"),
    ],
)  # fmt: skip
def test_each_departure_is_a_reason_against_it(record: RunRecord, reason: str) -> None:
    assert departures(record) == [reason]
    first, second = standing(record)
    assert (first, second) == ("May top-1 0.7102 stand beside the reference's 0.7062? NO:", f"  {reason}")


def test_too_many_images_left_out_are_a_reason_of_their_own() -> None:
    """Case A4."""
    found = departures(a_published_record(summary={"left_out_val_images": 45_000, "val_images": 5000}))
    assert found[-1] == (
        "not written to table-H100x4.csv: 45,000 of 50,000 validation images were left out, more than 100 images or 1%"
        " of a split"
    )


def test_notes_on_the_run_and_its_data_stand_there_too() -> None:
    """What was found of the data's classes before the run is a warning in the record."""
    first, *notes = standing(a_published_record(warnings=("12 images are in both splits", "no telemetry")))
    assert first.endswith("Yes: the data and recipe are the same. See the notes, too:")
    assert notes == ["  note: 12 images are in both splits", "  note: no telemetry"]


def test_a_throughput_run_has_no_top_1_to_compare() -> None:
    record = a_published_record(plan=a_published_plan(kind=THROUGHPUT, epochs=3), summary={"top1": None})
    assert standing(record) == ["The run has no top-1 to stand beside the reference's 0.7062."]
    other = a_published_record(plan=a_published_plan(kind=THROUGHPUT, batch_size=8), summary={"top1": None})
    assert standing(other)[0].endswith("It also differs from the reference in:")
