"""What rank 0 records of four GPUs: the real sampler and the real pynvml, on a stand-in driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from harness.artifacts.record import RunFiles, RunRecord, read_record, write_record
from harness.artifacts.schema import DEVICES, EPOCHS, STEPS
from harness.artifacts.tables import TableWriter, read_table
from harness.machine.sampler import Sampler, WindowTelemetry
from harness.training.recorder import StepsRecorder, TableRecorder, open_steps_recorder
from tests.support.frames import global_step
from tests.support.plans import a_config, a_plan
from tests.support.seen import python_path

SCRIPT = """
import os, sys, time
from pathlib import Path
from harness.training.loop import GlobalStep
from harness.artifacts.record import RunFiles
from harness.machine.telemetry import Telemetry
from harness.training.recorder import open_recorder

start = time.perf_counter()
with open_recorder(RunFiles(Path(sys.argv[1]), "it"), TELEMETRY, 0.05, os.environ) as recorder:
    time.sleep(0.5)
    step = GlobalStep(
        index=0, images=64, end_seconds=time.perf_counter() - start, step_seconds=0.4, data_wait_seconds=0.1,
        copy_seconds=0.0, compute_seconds=0.25, forward_seconds=0.05, backward_seconds=0.125, optimizer_seconds=0.075,
        recording_seconds=0.03, exchange_seconds=0.02, slowest_rank=3, rank_skew_seconds=0.015, loss=2.5,
    )
    recorder.step(step, start, phase="train", segment=2, step=1, learning_rate=0.1, warmup=None)
    recorder.epoch(epoch=1, top1=0.5)
