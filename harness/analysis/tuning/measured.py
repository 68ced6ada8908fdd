"""What a trial measured, from the record of its run."""

from __future__ import annotations

from harness.analysis.tuning.knobs import KNOB_NAMES
from harness.analysis.tuning.trial import Candidate, Trial
from harness.analysis.verdict import has_disturbed_rate
from harness.artifacts.record import RunRecord
from harness.artifacts.schema import TRAIN
from harness.errors import UsageError
from harness.plan.plan import decided_values
from models.words import count_of

# Steps that took much longer than the others, without a known reason.
OUTLIERS = "outliers"


def trial_of(
    record: RunRecord,
    number: int,
    purpose: str,
    candidate: Candidate,
    seconds: float,
    headspace: Trial | None = None,
) -> Trial:
    """The trial that a finished run is; seconds is what it took.

    A run that measured end to end alone has the compute rate of headspace, the first trial.
    """
    phase, verdict = record.phases[TRAIN], record.verdict or {}
    compute = verdict.get("compute_fps") or (None if headspace is None else headspace.compute_fps)
    decided = decided_values(record.config, record.plan)
    return Trial(
        number=number,
        purpose=purpose,
        candidate=candidate,
        seconds=seconds,
        run=record.run,
        settings={name: record.effective_settings.get(name, decided[name]) for name in KNOB_NAMES},
        pipeline_fps=verdict.get("pipeline_fps"),
        compute_fps=compute,
        data_gain=None if compute is None else compute / phase["fps"],
        bottleneck=verdict.get("bottleneck"),
        disturbed=_disturbances(record),
        **{
            name: phase[name]
            for name in (
                "fps", "fps_low", "fps_high", "relative_standard_error", "degrees_of_freedom", "step_seconds_p50",
                "step_seconds_p99",
            )
        },
    )  # fmt: skip


def _disturbances(record: RunRecord) -> tuple[str, ...]:
    """What disturbed the end-to-end rate from outside."""
    reasons = set(record.interference["reasons"] or ())
    phase = record.phases[TRAIN]
    outliers = phase["outliers"]
    if has_disturbed_rate(
        phase["fps"], phase["relative_standard_error"], outliers["usual_fps"], outliers["isolated_share"]
    ):
        reasons.add(OUTLIERS)
    return tuple(sorted(reasons))


def check_steps(trial: Trial, record: RunRecord, seconds: float) -> None:
    """Raise UsageError for a trial with too few steps for an interval: chance alone would tell settings apart.

    seconds are those that the user asked for.
    """
    steps = record.phases[TRAIN]["window_steps"]
    if trial.relative_standard_error is None:
        raise UsageError(
            f"--max-seconds {seconds:g} leaves a trial {count_of(steps, 'step')} of training to measure, too few to"
            " tell settings apart",
            "Omit it: trials are then as long as they need to be.",
        )
