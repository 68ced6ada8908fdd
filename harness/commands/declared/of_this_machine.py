"""The commands that run something on this machine."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from harness.commands.parser import Command, add_path, add_results
from harness.commands.run_options import NOT_TUNED, add_run_options, given_options
from harness.errors import UsageError
from harness.plan.declaration import flag


def _declare_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checks", metavar="CHECK", nargs="*", default=[], help="names of checks to run (default: those of --level)"
    )
    parser.add_argument(
        "--level",
        metavar="LEVEL",
        default="all",
        help="quick (without Paddle), devices, ranks, pipeline or all (default: all)",
    )
    parser.add_argument("--list", action="store_true", help="print the name, level and meaning of every check")
    parser.add_argument("--json", action="store_true", help="print one JSON value and nothing else")
    parser.add_argument(
        "--gpu-day",
        action="store_true",
        help="instead, make the rows that only a GPU can pass (CHECK: their numbers) and write gpu-day.md to --results",
    )
    parser.add_argument("--device", metavar="NAME", default="auto", help="as for a run (default: auto)")
    parser.add_argument("--gpus", metavar="N", type=int, help="number of devices and ranks (default: as for a run)")
    add_path(parser, "--data", metavar="DATA", help="data set whose first images are read (default: none)")
    add_results(parser, "folder whose disk is looked at")


def _doctor(checks: list[str], level: str, device: str, results: str, **options: Any) -> None:
    from harness.commands.doctor import doctor, gpu_day, list_checks
    from harness.doctor.check import Context

    if options.get("list"):
        list_checks()
        return
    gpus = options.get("gpus")
    if gpus is not None and gpus < 1:
        raise UsageError(f"--gpus is {gpus}; it must be at least 1")
    context = Context(results=results, device=device, gpus=gpus, data=options.get("data"))
    if options.get("gpu_day"):
        gpu_day(checks, context)
        return
    doctor(checks, level, context, as_json=options.get("json", False))


def _declare_tune(parser: argparse.ArgumentParser) -> None:
    from harness.analysis.tuning.knobs import KNOB_NAMES, USUAL

    usual, others = (", ".join(flag(name)[2:] for name in names) for names in (USUAL, KNOB_NAMES[len(USUAL) :]))
    tuning = parser.add_argument_group("tuning")
    tuning.add_argument(
        "--vary",
        metavar="NAME,NAME,...",
        help=f"settings to try (default: those that change speed alone: {usual}); also: {others}",
    )
    tuning.add_argument("--minutes", metavar="M", type=float, help="time for all trials (default: 20)")
    tuning.add_argument("--resume", metavar="NAME", help="continue a tuning of that name in --results")
    add_run_options(parser, NOT_TUNED).add_argument(
        "--dry-run", action="store_true", help="Print what would be tried, and exit."
    )


def _tune(
    vary: str | None = None,
    minutes: float | None = None,
    resume: str | None = None,
    dry_run: bool = False,
    **options: Any,
) -> None:
    from harness.commands.tune import tune_given

    tune_given(given_options(options), vary=vary, minutes=minutes, resume=resume, dry_run=dry_run)


def _declare_campaign(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "file", metavar="FILE", help="TOML file with the matrix, such as campaigns/sizes.toml")
    parser.add_argument("--name", metavar="NAME", help="name of the campaign's folder in --results (default: FILE's)")
    parser.add_argument("--dry-run", action="store_true", help="print the cells and how long they take, and end")
    parser.add_argument("--retry-failed", action="store_true", help="try again what failed or was not possible here")
    add_results(parser, "folder for the campaign's folder")


def _campaign(file: str, results: str, **options: Any) -> None:
    from harness.commands.campaign import campaign

    campaign(file, results, **options)


def _declare_latency(parser: argparse.ArgumentParser) -> None:
    from harness.commands.latency.asked import USUAL_ROUNDS, USUAL_SECONDS
    from harness.latency.engines import ENGINES, USUAL
    from harness.plan.declaration import read_size
    from models.architecture import BOTH, HEIGHT
    from models.sizes import RECIPE, SIZES

    usual = " or ".join(f"{engine} on {device}" for device, engine in USUAL.items())
    parser.add_argument(
        "--model", metavar="SIZE,SIZE,...", help=f"sizes to time, of {', '.join(SIZES)} (default: all of them)"
    )
    parser.add_argument(
        "--engine",
        metavar="NAME,NAME,...",
        help=f"what runs the networks, of {', '.join(ENGINES)}, or all that are installed (default: {usual})",
    )
    parser.add_argument("--device", metavar="NAME", help=f"{' or '.join(USUAL)} (default: {next(iter(USUAL))})")
    parser.add_argument("--threads", metavar="N", type=int, help="threads that compute one call (default: 1)")
    parser.add_argument("--batch-size", metavar="N", type=int, help="images in a call (default: 1)")
    parser.add_argument(
        "--image-size",
        metavar="PIXELS",
        type=partial(read_size, where="--image-size"),
        help=f"side of square images, or height x width, such as 80x160 (default: {RECIPE.image_size})",
    )
    parser.add_argument(
        "--strides",
        metavar="SIDES",
        help=f"what the networks' stages halve, {BOTH} sides or the {HEIGHT} alone (default: as the weights' run)",
    )
    add_path(
        parser, "--weights", metavar="RUN|FILE", help="a run in --results or a file of weights (default: random ones)"
    )
    parser.add_argument(
        "--seconds",
        metavar="S",
        type=float,
        help=f"that each size is timed with each engine, over all rounds (default: {USUAL_SECONDS:g})",
    )
    parser.add_argument(
        "--rounds", metavar="N", type=int, help=f"turns of each size with each engine (default: {USUAL_ROUNDS})"
    )
    parser.add_argument("--name", metavar="NAME", help="name of the files in --results (default: the time)")
    add_results(parser, "folder for the table, the record and the page")


def _latency(results: str, name: str | None = None, **options: Any) -> None:
    from harness.commands.latency.asked import Options
    from harness.commands.latency.command import latency

    latency(Options(results, **options), name)


COMMANDS = {
    "campaign": Command("carry out a matrix of runs, and put them side by side", _declare_campaign, _campaign),
    "doctor": Command("check this machine before a run does, and say how to mend it", _declare_doctor, _doctor),
    "latency": Command("time inference of every size, beside what is published", _declare_latency, _latency),
    "tune": Command("find the settings with which this machine trains fastest on your data", _declare_tune, _tune),
}
