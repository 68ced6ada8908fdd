"""What is printed of a run that has one of everything."""

from __future__ import annotations

import re
from dataclasses import replace

from harness.plan.kinds import KINDS
from harness.report.console import plan_facts, summary_facts
from tests.support.plans import DIGITS, a_plan, a_record

# "1 devices", but not "0.1 seconds", "1,001 images" or "top-1 figures".
SINGLE_PLURAL = re.compile(
    r"(?<![\w.,-])1 (?:[a-z-]+ )?(?:images|devices|steps|epochs|classes|ranks|threads|rows|files|checks)\b"
)


def ones() -> str:
    data = replace(DIGITS, train_images=1, val_images=1, num_classes=1)
    plan = a_plan(ranks=1, data=data, batch_size=1, epochs=1, steps_per_epoch=1, lr_warmup_epochs=1, warmup_steps=1)
    record = a_record(plan=plan)
    counts = dict.fromkeys(("window_steps", "images", "warmup_steps", "overflow_steps", "epochs", "devices"), 1)
    record = replace(record, summary={**record.summary, **counts}, profile={**record.profile, "images": 1})
    given = replace(plan, window=replace(plan.window, warmup_given=True))
    kinds = [replace(plan, kind=kind) for kind in KINDS.values()]
    facts = [fact for one in (*kinds, given) for fact in plan_facts(one)] + summary_facts(record)
    return "\n".join(f"{label}: {value}" for label, value in facts)


def test_no_single_thing_is_printed_in_the_plural() -> None:
    """Case E12."""
    assert SINGLE_PLURAL.findall("a 1 devices, 0.1 steps, 1 full steps") == ["1 devices", "1 full steps"]
    text = ones()
    assert SINGLE_PLURAL.findall(text) == []
    assert "1 image per device" in text
    assert "1 epoch, 1 step; 1 step per epoch" in text
