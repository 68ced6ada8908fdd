"""`run_bench.py latency` from its options to its files, with engines whose truth is put in."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import harness.commands.latency.asked
import harness.commands.latency.command
import harness.latency.measure
from harness.analysis.latency.job import read_job
from harness.analysis.latency.kernels import KernelProfile
from harness.analysis.latency.stored import read_latency
from harness.analysis.latency.table import LATENCY
from harness.artifacts.record import RunFiles
from harness.artifacts.tables import read_table
from harness.cli import main
from harness.commands.latency.asked import Asked
from harness.commands.latency.command import _meter
from harness.latency.energy import NoMeter
from harness.latency.folder import Folder
from harness.latency.processes import EngineFailed
from harness.machine.device import Devices
from harness.machine.nvml import Gpu, Nvml
from models.weights import encode_weights, read_weights
from tests.support.latency import JOB, ONEDNN, PLAIN, FakeTimer, never
from tests.support.published import shapes

if TYPE_CHECKING:
    from typing_extensions import Self

TRUTH = {ONEDNN: {"x0_25": 2.0, "x1_0": 5.0}, PLAIN: {"x0_25": 5.0, "x1_0": 25.0}}
FAST = ("--model", "x0_25,x1_0", "--engine", "paddle-onednn,paddle", "--seconds", "0.6", "--rounds", "6")


class Timer(FakeTimer):
    """An engine that need not be closed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""


class Looker:
    """Notices what the machine is told to notice."""

    found: tuple[str, ...] = ()

    def __init__(self, cores: object) -> None:
        pass

    def begin(self) -> None:
        pass

    def end(self) -> tuple[str, ...]:
        return self.found


