"""The figures of a campaign's cells, side by side, each with its interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.analysis.campaigns.definition import Campaign, Cell
from harness.analysis.campaigns.stored import DONE, FAILED, CampaignFiles, Ends, State, state_of
from harness.analysis.comparing.compare import between_runs
from harness.artifacts.record import RunRecord
from harness.artifacts.reference_table import read_reference
from harness.artifacts.shared_schema import CELLS_COMMON, CELLS_MEANS
from models.image_size import ImageSize


@dataclass(frozen=True, slots=True)
class CellFigures:
    """A cell with what has become of its runs, and the records of those that are done."""

    cell: Cell
    states: tuple[State, ...]

    @property
    def records(self) -> list[RunRecord]:
        """The records of the runs that are done."""
        return [state.record for state in self.states if state.record is not None]

    @property
    def state(self) -> str:
        """DONE if all runs are, else the state of the first that isn't."""
        return next((state.name for state in self.states if state.name != DONE), DONE)

    @property
    def reason(self) -> str:
        """Why it isn't done."""
        return next((state.reason for state in self.states if state.name != DONE), "")

    def row(self) -> dict[str, Any]:
        """Its row in the table of cells; figures of runs that aren't done are unknown, never 0."""
        summaries = [record.summary for record in self.records]
        row: dict[str, Any] = {
            "cell": self.cell.name,
            "state": self.state,
            "reason": self.reason,
            "runs": len(summaries),
        }
        if not summaries:
            return row
        row |= {name: _same(summaries, name) for name in CELLS_COMMON}
        row |= {name: _mean(summaries, name) for name in CELLS_MEANS}
        bottlenecks = sorted({str(one["bottleneck"]) for one in summaries if one.get("bottleneck")})
        row["bottleneck"] = "|".join(bottlenecks)
        interference = {
            part for one in summaries for part in str(one.get("interference") or "none").split("|") if part != "none"
        }
        row["interference"] = "|".join(sorted(interference)) or "none"
        return row | _throughput(summaries)

    @property
    def has_failed(self) -> bool:
        """Whether a run of it failed; one that was skipped didn't."""
        return any(state.name == FAILED for state in self.states)


def _throughput(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The rate with its interval: that between the runs, or within the window of a single one."""
    known = [one for one in summaries if one.get("fps") is not None]
    if not known:
        return {}
    found = known[0] if len(known) == 1 else asdict(between_runs([one["fps"] for one in known]))
    return {name: found.get(name) for name in ("fps", "fps_low", "fps_high")}


def cells_of(files: CampaignFiles, campaign: Campaign) -> list[CellFigures]:
    """Every cell of a campaign, with what has become of it."""
    ends = Ends.read(files)
    return [
        CellFigures(cell, tuple(state_of(files, ends, cell, repeat) for repeat in range(1, campaign.repeats + 1)))
        for cell in campaign.cells
    ]


def reference_cell() -> dict[str, Any]:
    """The published row, as a row of the table of cells."""
    method, crop, fps, top1 = read_reference().cells
    return {
        "cell": "reference: DeepSparkHub, BI-V100", "state": "published", "reason": "", "runs": 1,
        "model": method.removeprefix("PPLCNet_"), "dataset": "ImageNet", "crop_size": ImageSize.of(crop).plain,
        "device_name": "BI-V100", "devices": 4, "fps": float(fps), "fps_per_device": float(fps) / 4,
        "top1": float(top1),
    }  # fmt: skip


def _same(summaries: Sequence[Mapping[str, Any]], name: str) -> Any:
    values = {one.get(name) for one in summaries}
    return values.pop() if len(values) == 1 else None


def _mean(summaries: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [one.get(name) for one in summaries]
    known = [float(value) for value in values if value is not None and not math.isnan(value)]
    return statistics.fmean(known) if known and len(known) == len(values) else None
