"""A finished run's figures in the formats of other programs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts.record import RunFiles, write_record
from harness.artifacts.shared_schema import SUMMARY
from harness.commands.stored.report import report
from harness.errors import UsageError
from harness.plan.metric_formats import METRIC_FORMATS, parse_formats
from harness.plan.options import RunConfig
from harness.report.console import Console
from harness.report.extras import write_extras
from harness.report.metrics.formats import FORMATS, write_metrics
from harness.report.metrics.mllog import mllog
from harness.report.metrics.prometheus import prometheus
from harness.report.run_data import read_run
from tests.support.finished_runs import epochs_run, gpu_throughput, interrupted

SAMPLE = re.compile(r'([a-z_][a-z0-9_]*)\{((?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)*)\} (-?[0-9.e+-]+)')


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("results")
    gpu_throughput(made)
    epochs_run(made)
    return made


def samples(text: str) -> dict[str, float]:
    """The samples of a text in Prometheus's format, every line of which is read."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            match = SAMPLE.fullmatch(line)
            assert match is not None, line
            found[match[1]] = float(match[3])
        else:
            assert re.fullmatch(r"# (HELP [a-z0-9_]+ .*|TYPE [a-z0-9_]+ gauge)", line), line
    return found


@pytest.mark.parametrize("name", ["gpus", "epochs"])
def test_every_known_number_of_the_summary_is_a_metric(folder: Path, name: str) -> None:
    record = read_run(folder / f"{name}.json").record
    found = samples(prometheus(record).decode())
    numbers = {
        f"pplcnet_bench_{column.name}": float(record.summary[column.name])
        for column in SUMMARY.columns
        if column.kind is not str and record.summary.get(column.name) is not None
    }
    assert found.pop("pplcnet_bench_run_info") == 1
    assert found == numbers


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", 'x"} 1\npplcnet_bench_fps{run="y'])
def test_a_hostile_name_stays_a_label(folder: Path, name: str) -> None:
    record = read_run(folder / "gpus.json").record
    record = replace(record, summary={**record.summary, "dataset": name})
    usual = samples(prometheus(read_run(folder / "gpus.json").record).decode())
    assert samples(prometheus(record).decode()) == usual


def events(content: bytes) -> list[dict[str, Any]]:
    lines = content.decode().splitlines()
    assert all(line.startswith(":::MLLOG {") for line in lines)
    return [json.loads(line.removeprefix(":::MLLOG ")) for line in lines]


def test_the_mlperf_log_has_the_epochs_with_their_accuracy(folder: Path) -> None:
    run = read_run(folder / "epochs.json")
    found = events(mllog(run))
    assert {"namespace", "time_ms", "event_type", "key", "value", "metadata"} == set(found[0])
    accuracies = [one["value"] for one in found if one["key"] == "eval_accuracy"]
    assert accuracies == pytest.approx(run.epochs["top1"].tolist())
    assert [one["metadata"]["epoch_num"] for one in found if one["key"] == "epoch_stop"] == [1, 2, 3, 4, 5, 6]
    (stop,) = [one for one in found if one["key"] == "run_stop"]
    assert stop["metadata"]["status"] == "success"
    assert [one["time_ms"] for one in found if one["key"] == "epoch_stop"] == sorted(
        one["time_ms"] for one in found if one["key"] == "epoch_stop"
    )


def test_tensorboard_events_are_those_of_the_tables(folder: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is an extra")
    from tensorboardX.proto.event_pb2 import Event

    run, files = read_run(folder / "epochs.json"), RunFiles(folder, "epochs")
    target = write_metrics(run, files, "tensorboard")
    (path,) = target.glob("events.*")
    found: dict[str, list[tuple[int, float]]] = {}
    for content in records(path.read_bytes()):
        event = Event.FromString(content)
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    assert [epoch for epoch, _ in found["epochs/top1"]] == run.epochs["epoch"].tolist()
    assert [value for _, value in found["epochs/top1"]] == pytest.approx(run.epochs["top1"].tolist())
    steps = run.steps[run.steps["phase"] == "train"]
    assert [step for step, _ in found["steps/fps"]] == steps["step"].tolist()
    assert [value for _, value in found["steps/fps"]] == pytest.approx(steps["fps"].tolist(), rel=1e-6)


def records(content: bytes) -> list[bytes]:
    """The records of a file in TFRecord's format: length, its checksum, content, its checksum."""
    found, at = [], 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 8], "little")
        found.append(content[at + 12 : at + 12 + size])
        at += 16 + size
    return found


def test_the_formats_are_those_of_the_option() -> None:
    assert tuple(FORMATS) == METRIC_FORMATS
    assert parse_formats("mllog, prometheus,mllog") == ("mllog", "prometheus")
    with pytest.raises(UsageError) as caught:
        RunConfig(metrics="prometheus,influx")
    assert caught.value.message == "--metrics has an unknown format 'influx'"
    assert "mllog" in caught.value.cure


def test_a_format_that_can_not_be_written_is_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder stands in its place."""
    record = epochs_run(tmp_path)
    record = replace(record, config=replace(record.config, metrics="prometheus,mllog"))
    files = RunFiles(tmp_path, "epochs")
    write_record(files.record, record)
    (tmp_path / "epochs.prom").mkdir()
    (tmp_path / "epochs.html").mkdir()
    write_extras(Console(), files, record)
    out = " ".join(capsys.readouterr().out.split())
    assert "note: prometheus's file was not written" in out
    assert "note: the page was not written" in out
    assert "report epochs --results" in out
    assert (tmp_path / "epochs.mllog").read_bytes() == mllog(read_run(files.record))


def test_a_stored_run_s_figures_can_be_written_later(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(["gpus"], str(folder), metrics="prometheus,mllog")
    assert capsys.readouterr().out.splitlines()[1:] == [str(folder / "gpus.prom"), str(folder / "gpus.mllog")]
    assert samples((folder / "gpus.prom").read_text(encoding="utf-8"))


def test_a_run_without_figures_has_none_to_write(tmp_path: Path) -> None:
    interrupted(tmp_path)
    with pytest.raises(UsageError) as caught:
        report(["stopped"], str(tmp_path), metrics="prometheus")
    assert caught.value.message == "run 'stopped' is interrupted: it has no figures to write"
    assert not (tmp_path / "stopped.prom").exists()
