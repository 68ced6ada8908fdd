"""Turns that alternate, and the table of medians and ratios within each round."""

from __future__ import annotations

import pytest

from benchmarks.side_by_side import in_turns, print_table


def test_the_order_of_the_turns_alternates() -> None:
    asked: list[str] = []

    def measure(name: str) -> float:
        asked.append(name)
        return float(len(asked))

    assert in_turns(["a", "b", "c"], 3, measure) == {"a": [1.0, 6.0, 7.0], "b": [2.0, 5.0, 8.0], "c": [3.0, 4.0, 9.0]}
    assert "".join(asked) == "abccbaabc"


def test_ratios_are_those_within_a_round(capsys: pytest.CaptureFixture[str]) -> None:
    rates = {"limit": [1000.0, 2000.0, 1200.0], "ours": [900.0, 1000.0, 60.0]}
    print_table(rates, ("limit", "not measured"), {"spdl": "not installed"})
    assert capsys.readouterr().out.splitlines() == [
        "| contestant | images/s | / limit |",
        "| --- | --- | --- |",
        "| limit | 1,200 (1,000 to 2,000) | 1.000 (1.000 to 1.000) |",
        "| ours | 900 (60.0 to 1,000) | 0.500 (0.050 to 0.900) |",
        "| spdl | not installed | |",
    ]
