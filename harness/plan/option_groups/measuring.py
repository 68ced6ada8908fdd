"""What is measured, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

from harness.plan.declaration import FREE, HIDDEN, OWN, UNMARKED, option

# Processor time is counted in hundredths of a second, and NVML samples no more often.
MIN_TELEMETRY_INTERVAL = 0.1
# Values of --phases.
ALL_PHASES, END_TO_END = "all", "end_to_end"


@dataclass(frozen=True, kw_only=True)
class MeasuringOptions:
    """See `harness.plan.options.RunConfig`."""

    warmup: int | None = option(
        None, "measuring", "Training steps before the measured window. Default: found in the step times.",
        metavar="STEPS", at_least=0, resume=FREE, compare=HIDDEN, row=UNMARKED,
    )  # fmt: skip
    target_ci: float = option(
        0.02, "measuring", "Stop a throughput run when its 95 % interval is this narrow. The half-width of the"
        " confidence interval is then at most this fraction of the throughput (0.02 = +/-2 %).",
        metavar="FRACTION", above=0, resume=FREE, row=UNMARKED,
    )  # fmt: skip
    max_seconds: float = option(
        130.0, "measuring", "Stop a throughput run after this many measured seconds. All its phases count.",
        metavar="SECONDS", above=0, resume=FREE, row=UNMARKED,
    )  # fmt: skip
    phases: str = option(
        ALL_PHASES, "measuring", "What a throughput run measures: all phases, for a verdict on what limits training, or"
        " end_to_end alone, which then has all of the time.", choices=(ALL_PHASES, END_TO_END), resume=FREE,
        compare=HIDDEN, row=UNMARKED,
    )  # fmt: skip
    repeats: int = option(
        1, "measuring", "Run this many times to measure the spread between runs. Each run has fresh processes.",
        metavar="K", at_least=1, resume=FREE, compare=HIDDEN, row=UNMARKED,
    )  # fmt: skip
    device_counts: str | None = option(
        None, "measuring", "Measure with each of these numbers of devices, such as 1,2,4. Default: --gpus only.",
        metavar="N,N,...", resume=FREE, compare=HIDDEN, row=UNMARKED,
    )  # fmt: skip
    telemetry_interval: float = option(
        0.5, "measuring", "Seconds between two telemetry samples. At least 0.1.", metavar="SECONDS",
        at_least=MIN_TELEMETRY_INTERVAL, resume=FREE, nodes=OWN, row=UNMARKED,
    )  # fmt: skip
    metrics: str | None = option(
        None, "measuring", "Also write the finished run's figures for other programs: prometheus, tensorboard or"
        " mllog, or several of them with commas. Files beside the tables; a failure to write one is a note.",
        metavar="FORMAT,...", resume=FREE, nodes=OWN, compare=HIDDEN, row=UNMARKED,
    )  # fmt: skip
    profile: int | None = option(
        None, "measuring", "Trace this many training steps of rank 0 after the warm-up, into <run>.traces/rank0.json."
        " Tracing slows these steps down.", metavar="STEPS", at_least=1, resume=FREE,
    )  # fmt: skip
    telemetry_library: str | None = option(
        None, "measuring", "Library that reports on the devices, for accelerators whose vendor's library speaks NVML's"
        " calls, such as Iluvatar's libixml.so. Default: NVML's own for GPUs, none for other devices.",
        metavar="PATH", resume=FREE, nodes=OWN, compare=HIDDEN, path=True, row=UNMARKED,
    )  # fmt: skip