"""


# The GPUs of two ranks, NVML's devices 1 and 2, are lost in the middle of the run.
LOSES_GPUS = SCRIPT.replace(
    "    recorder.epoch(",
    """    os.environ["FAKE_NVML_FAIL"] = "1:all:15,2:all:15"
    time.sleep(0.5)
    recorder.step(step, time.perf_counter() - 0.5, phase="train", segment=2, step=2)
    recorder.epoch(""",
)


def record_four_gpus(
    folder: Path, standin: dict[str, str], script: str = SCRIPT, telemetry: str = "Telemetry()", **environment: str
) -> tuple[RunFiles, RunRecord]:
    files = RunFiles(folder, "it")
    plan = a_plan(device="gpu", device_name="GPU", ranks=4)
    write_record(files.record, RunRecord("it", "running", a_config(device="gpu", gpus=4), plan, {}))
    done = subprocess.run(
        [sys.executable, "-c", script.replace("TELEMETRY", telemetry), str(folder)],
        env={**os.environ, "PYTHONPATH": python_path(os.getcwd()), **standin, **environment},  # noqa: PTH109
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return files, read_record(files.record)


def test_a_step_row_joins_the_four_gpus_utilisation(
    tmp_path: Path, nvml_standin: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    files, record = record_four_gpus(tmp_path, nvml_standin)
    step = read_table(files.table("steps"), STEPS).iloc[0]
    # devices report 10, 20, 30 and 40 %
    assert step["gpu_util_percent"] == 25.0
    assert step["gpu_util_min_percent"] == 10.0
    assert step["gpu_util_max_percent"] == 40.0
    assert 0 <= step["cpu_util_percent"] <= 100
    assert 0 <= step["foreign_cpu_percent"] <= 100
    assert step["jpeg_util_percent"] == 12.5  # 5, 10, 15 and 20 %
    assert pd.isna(step["sm_util_percent"])  # two of the devices have no GPM
    assert step["fps"] == 160.0
    parts = ("data_wait", "compute", "recording", "exchange", "forward", "backward", "optimizer", "rank_skew")
    assert [step[f"{part}_seconds"] for part in parts] == [0.1, 0.25, 0.03, 0.02, 0.05, 0.125, 0.075, 0.015]
    assert (step["slowest_rank"], step["loss"], step["segment"]) == (3, 2.5, 2)
    assert (step["phase"], step["step"], step["learning_rate"]) == ("train", 1, 0.1)
    # What only the whole run shows.
    assert pd.isna(step["warmup"])
    assert step["interference"] == ""
    devices = read_table(files.table("devices"), DEVICES)
    assert set(devices["device"]) == {"gpu0", "gpu1", "gpu2", "gpu3", "cpu"}
    # gpu0 is first in PCI order: NVML's device 1
    first = devices[devices["device"] == "gpu0"]
    assert set(first["util_percent"]) == {20.0}
    assert set(first["power_watts"]) == {200.2}
    assert set(first["memory_used_bytes"]) == {2 * 2**30}
    assert set(first["jpeg_util_percent"]) == {10.0}
    assert set(first["throttle_reasons"]) == {"GpuIdle"}
    assert set(first["sm_util_percent"].dropna()) == {61.5}
    assert set(first["dram_util_percent"].dropna()) == {31.2}
    assert set(first["energy_joules"]) == {2000.125}
    assert set(first["processes"]) == {2}
    assert first["foreign_util_percent"].isna().all()
    host = devices[devices["device"] == "cpu"]
    assert host["foreign_util_percent"].dropna().between(0, 100).all()
    assert host["foreign_util_percent"].notna().any()
    assert host["energy_joules"].isna().all()
    # NVML's device 0 is throttled by nothing, which is known; device 3's power and temperature are not
    assert set(devices[devices["device"] == "gpu3"]["throttle_reasons"]) == {"none"}
    silent = devices[devices["device"] == "gpu2"]
    assert silent["power_watts"].isna().all()
    assert silent["temperature_celsius"].isna().all()
    assert set(silent["util_percent"]) == {40.0}
    assert len(record.warnings) == 2
    assert all("GPU" in warning or "gpu" in warning for warning in record.warnings)


def test_energy_is_recorded_when_it_is_read(tmp_path: Path, nvml_standin: dict[str, str]) -> None:
    """Rows of their own, with nothing else, of the three GPUs that have a counter."""
    reads = SCRIPT.replace("0.05, os.environ", "30.0, os.environ").replace(
        "    recorder.epoch(", "    recorder.read_energy()\n    time.sleep(0.5)\n    recorder.epoch("
    )
    files, _ = record_four_gpus(tmp_path, nvml_standin, reads, CUDA_VISIBLE_DEVICES="0,1,2,3")
    devices = read_table(files.table("devices"), DEVICES)
    assert list(devices["device"]) == ["gpu0", "gpu1", "gpu2", "gpu3", "cpu", "gpu0", "gpu1", "gpu3"]
    alone = devices.iloc[5:]
    assert sorted(alone["energy_joules"]) == [1000.125, 2000.125, 3000.125]
    assert (alone["time_unix_seconds"] > devices["time_unix_seconds"].iloc[4]).all()
    known = ["time_unix_seconds", "device", "name", "uuid", "energy_joules", "throttle_reasons"]
    assert alone.drop(columns=known).isna().all(axis=None)
    assert set(alone["throttle_reasons"]) == {""}


def test_visible_devices_decide_which_gpus_are_recorded(tmp_path: Path, nvml_standin: dict[str, str]) -> None:
    files, _ = record_four_gpus(tmp_path, nvml_standin, CUDA_VISIBLE_DEVICES="3,0")
    step = read_table(files.table("steps"), STEPS).iloc[0]
    assert step["gpu_util_percent"] == 15.0  # NVML's devices 0 (10 %) and 1 (20 %)
    assert step["sm_util_percent"] == 61.0  # 60.5 and 61.5 %
    devices = read_table(files.table("devices"), DEVICES)
    assert set(devices[devices["device"] == "gpu0"]["util_percent"]) == {10.0}


def test_without_a_driver_the_run_goes_on_without_gpu_figures(tmp_path: Path, nvml_standin: dict[str, str]) -> None:
    files, record = record_four_gpus(tmp_path, nvml_standin, FAKE_NVML_INIT_ERROR="9")
    step = read_table(files.table("steps"), STEPS).iloc[0]
    assert pd.isna(step["gpu_util_percent"])
    assert set(read_table(files.table("devices"), DEVICES)["device"]) == {"cpu"}
    assert [warning for warning in record.warnings if warning.startswith("no GPU telemetry: ")]
    assert json.loads(files.record.read_text())["status"] == "running"


def test_another_vendors_library_reports_on_the_ranks_devices(tmp_path: Path, libixml: Path) -> None:
    """Without NVML's own, and whatever CUDA_VISIBLE_DEVICES is."""
    telemetry = f"Telemetry({str(libixml)!r}, 2)"
    files, record = record_four_gpus(tmp_path, {}, telemetry=telemetry, CUDA_VISIBLE_DEVICES="")
    step = read_table(files.table("steps"), STEPS).iloc[0]
    assert (step["gpu_util_percent"], step["gpu_util_min_percent"]) == (15.0, 10.0)  # 10 and 20 %
    devices = read_table(files.table("devices"), DEVICES)
    assert set(devices["device"]) == {"gpu0", "gpu1", "cpu"}
    second = devices[devices["device"] == "gpu1"]
    assert set(second["uuid"]) == {"GPU-10000000-aaaa-bbbb-cccc-000000000001"}
    assert set(second["power_watts"]) == {200.2}
    assert set(second["energy_joules"]) == {2000.125}
    assert record.warnings == ()


def test_what_another_vendors_library_lacks_is_empty_in_the_rows(tmp_path: Path, libixml_with_less: Path) -> None:
    telemetry = f"Telemetry({str(libixml_with_less)!r}, 6)"
    files, record = record_four_gpus(tmp_path, {}, telemetry=telemetry)
    devices = read_table(files.table("devices"), DEVICES)
    first = devices[devices["device"] == "gpu0"]
    assert set(first["util_percent"]) == {10.0}
    assert set(first["memory_used_bytes"]) == {2 * 2**30}
    assert first[["energy_joules", "processes", "sm_util_percent", "jpeg_util_percent"]].isna().all(axis=None)
    # The stand-in's last device reports neither power nor temperature.
    short, *others = record.warnings
    assert short == f"telemetry of 4 of 6 devices only: {libixml_with_less} reports no others"
    assert {warning.partition(":")[0] for warning in others} == {"GPU 3 (Stand-in 80GB)"}


def test_a_library_that_is_gone_when_the_run_starts_costs_one_warning(tmp_path: Path) -> None:
    missing = tmp_path / "libixml.so"
    files, record = record_four_gpus(tmp_path, {}, telemetry=f"Telemetry({str(missing)!r}, 2)")
    assert set(read_table(files.table("devices"), DEVICES)["device"]) == {"cpu"}
    assert record.warnings == (
        f"no GPU telemetry: {missing}: cannot open shared object file: No such file or directory",
    )


def test_gpus_that_are_lost_in_the_middle_of_a_run_are_unknown_from_there_on(
    tmp_path: Path, nvml_standin: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    files, record = record_four_gpus(tmp_path, nvml_standin, LOSES_GPUS)
    before, behind = (row for _, row in read_table(files.table("steps"), STEPS).iterrows())
    assert before["gpu_util_percent"] == 25.0
    gpu_figures = ["gpu_util_percent", "gpu_util_min_percent", "gpu_util_max_percent", "jpeg_util_percent"]
    assert behind[gpu_figures].isna().all()
    assert 0 <= behind["cpu_util_percent"] <= 100
    devices = read_table(files.table("devices"), DEVICES)
    for device in ("gpu0", "gpu1"):
        last = devices[devices["device"] == device].iloc[-1]
        assert last.drop(["time_unix_seconds", "device", "name", "uuid", "throttle_reasons"]).isna().all()
        assert last["throttle_reasons"] == ""
    lost = [warning for warning in record.warnings if "GPU is lost" in warning and "GPU 3" not in warning]
    # One each; two for the GPU that was being asked at the moment it was lost.
    assert {warning.partition(":")[0] for warning in lost} == {"GPU 1 (Stand-in 80GB)", "GPU 2 (Stand-in 80GB)"}
    assert 2 <= len(lost) <= 3


class AskedSampler(Sampler):
    """Remembers the time it is asked about, and answers with it."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, float]] = []

    def window(self, start: float, end: float) -> WindowTelemetry:
        self.asked.append((start, end))
        return WindowTelemetry(start, None, None, end)


def test_a_step_is_joined_with_the_telemetry_of_its_own_time(tmp_path: Path) -> None:
    """Not of the time it is recorded at: a step is told about up to a block later."""
    sampler = AskedSampler()
    with TableWriter(tmp_path / "s.csv", STEPS) as steps, TableWriter(tmp_path / "e.csv", EPOCHS) as epochs:
        recorder = TableRecorder(steps, epochs, sampler)
        now = time.time() - time.perf_counter() + 10.0
        recorder.step(global_step(0, 2.0, 2.0), 10.0, phase="train", step=1)
        recorder.step(global_step(1, 5.5, 3.5), 10.0, phase="train", step=2)
    assert sampler.asked == [(10.0, 12.0), (12.0, 15.5)]
    table = read_table(tmp_path / "s.csv", STEPS)
    assert list(table["gpu_util_percent"]) == [10.0, 12.0]
    assert list(table["cpu_util_percent"]) == [12.0, 15.5]
    # Its end, and the time between two ends, as a time of day.
    assert list(table["time_unix_seconds"]) == pytest.approx([now + 2.0, now + 5.5], abs=1.0)
    assert table["time_unix_seconds"].diff()[1] == pytest.approx(3.5, abs=2e-6)


def test_a_node_that_does_not_record_can_be_followed(tmp_path: Path) -> None:
    """Case B9: what its progress bar needs of each step, and nothing else."""
    files = RunFiles(tmp_path, "it")
    with open_steps_recorder(files) as recorder:
        recorder.step(global_step(0, 1.0, 0.5), 0.0, phase="train", segment=1, epoch=1, step=7, learning_rate=0.1)
        recorder.epoch(epoch=1)
        recorder.step(global_step(1, 1.0, 0.5), 0.0, phase="evaluate", segment=2, epoch=1, step=1)
        # A checkpoint's rows are rank 0's.
        assert recorder.rows() == {}
    assert [path.name for path in tmp_path.iterdir()] == ["it.steps.csv"]
    steps = read_table(files.table(STEPS.name), STEPS)
    assert steps[["phase", "epoch", "step"]].to_numpy().tolist() == [["train", 1, 7], ["evaluate", 1, 1]]
    assert steps[["step_seconds", "fps"]].notna().all(axis=None)
    assert steps["loss"].isna().all()


def test_the_table_of_a_node_that_does_not_record_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "steps.csv"
    with TableWriter(path, STEPS) as table:
        recorder = StepsRecorder(table, max_steps=10)
        for number in range(95):
            recorder.step(global_step(number, 1.0, 0.5), 0.0, phase="train", epoch=1, step=number + 1)
    assert read_table(path, STEPS)["step"].tolist() == [91, 92, 93, 94, 95]


def test_a_run_does_without_a_table_that_can_t_be_written(tmp_path: Path) -> None:
    path = tmp_path / "steps.csv"
    with TableWriter(path, STEPS) as table:
        recorder = StepsRecorder(table, max_steps=1)
        recorder.step(global_step(0, 1.0, 0.5), 0.0, phase="train", step=1)
        path.unlink()
        for number in (1, 2):
            recorder.step(global_step(number, 1.0, 0.5), 0.0, phase="train", step=number + 1)
    assert not path.exists()
