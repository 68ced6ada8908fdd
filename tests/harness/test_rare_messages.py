"""Notes and errors that no other test brings about, each by what makes it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paddle
import psutil
import pytest

import harness.training.trainer as trainer_module
from harness.analysis.campaigns.stored import CampaignFiles, Ends
from harness.analysis.tuning.stored import read_tuning
from harness.commands import doctor
from harness.commands.run_options import take_manner
from harness.commands.stored.report import MAX_RUNS, report
from harness.doctor.check import Context, Finding
from harness.doctor.gpu_day import FAILED, ROWS, Outcome
from harness.errors import InterruptedRunError, InvariantError, MachineError, TrainingError, UsageError
from harness.launch.failures import death
from harness.launch.meeting import Host
from harness.launch.rank_monitor import RankExit
from harness.machine.device import _of_gpus
from harness.machine.nvml import Gpu
from harness.plan.nodes import Node, interface_of, route_to
from harness.plan.notes import notes_of_weights
from harness.plan.option_checks import MAX_SERIES_NAME
from harness.plan.options import RunConfig
from harness.report.campaign import show_end
from harness.report.console import Console
from harness.report.extras import check_extras
from harness.report.metrics.tensorboard import tensorboard
from harness.training.epochs import evaluate_alone
from harness.training.state import Progress, gather_state
from models.architecture import NEW
from models.fitting import WeightsFile
from pipelines.class_folders import flat_images, scan_class_folders
from pipelines.dataset import open_dataset
from pipelines.errors import DataError, LoaderError
from pipelines.imagenet.numbering import known_validation_labels, wnids
from pipelines.imagenet.validation import read_kaggle
from pipelines.opencv_source import OpenCvSource
from tests.support.finished_runs import gpu_throughput
from tests.support.plans import a_plan


def told(error: type[Exception], act: Callable[[], object]) -> str:
    with pytest.raises(error) as raised:
        act()
    return str(raised.value)


def test_a_file_that_is_no_campaigns_is_refused(tmp_path: Path) -> None:
    files = CampaignFiles(tmp_path, "it")
    files.folder.mkdir()
    files.record.write_text("[]")
    assert told(UsageError, lambda: Ends.read(files)).startswith(f"{files.record} is not a campaign's: ")


def test_other_records_of_tunings_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "tuning.json"
    file.write_text(json.dumps({"schema_version": 99}))
    assert "has schema version 99" in told(UsageError, lambda: read_tuning(file))
    file.write_text("{}")
    assert "is not the record of a tuning" in told(UsageError, lambda: read_tuning(file))


def test_rows_of_the_first_gpu_day_that_failed_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = Outcome(ROWS[0], FAILED, Finding("fail", "no"), 1.0)
    monkeypatch.setattr(doctor, "versions", lambda context: {"devices": "1 x GPU"})
    monkeypatch.setattr(doctor, "run_day", lambda rows, context: iter([outcome]))
    assert told(MachineError, lambda: doctor.gpu_day([], Context(str(tmp_path)))) == "1 of 1 row failed: 0"
    assert "1 FAIL" in capsys.readouterr().out


def test_two_kinds_of_output_are_refused() -> None:
    assert "two kinds of output" in told(UsageError, lambda: take_manner({"quiet": True, "json": True}))


def test_what_report_can_not_show_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_throughput(tmp_path, "one")
    assert "--last" in told(UsageError, lambda: report(["one"], str(tmp_path), last=2))
    assert told(UsageError, lambda: report([], str(tmp_path), last=0)) == "--last is 0; it must be at least 1"
    monkeypatch.setattr("harness.commands.stored.report.MAX_RUNS", 0)
    assert MAX_RUNS > 1
    assert "1 runs are too many for one page" in told(UsageError, lambda: report(["one"], str(tmp_path)))
    (tmp_path / "other.json").write_text(json.dumps({"schema_version": 1, "kind": "other", "run": "other"}))
    assert "is not the record of a run" in told(UsageError, lambda: report(["other"], str(tmp_path)))


def test_a_rank_whose_exit_code_is_unknown_is_named(tmp_path: Path) -> None:
    error = death(tmp_path, a_plan(), RankExit(3, 1, None), 1, tmp_path / "kept")
    assert str(error) == "rank 3 ended first; its exit code is unknown"


def test_node_0_waits_a_while_for_nodes_that_are_to_know_its_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    said: list[str] = []
    node = Node(2, 0, ("127.0.0.1", port), "127.0.0.1", "lo")
    host = Host(node, 2.5, said.append)
    try:
        host.end(UsageError("it is wrong"))
    finally:
        host.close()
    assert any("to let the other nodes know (Ctrl-C ends the wait)" in text for text in said)


def test_a_port_that_was_taken_meanwhile_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        node = Node(2, 0, ("127.0.0.1", port), "127.0.0.1", "lo")
        assert told(MachineError, lambda: Host(node, 1.0, print)).startswith("can't listen on ")


def test_a_gpu_without_uuid_is_refused() -> None:
    told_ = told(MachineError, lambda: _of_gpus(1, (Gpu(2, "", "GPU", ""),), ""))
    assert told_.startswith("NVML doesn't report the UUID of GPU 2,")


def test_a_master_without_a_route_and_an_address_of_no_interface_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unreachable(socket.socket):
        def connect(self, address: Any) -> None:
            raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "socket", Unreachable)
    assert "can't be reached from this machine (Network is unreachable)" in told(
        UsageError, lambda: route_to("10.0.0.1", 6170)
    )
    monkeypatch.setattr(psutil, "net_if_addrs", dict)
    assert told(MachineError, lambda: interface_of("10.0.0.1")).endswith("has its address 10.0.0.1")


def test_weights_without_a_last_layer_are_noted() -> None:
    (note,) = notes_of_weights(WeightsFile("w.pdparams", "", classes=0, head=NEW), 10)
    assert note == "w.pdparams has no last layer: it starts anew, with 10 outputs"


def test_options_that_leave_no_room_or_contradict_each_other_are_refused() -> None:
    def refused(**options: Any) -> str:
        return told(UsageError, lambda: RunConfig(**options))

    long = "n" * (MAX_SERIES_NAME + 1)
    assert "no room for the names of a series' runs" in refused(throughput_only=True, repeats=2, run_name=long)
    both = refused(throughput_only=True, loader="dali,opencv", phases="end_to_end")
    assert "compares two loaders in all phases" in both
    assert "is for --throughput-only" in refused(phases="end_to_end")


def test_runs_of_a_campaign_that_were_made_with_other_packages_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("harness.report.campaign.versions", lambda records: ["Paddle (3.2.0, 3.3.1)"])
    show_end(Console(), CampaignFiles(tmp_path, "it"), [])
    assert "the runs were made with different Paddle (3.2.0, 3.3.1)" in " ".join(capsys.readouterr().out.split())


def test_tensorboard_without_its_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.report.extras.find_spec", lambda name: None)
    assert "needs tensorboardX" in told(UsageError, lambda: check_extras(RunConfig(metrics="tensorboard")))
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    assert told(MachineError, lambda: tensorboard(SimpleNamespace(), tmp_path)) == "tensorboardX isn't installed"  # type: ignore[arg-type]


def test_weights_that_are_not_finite_are_not_saved() -> None:
    model = paddle.nn.Linear(2, 2)
    model.weight.set_value(paddle.full([2, 2], float("nan")))
    train = SimpleNamespace(
        optimizer=SimpleNamespace(state_dict=dict), optimizer_steps=7, schedule=SimpleNamespace(at=lambda step: 0.5)
    )
    trainer: Any = SimpleNamespace(model=model, ranks=None, train=train)
    found = told(TrainingError, lambda: gather_state(trainer, Progress(), {}))
    assert found == "the weights of weight are not finite after step 7, learning rate 0.5"


def test_an_evaluation_that_is_interrupted_can_not_be_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped:
        def __init__(self, *_: object) -> None:
            pass

        def run(self, *_: object) -> None:
            return None

    monkeypatch.setattr("harness.training.epochs.Validation", Stopped)
    nothing: Any = SimpleNamespace()
    assert told(InterruptedRunError, lambda: evaluate_alone(nothing, nothing, nothing)) == "interrupted"


def test_another_number_of_ranks_than_planned_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "join", lambda: SimpleNamespace(world_size=3, rank=0))
    assert told(InvariantError, lambda: trainer_module.open_trainer(a_plan(), Path())).startswith(
        "3 ranks are training, but "
    )


def test_validation_images_without_labels_are_nothing_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG").touch()
    assert told(DataError, lambda: open_dataset(str(tmp_path))).startswith("nothing in ")


def test_folders_and_files_that_can_not_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "none"
    assert "cannot be read" in told(DataError, lambda: flat_images(missing))
    assert "cannot be read" in told(DataError, lambda: read_kaggle(missing))
    (tmp_path / "train" / "one").mkdir(parents=True)

    def refuse(path: Any) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    found = told(DataError, lambda: scan_class_folders(tmp_path / "train", tmp_path, {"one": 0}))
    assert found.endswith("cannot be read: Permission denied")


def test_class_folders_beside_imagenets_labels_must_be_its(tmp_path: Path) -> None:
    for name in (wnids()[0], "n99999999"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "a.jpg").touch()
    lines = [f"val/ILSVRC2012_val_{image:08d}.JPEG {label}\n" for image, label in known_validation_labels().items()]
    (tmp_path / "val_list.txt").write_text("".join(lines))
    assert told(DataError, lambda: open_dataset(str(tmp_path))).startswith("not all class folders in ")


def test_a_list_that_numbers_wordnet_ids_in_its_own_order_is_noted(tmp_path: Path) -> None:
    first, second = wnids()[:2]
    for split in ("train", "val"):
        (tmp_path / f"{split}_list.txt").write_text(f"{split}/{first}/a.jpg 1\n{split}/{second}/b.jpg 0\n")
    notes = open_dataset(str(tmp_path)).classes.notes
    assert any("numbers the WordNet IDs in an order of its own" in note for note in notes)


def test_worker_processes_that_can_not_be_started_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loader:
        def __iter__(self) -> Any:
            raise OSError(12, "Cannot allocate memory")

    source: Any = object.__new__(OpenCvSource)
    source._loader = Loader()
    assert "can't be started" in told(LoaderError, source._start)
