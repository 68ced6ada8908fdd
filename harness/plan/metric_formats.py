"""The formats for other programs that --metrics names."""

from __future__ import annotations

from harness.errors import UsageError

PROMETHEUS, TENSORBOARD, MLLOG = "prometheus", "tensorboard", "mllog"
METRIC_FORMATS = (PROMETHEUS, TENSORBOARD, MLLOG)


def parse_formats(text: str) -> tuple[str, ...]:
    """Returns the formats named in a list with commas, each once. Raises UsageError for an unknown one."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if unknown := [name for name in names if name not in METRIC_FORMATS]:
        raise UsageError(f"--metrics has an unknown format {unknown[0]!r}", f"Known: {', '.join(METRIC_FORMATS)}.")
    return names
