"""The row of summary.csv in Prometheus's text format, for node_exporter's textfile collector.

Source: Prometheus's documentation, "Exposition formats", text-based format 0.0.4.
"""

from __future__ import annotations

from harness.artifacts.record import RunRecord
from harness.artifacts.schema import Column
from harness.artifacts.shared_schema import SUMMARY
from harness.report.text import printable

PREFIX = "pplcnet_bench_"
# Columns whose text tells one series from another.
LABELS = ("run", "series", "model", "dataset", "device", "device_name", "amp")


def prometheus(record: RunRecord) -> bytes:
    """Returns the metrics of a finished run: a gauge for each number, and the texts as labels of one that is 1."""
    row = record.summary
    labels = _labels({name: row.get(name) for name in LABELS})
    lines = []
    for column in SUMMARY.columns:
        value = row.get(column.name)
        if column.kind is not str and value is not None:
            lines += _gauge(PREFIX + column.name, _help(column), labels, repr(float(value)))
    texts = {column.name: row.get(column.name) for column in SUMMARY.columns if column.kind is str}
    lines += _gauge(PREFIX + "run_info", "texts of the run's row in summary.csv", _labels(texts), "1")
    return "".join(f"{line}\n" for line in lines).encode()


def _gauge(name: str, text: str, labels: str, value: str) -> list[str]:
    return [f"# HELP {name} {_escaped(text)}", f"# TYPE {name} gauge", f"{name}{labels} {value}"]


def _help(column: Column) -> str:
    return f"{column.meaning} ({column.unit}, {column.scope})" if column.unit else f"{column.meaning} ({column.scope})"


def _labels(values: dict[str, object]) -> str:
    pairs = (
        f'{name}="{_escaped(printable(str(value))).replace(chr(34), chr(92) + chr(34))}"'
        for name, value in values.items()
        if value is not None
    )
    return "{" + ",".join(pairs) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
