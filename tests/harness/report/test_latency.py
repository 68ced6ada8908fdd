"""A measurement of latency in words, on the terminal and on its page."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from harness.analysis.comparing.compare import Difference
from harness.analysis.latency.claim import claim_of
from harness.analysis.latency.kernels import KernelProfile, KernelUse
from harness.analysis.latency.stored import LatencyRecord
from harness.artifacts.record import RunFiles
from harness.report.console import Console
from harness.report.latency import (
    PUBLISHED,
    claims_text,
    job_text,
    kernels_text,
    ratios_text,
    show_job,
    show_measured,
    times_as_long,
)
from harness.report.page.latency import accuracy_chart, latency_page
from models.sizes import SIZES
from tests.support.latency import JOB, ONEDNN, PLAIN, a_record, spread, turns_of


def shown(record: LatencyRecord, width: int = 80) -> str:
    stream = io.StringIO()
    console = Console(RichConsole(file=stream, highlight=False, width=width))
    show_measured(console, record, RunFiles(Path("results"), record.name))
    return stream.getvalue()


def test_a_table_for_each_engine_fits_a_terminal() -> None:
    text = shown(a_record())
    rows = [line.split() for line in text.splitlines() if line.startswith((" x0_25", " x1_0"))]
    assert rows == [
        ["x0_25", "2.00", "(2.00-2.00)", "4.00", "500.0", "51.86", "25.9", "1.74", "29.8"],
        ["x1_0", "5.00", "(5.00-5.00)", "10.00", "200.0", "71.32", "14.3", "2.46", "29.0"],
        ["x0_25", "5.00", "(5.00-5.00)", "10.00", "200.0", "51.86", "10.4", "1.74", "29.8"],
        ["x1_0", "25.00", "(24.98-25.02)", "50.00", "40.0", "71.32", "2.9", "2.46", "29.0"],
    ]
    assert PUBLISHED in text
    assert "here: AMD EPYC, 1 thread on core 1, 1 image of 224 px in a call, random weights" in text
    assert "Written to results/: it.latency.csv, .json and .html" in text


def test_what_is_disturbed_has_a_star_and_a_note() -> None:
    record = a_record(share=0.1, warnings=("disturbed (unsteady): x1_0 with paddle; measure again",))
    text = shown(record, 120)
    assert "x1_0 *" in text
    assert "note: disturbed (unsteady)" in text


def test_energy_has_a_column_where_there_is_a_meter() -> None:
    rows = tuple({**row, "images_per_joule": 12.5} for row in a_record().rows)
    assert "per J" in shown(replace(a_record(), rows=rows), 120)
    assert "12.50" in shown(replace(a_record(), rows=rows), 120)
    assert "per J" not in shown(a_record(), 120)
    # 80 columns have room for every title.
    lines = shown(a_record(), 80).splitlines()
    head = " ".join(next(line for line in lines if "(95 % interval)" in line).split())
    assert head == "size (95 % interval) ms per s % per ms ms % per ms"


def test_a_failure_has_its_reason_in_the_place_of_figures() -> None:
    rows = [{**row, "median_ms": None, "failure": "crashed by SIGSEGV"} if row["engine"] == PLAIN else row
            for row in a_record().rows]  # fmt: skip
    text = shown(replace(a_record(), rows=tuple(rows)))
    assert "latency it, paddle " not in text
    assert "x0_25 with paddle has no figures: crashed by SIGSEGV" in text


def test_the_claim_in_words() -> None:
    published = {size: turns_of(size, ONEDNN, spread(one.latency_ms)) for size, one in SIZES.items()}
    claim = claim_of(ONEDNN, published, JOB)
    assert claim is not None
    lines = claims_text([claim])
    assert lines[0] == (
        "claim with paddle-onednn: as published, no more accurate size is quicker than a less accurate one"
    )
    assert "from x0_25 to x2_5 latency grows 3.10 x (3.10 to 3.10), noise doesn't tell it from 3.10 x" in lines[1]
    assert "for 53.3 x the multiply-accumulates" in lines[1]
    assert "to the power of 0.27 (published 0.27;" in lines[2]
    assert "28 of 28 pairs stand alike" in lines[3]


def test_a_claim_that_does_not_hold_in_words() -> None:
    times = {"x0_5": [2.0] * 10, "x0_75": [1.5] * 10, "x1_0": spread(9.0, 0.001)}
    claim = claim_of(ONEDNN, {size: turns_of(size, ONEDNN, ms) for size, ms in times.items()}, JOB)
    assert claim is not None
    lines = claims_text([claim])
    assert lines[0].endswith("not as published: x0_75 is quicker than x0_5")
    assert "more than the published 1.20 x" in lines[1]
    few = {size: turns_of(size, ONEDNN, [ms, ms]) for size, ms in (("x0_5", 2.0), ("x0_75", 2.0))}
    unsure = claim_of(ONEDNN, few, JOB)
    assert unsure is not None
    assert "latency grows 1.00 x, noise doesn't tell it from 1.12 x" in claims_text([unsure])[1]
    alike = claim_of(ONEDNN, {size: turns_of(size, ONEDNN, [2.0] * 10) for size in few}, JOB)
    assert alike is not None
    assert "(noise doesn't tell apart: x0_5 and x0_75)" in claims_text([alike])[0]


def test_kernels_in_words() -> None:
    uses = tuple(KernelUse("convolution", f"jit:{number}", 2.0, 1.0) for number in range(8))
    lines = kernels_text(a_record(profiles=(KernelProfile("x0_25", ONEDNN, "Intel AVX2", 16.0, uses),)))
    assert lines[0] == "kernels with paddle-onednn in a call of x0_25 (Intel AVX2):"
    assert lines[1].startswith("  2 x convolution jit:0 1.00 ms, ")
    assert lines[1].endswith(", and 2 more")
    assert lines[2] == "  together 8.00 ms of 2.00; the rest of a call is between kernels"
    assert kernels_text(a_record())[2] == "  together 4.50 ms of 5.00; the rest of a call is between kernels"
    assert kernels_text(a_record(profiles=())) == []
    failed = a_record(rows=(), profiles=(KernelProfile("x0_25", ONEDNN, "Intel AVX2", 16.0, uses),))
    assert kernels_text(failed)[2] == "  together 8.00 ms"


def test_ratios_in_words() -> None:
    assert ratios_text(a_record()) == [
        "paddle, times as long as paddle-onednn: x0_25 2.50 (2.50-2.50), x1_0 5.00 (5.00-5.00)"
    ]
    assert ratios_text(a_record(replace(JOB, engines=(PLAIN,)))) == []


@pytest.mark.parametrize(
    ("job", "text"),
    [
        (JOB, "1 thread on core 1, 1 image of 224 px in a call"),
        (replace(JOB, threads=2, cores=(0, 1), batch_size=8), "2 threads on cores 0-1, 8 images of 224 px in a call"),
        (replace(JOB, cores=()), "1 thread, 1 image of 224 px in a call"),
    ],
)  # fmt: skip
def test_the_job_in_words(job: object, text: str) -> None:
    assert job_text(job) == text  # type: ignore[arg-type]


def test_what_will_be_timed(capsys: pytest.CaptureFixture[str]) -> None:
    show_job(Console(), JOB, "random weights", "AMD EPYC")
    assert capsys.readouterr().out == (
        "latency of x0_25, x1_0 with paddle-onednn, paddle on AMD EPYC\n"
        "  1 thread on core 1, 1 image of 224 px in a call; random weights\n"
        "  10 rounds of 0.1 s each, 0:00:04 in all\n"
    )


def test_times_as_long_are_the_inverse_of_the_rate() -> None:
    assert times_as_long(Difference(0.25, 0.0, 0.6, 0.1, "equal", "")) == "0.800 x (0.625-1.000)"
    assert times_as_long(Difference(-0.5, None, None, None, "unknown", "")) == "2.000 x"


def test_the_chart_has_the_published_points_and_those_of_each_engine() -> None:
    chart = accuracy_chart(a_record())
    published, onednn, plain = chart.traces
    assert published.name == "published (Intel Xeon Gold 6148, 10 threads)"
    assert list(published.x) == [one.latency_ms for one in SIZES.values()]
    assert list(published.y) == [one.top1 for one in SIZES.values()]
    assert (onednn.name, list(onednn.x), list(onednn.y)) == ("here, paddle-onednn", [2.0, 5.0], [0.5186, 0.7132])
    assert list(plain.x) == [5.0, 25.0]
    assert ("here, paddle", "x1_0", "25", "71.32 %") in chart.rows
    assert len(accuracy_chart(replace(a_record(), rows=())).traces) == 1


def test_the_page_has_every_figure_and_each_text_as_text() -> None:
    hostile = "</script><script>alert(1)</script>"
    record = replace(a_record(warnings=(hostile,)), device_name=hostile, environment={"cpu": None, hostile: hostile})
    page = latency_page(record).decode()
    assert page.count("<script>alert(1)") == 0
    assert page == latency_page(record).decode()
    found = re.findall(r'<data value="([^"]*)" data-column="median_ms">([^<]*)</data>', page)
    assert found == [("2.0000", "2.00"), ("5.0000", "5.00"), ("5.0000", "5.00"), ("25.0000", "25.00")]
    for text in ("The claim", "Kernels of oneDNN", "Accuracy over latency", "energy read from", "jit:avx2", "0.7132"):
        assert text in page


def test_the_page_shows_no_column_without_a_value() -> None:
    alone = latency_page(a_record(replace(JOB, engines=(ONEDNN,)))).decode()
    assert "x first engine" not in alone
    assert "images/J" not in alone
    assert ">x1_0</th>" in alone
    both = latency_page(a_record()).decode()
    assert "x first engine" in both
    assert ">x1_0, paddle</th>" in both
    rows = [{"model": "x1_0", "engine": PLAIN, "failure": "crashed by SIGSEGV"}, *a_record().rows[:3]]
    failed = latency_page(replace(a_record(), rows=tuple(rows))).decode()
    assert "crashed by SIGSEGV" in failed


def test_the_page_of_one_size_has_no_claim_and_without_kernels_none_of_those() -> None:
    record = replace(a_record(replace(JOB, sizes=("x1_0",))), profiles=())
    page = latency_page(record).decode()
    assert "It takes two sizes with published figures to judge it." in page
    assert "Kernels of oneDNN" not in page
