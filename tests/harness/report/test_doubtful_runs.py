"""What is printed of runs whose phases were disturbed, or whose shares can't be right."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.analysis.outliers import Outliers
from harness.analysis.verdict import DISTURBED, TOO_SLOW, Doubt
from harness.artifacts.record import RunRecord
from harness.artifacts.schema import COMPUTE, PIPELINE, TRAIN
from harness.report.console import summary_facts
from harness.report.findings import interference_text, outliers_text, verdict_facts
from tests.support.plans import a_throughput_record, a_verdict, plain

RECORD = a_throughput_record()
STOPPED = Doubt(COMPUTE, DISTURBED, "compute only was disturbed", "1 step of compute only took 8.0 s longer.")
IMPOSSIBLE = Doubt(COMPUTE, TOO_SLOW, "can't be right: compute only was slower than end to end", "It has less to do.")


def with_phase(name: str, **changes: Any) -> RunRecord:
    return replace(RECORD, phases={**RECORD.phases, name: {**RECORD.phases[name], **changes}})


def utilisation(share: float, doubts: str = "none", **changes: Any) -> str:
    record = replace(RECORD, summary={**RECORD.summary, "accelerator_util": share, "verdict_doubts": doubts, **changes})
    return dict(summary_facts(record))["accelerator"]


def test_outliers_of_other_phases_are_printed_with_their_phase() -> None:
    assert outliers_text(RECORD) == "4 steps, 1.0% of the window: 3 x data wait, 1 x unknown"
    record = with_phase(COMPUTE, outliers=plain(Outliers(1, 8.0, 0.834, 1, 0.834, 300.0, {"backward pass": 1})))
    assert outliers_text(replace(record, outliers={**RECORD.outliers, "count": 0})) == (
        "end to end: none; compute only: 1 step, 83.4% of the window: 1 x backward pass"
    )


def test_what_disturbed_other_phases_alone_is_printed_with_their_phase() -> None:
    assert interference_text(with_phase(COMPUTE, interference="foreign_cpu|swap")) == (
        "end to end: no; compute only: foreign_cpu, swap"
    )
    assert interference_text(with_phase(PIPELINE, interference=None)) == "no"
    known = {"reasons": ["swap"], "interference_steps": 9, "window_steps": 10, "shares": {"swap": 0.9}}
    record = replace(with_phase(COMPUTE, interference="swap"), interference=known)
    assert interference_text(record) == "YES: swap 90% of the time; 9 of 10 steps"


def test_a_share_that_noise_raises_above_1_is_printed_with_its_interval() -> None:
    definition = "as in MLPerf Storage: end to end / compute only"
    assert utilisation(1.012, data_gain_low=0.96, data_gain_high=1.02) == (
        f"utilisation 100% within noise (measured 101.2%, 98.0% to 104.2%; {definition})"
    )
    assert utilisation(1.012, data_gain_low=None, data_gain_high=None) == (
        f"utilisation 100% within noise (measured 101.2%, no interval; {definition})"
    )
    assert utilisation(0.987) == f"utilisation 98.7% ({definition})"


@pytest.mark.parametrize(
    ("doubts", "mark"),
    [
        ("compute_disturbed|compute_too_slow", "CAN'T BE RIGHT, see the verdict"),
        ("compute_disturbed", "DISTURBED, see the verdict"),
        ("pipeline_disturbed|train_disturbed", "DISTURBED, see the verdict"),
    ],
)
def test_a_utilisation_of_doubtful_rates_is_marked(doubts: str, mark: str) -> None:
    assert utilisation(4.08, doubts).startswith(f"utilisation 408.0% {mark} (")
    assert utilisation(0.9, "pipeline_disturbed").startswith("utilisation 90.0% (")


def test_a_verdict_that_stands_says_what_makes_it_uncertain() -> None:
    verdict = a_verdict(bottleneck="compute", certain=False, doubts=(STOPPED,), evidence=(), remedies=())
    assert verdict_facts(replace(RECORD, verdict=plain(verdict))) == [
        ("if data cost nothing", "up to 1.17 x (1.15 to 1.20) DISTURBED"),
        ("if training cost nothing", "up to 1.24 x (1.22 to 1.27)"),
        ("if communication cost nothing", "up to 1.08 x (0.99 to 1.19) DISTURBED"),
        ("bottleneck", "compute (uncertain: compute only was disturbed)"),
        ("evidence", STOPPED.detail),
    ]


def test_a_verdict_without_an_answer_says_why() -> None:
    verdict = a_verdict(bottleneck="uncertain", certain=False, doubts=(STOPPED, IMPOSSIBLE), remedies=())
    facts = verdict_facts(replace(RECORD, verdict=plain(verdict)))
    assert facts[0] == ("if data cost nothing", "up to 1.17 x (1.15 to 1.20) CAN'T BE RIGHT")
    assert facts[1] == ("if training cost nothing", "up to 1.24 x (1.22 to 1.27)")
    assert facts[3] == ("bottleneck", f"uncertain ({STOPPED.reason}; {IMPOSSIBLE.reason})")
    assert facts[4:6] == [("evidence", STOPPED.detail), ("evidence", IMPOSSIBLE.detail)]


def test_a_disturbed_end_to_end_marks_every_gain() -> None:
    verdict = a_verdict(certain=False, doubts=(replace(STOPPED, phase=TRAIN),))
    facts = verdict_facts(replace(RECORD, verdict=plain(verdict)))
    assert [value.endswith(" DISTURBED") for _, value in facts[:3]] == [True, True, True]
