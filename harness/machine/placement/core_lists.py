"""Lists of cores as the kernel writes them, such as "0-3,8"."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

CORE_LIST = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")


def parse_cores(text: str) -> tuple[int, ...]:
    """Returns the numbers of a list, in its order. Raises ValueError for a text that isn't one."""
    if not CORE_LIST.fullmatch(text):
        raise ValueError(f"{text!r} is not a list such as 0-3,8")
    spans = [span.split("-") for span in text.split(",")]
    return tuple(number for span in spans for number in range(int(span[0]), int(span[-1]) + 1))


def format_cores(cores: Iterable[int]) -> str:
    """Returns the list of these cores, in increasing order; empty for none."""
    # Within a run of neighbours, number and place grow alike.
    runs = groupby(enumerate(sorted(set(cores))), lambda pair: pair[1] - pair[0])
    spans = [[number for _, number in run] for _, run in runs]
    return ",".join(str(span[0]) if len(span) == 1 else f"{span[0]}-{span[-1]}" for span in spans)


def read_cores(file: Path) -> tuple[int, ...]:
    """Returns the list in a file of the kernel's; empty if there is none that can be read."""
    try:
        return parse_cores(file.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        return ()
