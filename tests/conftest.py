"""Fixtures for the tests of every package, and what holds for all of them."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

import pytest

# Tests and the processes they start share the cores. Set before anything is loaded that counts them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell starts what it runs in the background without Ctrl-C, and so would be what the tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# nohup, which may have started the tests, does the same with the end of its terminal.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

pytest_plugins = [
    "tests.support.accelerator",
    "tests.support.every_message",
    "tests.support.namespaces",
    "tests.support.nvml_standin",
    "tests.support.no_locks",
    "tests.support.small_disk",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that processes that share the files end together."""
    markers = ("whole_run", "slow")

    def rank(item: pytest.Item) -> int:
        return next((number for number, name in enumerate(markers) if item.get_closest_marker(name)), len(markers))

    items.sort(key=rank)


@pytest.fixture(autouse=True)
def processor_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that asks whether this processor computes in bfloat16: it would depend on the machine."""

    def refuse() -> NoReturn:
        raise AssertionError("a test asks what the processor computes in; set the answer instead")

    if (paddle := sys.modules.get("paddle")) is not None:
        monkeypatch.setattr(paddle.amp, "is_bfloat16_supported", refuse)