class Machine:
    """A machine with two cores. failing is by engine what its sizes raise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.failing: dict[str, Callable[[str, str], EngineFailed | None]] = {}
        self.exported: list[Folder] = []
        self.environments: list[Mapping[str, str]] = []
        self.given: list[dict[str, Any]] = []
        self.profiles: list[KernelProfile] | EngineFailed = [KernelProfile("x1_0", PLAIN, "", 26.0, ())]
        command = harness.commands.latency.command
        monkeypatch.setattr(Looker, "found", ())
        monkeypatch.setattr(harness.commands.latency.asked, "available_cores", lambda: 2)
        monkeypatch.setattr(command, "export", self.export)
        monkeypatch.setattr(command, "EngineProcess", self.engine)
        monkeypatch.setattr(command, "profile_kernels", self.profile)
        monkeypatch.setattr(command, "Disturbances", Looker)
        monkeypatch.setattr(command, "rapl_meter", NoMeter)

    def export(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.exported.append(Folder(folder))
        self.environments.append(environment)
        if Folder(folder).weights.exists():
            self.given.append({name: one.shape for name, one in read_weights(Folder(folder).weights)[0].items()})

    def engine(self, engine: str, folder: Path, environment: Mapping[str, str]) -> Timer:
        job = read_job(Folder(folder).job)
        return Timer(TRUTH[engine], self.asked, self.failing.get(engine, never)) if job.sizes else Timer({}, [])

    def profile(self, *_: object) -> list[KernelProfile]:
        if isinstance(self.profiles, EngineFailed):
            raise self.profiles
        return self.profiles


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def latency(folder: Path, *options: str) -> int:
    return main(["latency", *FAST, "--results", str(folder), "--name", "it", *options])


@pytest.mark.usefixtures("wide")
def test_from_the_options_to_the_files(tmp_path: Path, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert latency(tmp_path) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"it.json", "it.html", "it.latency.csv"}
    record = read_latency(tmp_path / "it.json")
    table = read_table(RunFiles(tmp_path, "it").table("latency"), LATENCY)
    assert table["median_ms"].tolist() == pytest.approx([2.0, 5.0, 5.0, 25.0], rel=2e-3)
    assert table["ratio"].tolist() == pytest.approx([1.0, 2.5, 1.0, 5.0], rel=2e-3)
    assert table["rounds"].tolist() == [6] * 4
    assert len(record.turns) == 24
    assert [claim.engine for claim in record.claims] == [ONEDNN, PLAIN]
    assert record.claims[0].growth.median == pytest.approx(2.5, rel=2e-3)
    assert record.warnings == ()
    out, err = capsys.readouterr()
    assert err == ""
    assert "round 6/6, ms: x0_25 2.00/5.00, x1_0 5.00/25.02" in out
    assert "paddle, times as long as paddle-onednn: x0_25 2.50 (2.50-2.50), x1_0 5.00 (5.00-5.00)" in out
    assert "kernels with paddle: none of oneDNN's" in out
    # What the processes read is gone.
    assert not machine.exported[0].path.exists()


def test_engines_get_their_threads_and_no_plugin(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness.latency.measure, "SETTLE_SECONDS", 0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "16")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert latency(tmp_path, "--threads", "2") == 0
    (environment,) = machine.environments
    assert environment["OMP_NUM_THREADS"] == "2"
    assert environment["CUSTOM_DEVICE_ROOT"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in environment
    assert environment["PATH"] == os.environ["PATH"]
    record = read_latency(tmp_path / "it.json")
    assert record.environment["thread_environment"]["OMP_NUM_THREADS"] == "2"
    assert record.environment["engines"] == {}


def test_without_a_name_it_is_the_time_and_what_is_timed(tmp_path: Path, machine: Machine) -> None:
    assert main(["latency", *FAST, "--results", str(tmp_path)]) == 0
    (record,) = tmp_path.glob("*.json")
    assert record.stem.endswith("-latency-cpu1")


def test_a_name_that_is_taken(tmp_path: Path, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert latency(tmp_path) == 0
    assert latency(tmp_path) == 2
    assert "Give another --name, or remove its files." in capsys.readouterr().err
    assert main(["latency", *FAST, "--results", str(tmp_path), "--name", "a.latency"]) == 2
    assert "files of that name belong to a measurement of latency\n  Give another --name." in capsys.readouterr().err


def test_given_weights_are_exported(tmp_path: Path, machine: Machine) -> None:
    file = tmp_path / "weights.safetensors"
    arrays = {name: np.zeros(sides, np.float32) for name, sides in shapes("x0_25", 3).items()}
    file.write_bytes(encode_weights(file, arrays, {}))
    options = ("--seconds", "0.6", "--rounds", "6", "--weights", str(file))
    assert main(["latency", *options, "--results", str(tmp_path), "--name", "it"]) == 0
    assert machine.given == [{name: tuple(sides) for name, sides in shapes("x0_25", 3).items()}]
    record = read_latency(tmp_path / "it.json")
    assert record.weights.startswith("x0_25, 3 classes, ")
    assert record.claims == ()
    assert record.rows[0]["parameters"] == 1_521_184 - 997 * 1281


def test_too_few_rounds_have_no_intervals(tmp_path: Path, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert latency(tmp_path, "--rounds", "1") == 0
    assert "note: no intervals: 1 round, and 6 are needed" in capsys.readouterr().out
    (warning,) = read_latency(tmp_path / "it.json").warnings
    assert warning == "no intervals: 1 round, and 6 are needed"


@pytest.mark.usefixtures("wide")
def test_a_disturbed_measurement_says_so(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Looker, "found", ("cpu_steal",))
    assert latency(tmp_path, "--engine", "paddle") == 0
    out = capsys.readouterr().out
    assert "note: disturbed (cpu_steal): x0_25 with paddle, x1_0 with paddle; measure again" in out
    assert "x1_0 *" in out
    assert "round 1/6, ms: x0_25 5.00, x1_0 25.02 (disturbed: cpu_steal)" in out
    table = read_table(RunFiles(tmp_path, "it").table("latency"), LATENCY)
    assert table["disturbed"].tolist() == ["cpu_steal"] * 2
    assert table["disturbed_turns"].tolist() == [6] * 2


def test_cores_that_can_not_be_kept_are_a_note(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(harness.commands.latency.asked, "can_pin", lambda: False)
    assert latency(tmp_path) == 0
    assert "can't keep a process on its cores" in " ".join(capsys.readouterr().out.split())


def test_kernels_that_can_not_be_counted_are_a_note(
    tmp_path: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.profiles = EngineFailed("no answer within 120 s", is_over=True)
    assert latency(tmp_path) == 0
    assert "note: which kernels ran isn't known: no answer within 120 s" in capsys.readouterr().out
    assert read_latency(tmp_path / "it.json").profiles == ()


@pytest.mark.usefixtures("wide")
def test_a_crash_of_one_engine_leaves_the_figures_of_the_other(
    tmp_path: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    crashed = EngineFailed("crashed by SIGSEGV; its last words: none", is_over=True)
    machine.failing[PLAIN] = lambda size, what: crashed if (size, what) == ("x1_0", "load") else None
    assert latency(tmp_path) == 3
    out, err = capsys.readouterr()
    assert "x1_0 with paddle has no figures: crashed by SIGSEGV" in out
    assert err.startswith("error: paddle failed: crashed by SIGSEGV; its last words: none\n  The other figures stand.")
    record = read_latency(tmp_path / "it.json")
    assert record.measured == (("x0_25", ONEDNN), ("x1_0", ONEDNN))
    assert (tmp_path / "it.html").exists()


def test_where_every_engine_fails_there_is_a_record_of_it(tmp_path: Path, machine: Machine) -> None:
    for engine in TRUTH:
        machine.failing[engine] = lambda size, what: EngineFailed("OtherLogitsError: logits differ")
    assert latency(tmp_path) == 3
    record = read_latency(tmp_path / "it.json")
    assert record.measured == ()
    assert {row["failure"] for row in record.rows} == {"OtherLogitsError: logits differ"}


def test_a_page_that_can_not_be_written_is_a_note(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(record: object) -> bytes:
        raise OSError("no room")

    monkeypatch.setattr(harness.commands.latency.command, "latency_page", broken)
    assert latency(tmp_path) == 0
    assert "note: the page was not written (OSError: no room)" in capsys.readouterr().out
    assert main(["report", "it", "--results", str(tmp_path)]) == 0
    assert (tmp_path / "it.html").exists()


def test_a_gpus_own_counter_is_the_meter(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Nvml, "open", lambda self: self)
    devices = Devices("gpu", 1, "H100", (Gpu(0, "GPU-0", "H100", ""),))
    with ExitStack() as stack:
        assert _meter(Asked(replace(JOB, device="gpu"), None, devices, ()), stack).name == "NVML, GPU"


def test_a_notice_about_the_devices_is_printed(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        harness.commands.latency.asked, "choose_devices", lambda *_: (Devices("cpu", 1, "CPU"), ("an old driver",))
    )
    assert latency(tmp_path) == 0
    assert "note: an old driver" in capsys.readouterr().out
