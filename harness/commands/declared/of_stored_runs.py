"""The commands that read what runs have stored."""

from __future__ import annotations

import argparse
from typing import Any

from harness.commands.parser import Command, add_path, add_results


def _declare_compare(parser: argparse.ArgumentParser) -> None:
    what = "name of a run or of a series of repeats, path of a record (.json), or bi_v100 for the published row"
    add_path(parser, "a", metavar="A", help=f"the baseline: {what}")
    add_path(parser, "b", metavar="B", help="what is compared with A, given in the same way")
    add_results(parser, "folder that has the runs")
    parser.add_argument(
        "--fail-if-slower",
        metavar="LIMIT",
        help="exit with code 1 if B is slower by more than this (such as 5%% or 0.05), beyond noise",
    )


def _compare(a: str, b: str, results: str, fail_if_slower: str | None = None) -> None:
    from harness.commands.stored.compare import compare_saved

    compare_saved(a, b, results, fail_if_slower)


def _declare_export(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "what", metavar="WHAT", help="name of a run in --results, or a file of weights to convert")
    add_path(parser, "file", metavar="FILE", help=".pdparams for Paddle and PaddleClas, or .safetensors")
    add_results(parser, "folder that has the runs")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    parser.add_argument(
        "--prefix",
        metavar="TEXT",
        help="what stands before the model's names in a file that holds several models, such as Student.",
    )


def _export(what: str, file: str, results: str, overwrite: bool = False, prefix: str | None = None) -> None:
    from harness.commands.stored.export import export

    export(what, file, results, overwrite, prefix)


def _declare_report(parser: argparse.ArgumentParser) -> None:
    add_path(
        parser,
        "runs",
        metavar="RUN",
        help="name of a run or series, or path of its record (.json); several are shown side by side (default: the"
        " newest run)",
        nargs="*",
        default=[],
    )
    parser.add_argument("--last", metavar="N", type=int, help="the newest N runs in --results, instead of names")
    add_path(
        parser,
        "--output",
        metavar="FILE",
        help="the page's file (default: <run>.html, or report.html for several, beside the first record)",
    )
    parser.add_argument(
        "--metrics", metavar="FORMAT,...", help="also write the runs' figures for other programs, as for a run"
    )
    add_results(parser, "folder that has the runs")


def _report(runs: list[str], results: str, **options: Any) -> None:
    from harness.commands.stored.report import report

    report(runs, results, **options)


def _declare_watch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", metavar="RUN", nargs="?", help="name of a run (default: the newest one that goes on, else the newest)"
    )
    parser.add_argument("--once", action="store_true", help="print it once, and end")
    add_results(parser, "folder that has the run")


def _watch(results: str, run: str | None = None, once: bool = False) -> None:
    from harness.commands.stored.watch import watch

    watch(run, results, once)


COMMANDS = {
    "compare": Command("tell whether run B is slower or faster than run A, beyond noise", _declare_compare, _compare),
    "export": Command("write a run's weights to a file that other programs can read", _declare_export, _export),
    "report": Command("write a page with the figures and charts of one run, or of several", _declare_report, _report),
    "watch": Command("show a run while it goes on, from another terminal", _declare_watch, _watch),
}
