"""Warnings about values that a library can't report: one per device and value, joined where the reason is the same."""

from __future__ import annotations

from collections.abc import Callable

from models.notes import Note


class QueryFailures:
    """Collects failed queries until they are reported. Without warn nothing is reported."""

    def __init__(self, warn: Callable[[str], None] | None = None) -> None:
        self._warn = warn
        self._known: set[tuple[str, str]] = set()
        # By device and reason: what is unknown, and the failure.
        self._unreported: dict[tuple[str, str], list[tuple[str, str]]] = {}

    def add(self, where: str, what: str, failure: str) -> None:
        """Note that a device's value is unknown, unless that is known already. failure is "<query>: <reason>"."""
        if (where, what) not in self._known:
            self._known.add((where, what))
            reason = failure.partition(": ")[2]
            self._unreported.setdefault((where, reason), []).append((what, failure))

    def report(self) -> None:
        """Warn about what was added since the last report: one warning per device and reason."""
        unreported, self._unreported = self._unreported, {}
        if self._warn is not None:
            for (where, _), queries in unreported.items():
                what = ", ".join(what for what, _ in queries)
                self._warn(
                    Note(
                        f"{where}: {what} unknown, NVML failed ({queries[0][1]}).",
                        "The run goes on; cells for that are empty. nvidia-smi -q says what the driver reports.",
                    )
                )
