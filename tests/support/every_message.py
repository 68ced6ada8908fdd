"""Sees to it that every note and error of the tool happens in some test; otherwise a run of all tests fails at its end.

Every process writes down which of them it makes, see tests/support/seen/sitecustomize.py. Processes whose environment a
test makes from nothing don't; ELSEWHERE has the tests of what happens in them only.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from pathlib import Path

import pytest

from harness import ROOT
from harness.report.messages import all_messages
from tests.support.seen import python_path
from tests.support.seen import sitecustomize as seen

# By the message's id, the test in which it happens.
ELSEWHERE: dict[str, str] = {
    # Made as a module is loaded.
    **dict.fromkeys(
        (
            "written-by-an-earlier-version-without-intervals", "disturbed-by-interference-run-it-again-while",
            "no-steady-state-so-the-throughput-depends", "a-few-steps-took-much-of-its",
            "no-interval-or-not-known-whether-its", "ended-by-max-seconds-before-target-ci",
        ),
        "tests/harness/report/test_comparison.py::test_what_makes_a_figure_doubtful_is_a_warning",
    ),
    "opencv-python-headless-is-not-installed-opencv": (
        "tests/pipelines/test_opencv_images.py::test_without_opencv_the_import_says_what_to_do"
    ),
    # In processes that find another Paddle.
    "the-gpus-decoder-cant-be-used": (
        "tests/whole_runs/test_decoder_trial.py::test_an_explicit_decoder_that_fails_ends_the_run"
    ),
    # Whichever of two comes first.
    "the-loss-is-at-step-of-phase": (
        "tests/whole_runs/test_failures.py::"
        "test_a_loss_that_is_not_finite_ends_the_run_and_leaves_the_checkpoint_before_it"
    ),
}  # fmt: skip
# With this variable, a run of some tests lists what did not happen in them.
LIST = "LIST_UNSEEN_MESSAGES"


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        descriptor, file = tempfile.mkstemp(prefix="messages-")
        os.close(descriptor)
        os.environ[seen.FILE] = file
        os.environ["PYTHONPATH"] = python_path(*filter(None, [os.environ.get("PYTHONPATH")]))
    # Of this process's modules some were loaded before.
    for name, watch in seen.WATCHED.items():
        watch(importlib.import_module(name))


def unseen() -> list[str]:
    """The messages that nothing has made, as far as is known."""
    lines = Path(os.environ[seen.FILE]).read_text(encoding="utf-8").splitlines()
    places = {(file, int(line)) for file, _, line in (text.rpartition(":") for text in lines)}
    return [
        f"{one.id} ({one.file}:{one.first})"
        for one in all_messages()
        if one.id not in ELSEWHERE
        and not any((str(ROOT / one.file), line) in places for line in range(one.first, one.last + 1))
    ]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    if hasattr(config, "workerinput"):
        return
    chosen = config.getoption("file_or_dir") or any(config.getoption(name) for name in ("keyword", "markexpr", "lf"))
    missing = unseen()
    Path(os.environ[seen.FILE]).unlink()
    if config.getoption("collectonly") or (chosen and LIST not in os.environ) or (session.testsfailed and not chosen):
        return
    if missing:
        print(f"\n{len(missing)} messages happened in no test:", *missing, sep="\n  ")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
