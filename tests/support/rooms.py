"""The rooms of the code."""

from __future__ import annotations

# From the bottom up; rooms of one level don't know each other. Below the harness lie pipelines, and below them models.
LEVELS = (
    ("models",), ("pipelines",), ("harness",), ("harness.errors",), ("harness.machine",), ("harness.plan",),
    ("harness.artifacts",), ("harness.launch", "harness.analysis"), ("harness.report", "harness.training"),
    ("harness.doctor", "harness.latency"), ("harness.commands",), ("harness.cli",), ("run_bench",),
)  # fmt: skip
