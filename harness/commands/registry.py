"""The commands of run_bench.py: what each of them does, and its options."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from harness.commands.run_options import NOT_TUNED, add_run_options, given_options
from harness.errors import UsageError
from harness.plan.declaration import flag, home_path
from harness.report.text import ENTRY


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its line in --help, the function that declares its options, and the one that runs it.

    run takes the options' values by name. It imports what it needs itself, so that a mistyped option is reported
    without waiting for that.
    """

    help: str
    declare: Callable[[argparse.ArgumentParser], None]
    run: Callable[..., None]


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Prints most options in one line: it leaves room for their names, and uses the terminal's whole width."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)


class Parser(argparse.ArgumentParser):
    """A parser that raises UsageError, and whose options can't be abbreviated."""

    def __init__(self, prog: str, description: str, epilog: str | None = None, usage: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            usage=usage,
            formatter_class=_HelpFormatter,
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
            add_help=usage is None,
        )

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with the message."""
        raise UsageError(message, f"See {self.prog} --help.")


def run_command(name: str, arguments: Sequence[str]) -> None:
    """Run a command. Raises UsageError for an unknown one, and whatever the command raises."""
    command = COMMANDS.get(name)
    if command is None:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        cure = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(COMMANDS)}. See {ENTRY} --help."
        raise UsageError(f"unknown command {name!r}", cure)
    parser = Parser(f"{ENTRY} {name}", command.help)
    command.declare(parser)
    command.run(**vars(parser.parse_args(arguments)))


def commands_help() -> str:
    """One line for each command, for the end of --help."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join([f"commands ({ENTRY} COMMAND --help has their options):", *lines])


def _add_path(parser: argparse.ArgumentParser, name: str, *, metavar: str, help: str) -> None:  # noqa: A002
    """Add an option whose value is a path, or may be one."""
    parser.add_argument(name, metavar=metavar, type=home_path, help=help)


def _add_results(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--results", metavar="PATH", type=home_path, default="results", help=f"{what} (default: results)"
    )


def _declare_compare(parser: argparse.ArgumentParser) -> None:
    what = "name of a run or of a series of repeats, path of a record (.json), or bi_v100 for the published row"
    _add_path(parser, "a", metavar="A", help=f"the baseline: {what}")
    _add_path(parser, "b", metavar="B", help="what is compared with A, given in the same way")
    _add_results(parser, "folder that has the runs")
    parser.add_argument(
        "--fail-if-slower",
        metavar="LIMIT",
        help="exit with code 1 if B is slower by more than this (such as 5%% or 0.05), beyond noise",
    )


def _compare(a: str, b: str, results: str, fail_if_slower: str | None = None) -> None:
    from harness.commands.compare import compare_saved

    compare_saved(a, b, results, fail_if_slower)


def _declare_verify(parser: argparse.ArgumentParser) -> None:
    _add_path(parser, "data", metavar="DATA", help="a folder in ImageNet's layout or a built-in set, as for --data")
    parser.add_argument("--classes", metavar="N", type=int, help="number of classes (default: as for a run)")
    parser.add_argument("--threads", metavar="N", type=int, help="number of decoding threads (default: one per core)")
    _add_results(parser, "folder for the table of bad images")


def _verify(data: str, results: str, classes: int | None = None, threads: int | None = None) -> None:
    from harness.commands.verify import verify

    verify(data, results, classes, threads)


def _declare_export(parser: argparse.ArgumentParser) -> None:
    _add_path(parser, "what", metavar="WHAT", help="name of a run in --results, or a file of weights to convert")
    _add_path(parser, "file", metavar="FILE", help=".pdparams for Paddle and PaddleClas, or .safetensors")
    _add_results(parser, "folder that has the runs")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    parser.add_argument(
        "--prefix",
        metavar="TEXT",
        help="what stands before the model's names in a file that holds several models, such as Student.",
    )


def _export(what: str, file: str, results: str, overwrite: bool = False, prefix: str | None = None) -> None:
    from harness.commands.export import export

    export(what, file, results, overwrite, prefix)


def _declare_import_idx(parser: argparse.ArgumentParser) -> None:
    _add_path(
        parser,
        "source",
        metavar="FROM",
        help="folder with the four files: train-images-idx3-ubyte, train-labels-idx1-ubyte and the two of t10k, which"
        " become the validation images; compressed (.gz) or not",
    )
    _add_path(parser, "to", metavar="TO", help="folder to create, in ImageNet's layout; it must not exist yet")
    parser.add_argument("--name", metavar="TEXT", help="name of the data set (default: that of the folder TO)")
    parser.add_argument(
        "--image-size",
        metavar="PIXELS",
        type=int,
        help="side of the JPEGs; images are enlarged to it, as PP-LCNet halves its input five times (default: 64)",
    )
    parser.add_argument(
        "--flip-probability",
        metavar="SHARE",
        type=float,
        help="probability of mirroring a training image (default: 0, as a mirrored digit is not a digit; 0.5 suits"
        " Fashion-MNIST)",
    )
    parser.add_argument(
        "--crop-area-min",
        metavar="SHARE",
        type=float,
        help="smallest training crop, as a share of the image's area (default: 0.35, as ImageNet's 0.08 of a digit is"
        " only a piece of a stroke)",
    )
    parser.add_argument(
        "--transpose", action="store_true", help="swap the images' rows and columns: EMNIST stores them swapped"
    )


def _import_idx(source: str, to: str, **options: Any) -> None:
    from harness.commands.import_idx import import_idx

    import_idx(source, to, **options)


def _declare_import_labels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="FROM",
        help="Kaggle's LOC_val_solution.csv, the development kit's ILSVRC2012_validation_ground_truth.txt, or a list"
        " whose labels are the kit's numbers",
    )
    parser.add_argument("to", metavar="TO", help="list to write, such as val_list.txt; it must not exist yet")
    parser.add_argument(
        "--prefix",
        metavar="PATH",
        default="val",
        help="folder of the images in the data set's folder, for the first two (default: val)",
    )


def _import_labels(source: str, to: str, prefix: str) -> None:
    from harness.commands.import_labels import import_labels

    import_labels(source, to, prefix)


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
    _add_path(parser, "--data", metavar="DATA", help="data set whose first images are read (default: none)")
    _add_results(parser, "folder whose disk is looked at")


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


COMMANDS = {
    "compare": Command("tell whether run B is slower or faster than run A, beyond noise", _declare_compare, _compare),
    "doctor": Command("check this machine before a run does, and say how to mend it", _declare_doctor, _doctor),
    "export": Command("write a run's weights to a file that other programs can read", _declare_export, _export),
    "import-idx": Command(
        "convert MNIST, or a set in its file format, to a folder to train on", _declare_import_idx, _import_idx
    ),
    "import-labels": Command(
        "make a list with ImageNet's labels from Kaggle's or the kit's file",
        _declare_import_labels,
        _import_labels,
    ),
    "tune": Command("find the settings with which this machine trains fastest on your data", _declare_tune, _tune),
    "verify": Command("check that every image of a data set can be read and decoded", _declare_verify, _verify),
}
