"""The real pynvml against fake_nvml.c, in another process; the values asserted are the ones that file lists."""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import ROOT
from harness.machine.nvml import Gpu, GpuSample, Nvml, NvmlUnavailable
from tests.support.nvml_standin import SOURCE, build_library

GIB = 2.0**30
PREAMBLE = """
import json, os
from dataclasses import asdict
from harness.machine.nvml import Gpu, GpuSample, Nvml, NvmlUnavailable
warnings = []
now = [0.0]
def clock():
    return now[0]
def show(value):
    print(json.dumps(value))
"""
# The first round has nothing that needs a sample before.
SAMPLES = """
rounds = []
with Nvml(warnings.append, clock) as nvml:
    for _ in range(1 + ROUNDS):
        now[0] += 0.5
        rounds.append([asdict(nvml.sample(gpu)) for gpu in nvml.gpus()])
assert all(one == rounds[1] for one in rounds[1:])
show([rounds[1], warnings])
"""


def ask(environment: dict[str, str], code: str) -> Any:
    """What the code shows, run in a process that has the environment."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PREAMBLE + code],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def sample_all(environment: dict[str, str], rounds: int = 1) -> tuple[list[GpuSample], list[str]]:
    samples, warnings = ask(environment, SAMPLES.replace("ROUNDS", str(rounds)))
    return [GpuSample(**sample) for sample in samples], warnings


def fail_one(standin: dict[str, str], query: str, fields: list[str], code: int) -> list[str]:
    """The warnings when one query of one of two GPUs fails, after a check that it costs these fields and no others."""
    environment = {**standin, "FAKE_NVML_COUNT": "2", "FAKE_NVML_FAIL": f"1:{query}:{code}"}
    (healthy, failing), warnings = sample_all(environment, rounds=3)
    assert None not in [getattr(healthy, field) for field in GpuSample.__slots__]
    assert [field for field in GpuSample.__slots__ if getattr(failing, field) is None] == fields
    return warnings


def test_every_gpu_is_described(nvml_standin: dict[str, str]) -> None:
    gpus, driver, warnings = ask(
        nvml_standin,
        """
with Nvml(warnings.append) as nvml:
    show([[asdict(gpu) for gpu in nvml.gpus()], nvml.driver_version(), warnings])
""",
    )
    assert [Gpu(**gpu) for gpu in gpus] == [
        Gpu(0, "GPU-00000000-aaaa-bbbb-cccc-000000000000", "Stand-in 80GB", "00000000:C1:00.0"),
        Gpu(1, "GPU-10000000-aaaa-bbbb-cccc-000000000001", "Stand-in 80GB", "00000000:17:00.0"),
        Gpu(2, "GPU-20000000-aaaa-bbbb-cccc-000000000002", "Stand-in 80GB", "00000000:31:00.0"),
        Gpu(3, "GPU-30000000-aaaa-bbbb-cccc-000000000003", "Stand-in 80GB", "00000000:65:00.0"),
    ]
    assert driver == "550.54.15"
    assert warnings == []


def test_samples_carry_every_value(nvml_standin: dict[str, str]) -> None:
    samples, _ = sample_all(nvml_standin)
    assert samples == [
        GpuSample(10.0, 1 * GIB, 80 * GIB, 100.25, 40.0, 1000.0, 2000.0, "", 5.0, 60.5, 30.25, 1000.125, 1),
        GpuSample(20.0, 2 * GIB, 80 * GIB, 200.25, 41.0, 1001.0, 2001.0, "GpuIdle", 10.0, 61.5, 31.25, 2000.125, 2),
        GpuSample(
            *(30.0, 3 * GIB, 80 * GIB, 300.25, 42.0, 1002.0, 2002.0, "SwPowerCap|HwThermalSlowdown", 15.0),
            *(None, None, 3000.125, 0),
        ),
        GpuSample(
            *(40.0, 4 * GIB, 80 * GIB, None, None, 1003.0, 2003.0, "Reliability|0x80000000", 20.0),
            *(None, None, None, 3),
        ),
    ]


def test_a_failing_query_is_unknown_and_warned_about_once(nvml_standin: dict[str, str]) -> None:
    samples, warnings = sample_all(nvml_standin, rounds=100)
    assert (samples[3].power_watts, samples[3].temperature_celsius) == (None, None)
    # Only later versions of nvidia-ml-py have the query that ends in V.
    assert [warning.replace("TemperatureV", "Temperature") for warning in warnings] == [
        "GPU 3 (Stand-in 80GB): power unknown, NVML failed (nvmlDeviceGetPowerUsage: Not Supported).",
        "GPU 3 (Stand-in 80GB): temperature unknown, NVML failed (nvmlDeviceGetTemperature: GPU is lost).",
    ]


@pytest.mark.parametrize(
    ("query", "fields", "what"),
    [
        ("util", ["util_percent"], "utilisation"),
        ("memory", ["memory_used_bytes", "memory_total_bytes"], "memory"),
        ("power", ["power_watts"], "power"),
        ("temperature", ["temperature_celsius"], "temperature"),
        ("sm_clock", ["sm_clock_mhz"], "SM clock"),
        ("memory_clock", ["memory_clock_mhz"], "memory clock"),
        ("reasons", ["throttle_reasons"], "throttle reasons"),
    ],
)
@pytest.mark.parametrize("code", [3, 15, 999, 12345])
def test_each_query_fails_by_itself(
    nvml_standin: dict[str, str], query: str, fields: list[str], what: str, code: int
) -> None:
    warnings = fail_one(nvml_standin, query, fields, code)
    assert len(warnings) == 1
    assert warnings[0].startswith(f"GPU 1 (Stand-in 80GB): {what} unknown")


OPTIONAL = [
    ("energy", ["energy_joules"], "energy"),
    ("processes", ["processes"], "processes"),
    ("gpm_support", ["sm_util_percent", "dram_util_percent"], "GPM support"),
    ("gpm_sample", ["sm_util_percent", "dram_util_percent"], "GPM sample"),
    ("gpm_metrics", ["sm_util_percent", "dram_util_percent"], "GPM metrics"),
    ("gpm_sm", ["sm_util_percent"], "SM utilisation"),
    ("gpm_dram", ["dram_util_percent"], "memory bandwidth"),
]


@pytest.mark.parametrize(
    ("query", "fields", "what"), [*OPTIONAL, ("jpeg", ["jpeg_util_percent"], "JPEG engine utilisation")]
)
@pytest.mark.parametrize("code", [15, 999, 12345])
def test_an_optional_query_that_fails_is_warned_about(
    nvml_standin: dict[str, str], query: str, fields: list[str], what: str, code: int
) -> None:
    warnings = fail_one(nvml_standin, query, fields, code)
    assert len(warnings) == 1
    assert warnings[0].startswith(f"GPU 1 (Stand-in 80GB): {what} unknown")


@pytest.mark.parametrize(("query", "fields"), [(query, fields) for query, fields, _ in OPTIONAL])
def test_an_optional_query_that_the_gpu_does_not_support_is_no_warning(
    nvml_standin: dict[str, str], query: str, fields: list[str]
) -> None:
    assert fail_one(nvml_standin, query, fields, 3) == []


def test_jpeg_engines_are_read_through_gpm_where_they_are_not_supported_otherwise(
    nvml_standin: dict[str, str],
) -> None:
    unsupported = ",".join(f"{device}:jpeg:3" for device in range(4))
    samples, warnings = sample_all({**nvml_standin, "FAKE_NVML_FAIL": unsupported}, rounds=3)
    # Two engines, 10 and 20 %; three, with 30 % on the third; no GPM.
    assert [sample.jpeg_util_percent for sample in samples] == [15.0, 20.0, None, None]
    assert len(warnings) == 2  # device 3's power and temperature
    environment = {**nvml_standin, "FAKE_NVML_COUNT": "1", "FAKE_NVML_FAIL": "0:jpeg:3,0:gpm_jpeg:3"}
    (without_engines,), warnings = sample_all(environment)
    assert without_engines.jpeg_util_percent is None
    assert warnings == []


def test_gpm_spans_from_one_sample_to_the_next(nvml_standin: dict[str, str]) -> None:
    """The stand-in answers for a device's consecutive samples, the older first, and for no others."""
    utils, warnings = ask(
        {**nvml_standin, "FAKE_NVML_COUNT": "2"},
        """
utils = []
with Nvml(warnings.append, clock) as nvml:
    gpus = nvml.gpus()
    for now[0], fails in ((0.0, ""), (0.05, ""), (0.5, ""), (0.59, ""), (1.0, "0:gpm_sample:15"), (1.5, ""), (2.0, "")):
        os.environ["FAKE_NVML_FAIL"] = fails
        utils.append([nvml.sample(gpu).sm_util_percent for gpu in gpus])
show([utils, warnings])
""",
    )
    assert utils == [
        *([None, None], [None, None], [60.5, 61.5], [60.5, 61.5], [None, 61.5], [60.5, 61.5], [60.5, 61.5]),
    ]
    assert warnings == [
        "GPU 0 (Stand-in 80GB): GPM sample unknown, NVML failed (nvmlGpmSampleGet: GPU is lost).",
    ]


def test_gpm_starts_again_with_nvml(nvml_standin: dict[str, str]) -> None:
    utils, warnings = ask(
        {**nvml_standin, "FAKE_NVML_COUNT": "1"},
        """
utils, nvml = [], Nvml(warnings.append, clock)
for _ in range(2):
    with nvml:
        gpu = nvml.gpus()[0]
        for _ in range(2):
            now[0] += 1.0
            utils.append(nvml.sample(gpu).sm_util_percent)
show([utils, warnings])
""",
    )
    assert utils == [None, 60.5, None, 60.5]
    assert warnings == []


@pytest.mark.parametrize("code", [3, 20])
def test_without_buffers_gpm_is_unknown(nvml_standin: dict[str, str], code: int) -> None:
    environment = {**nvml_standin, "FAKE_NVML_COUNT": "1", "FAKE_NVML_FAIL": f"-1:gpm_alloc:{code}"}
    (sample,), warnings = sample_all(environment, rounds=3)
    assert (sample.sm_util_percent, sample.dram_util_percent, sample.util_percent) == (None, None, 10.0)
    refused = "GPU 0 (Stand-in 80GB): GPM buffers unknown, NVML failed (nvmlGpmSampleAlloc: Insufficient Memory)."
    assert warnings == ([] if code == 3 else [refused])


def test_a_device_lost_after_it_was_listed_is_all_unknown(nvml_standin: dict[str, str]) -> None:
    sample, warnings = ask(
        {**nvml_standin, "FAKE_NVML_FAIL": "1:handle:15"},
        """
with Nvml(warnings.append) as nvml:
    lost = Gpu(1, "GPU-1", "Stand-in 80GB", "00000000:17:00.0")
    assert nvml.sample(lost) == nvml.sample(lost)
    show([asdict(nvml.sample(lost)), warnings])
""",
    )
    assert GpuSample(**sample) == GpuSample()
    assert set(sample.values()) == {None}
    assert warnings == ["GPU 1 (Stand-in 80GB): device unknown, NVML failed (nvmlDeviceGetHandleByIndex: GPU is lost)."]


def test_the_energy_counter_is_read_alone_too(nvml_standin: dict[str, str]) -> None:
    counters, lost, warnings = ask(
        nvml_standin,
        """
with Nvml(warnings.append, clock) as nvml:
    gpus = nvml.gpus()
    counters = [nvml.energy_joules(gpu) for gpu in gpus]
    os.environ["FAKE_NVML_FAIL"] = "1:energy:15"
    show([counters, nvml.energy_joules(gpus[1]), warnings])
""",
    )
    # Device 3 doesn't count it.
    assert counters == [1000.125, 2000.125, 3000.125, None]
    # The samples beside it warn.
    assert (lost, warnings) == (None, [])


def test_a_device_that_is_lost_between_two_samples_is_one_warning(nvml_standin: dict[str, str]) -> None:
    healthy, lost, found, warnings = ask(
        nvml_standin,
        """
with Nvml(warnings.append, clock) as nvml:
    gpu = nvml.gpus()[1]
    samples = [nvml.sample(gpu)]
    for failing in ("1:all:15", "1:all:15", ""):
        os.environ["FAKE_NVML_FAIL"] = failing
        now[0] += 0.5
        samples.append(nvml.sample(gpu))
    assert samples[1] == samples[2]
    show([asdict(samples[0]), asdict(samples[1]), asdict(samples[3]), warnings])
""",
    )
    assert set(lost.values()) == {None}
    # A driver that recovers is believed.
    assert found["util_percent"] == healthy["util_percent"] == 20.0
    assert len(warnings) == 1
    assert warnings[0].startswith("GPU 1 (Stand-in 80GB): energy, utilisation, memory, power, temperature, ")
    assert warnings[0].endswith(" unknown, NVML failed (nvmlDeviceGetTotalEnergyConsumption: GPU is lost).")


def test_a_device_that_cannot_be_reached_is_left_out_of_the_list(nvml_standin: dict[str, str]) -> None:
    indices, warnings = ask(
        {**nvml_standin, "FAKE_NVML_FAIL": "1:handle:4,2:name:999"},
        """
with Nvml(warnings.append) as nvml:
    show([[(gpu.index, gpu.name) for gpu in nvml.gpus()], warnings])
""",
    )
    assert indices == [[0, "Stand-in 80GB"], [2, ""], [3, "Stand-in 80GB"]]
    assert warnings == [
        "GPU 1: device unknown, NVML failed (nvmlDeviceGetHandleByIndex: Insufficient Permissions).",
        "GPU 2: name unknown, NVML failed (nvmlDeviceGetName: Unknown Error).",
    ]


def test_an_old_driver_is_asked_through_the_older_functions(nvml_standin_old_driver: dict[str, str]) -> None:
    samples, warnings = sample_all({**nvml_standin_old_driver, "FAKE_NVML_COUNT": "3"}, rounds=5)
    # The first version of the memory query counts the GiB that the driver reserves as used.
    assert samples[2] == GpuSample(
        *(30.0, 4 * GIB, 80 * GIB, 300.25, 42.0, 1002.0, 2002.0, "SwPowerCap|HwThermalSlowdown", None),
        *(None, None, 3000.125, 0),
    )
    assert [sample.processes for sample in samples] == [1, 2, 0]
    assert warnings == []


def test_a_binding_without_a_function_is_an_unknown_value(nvml_standin: dict[str, str]) -> None:
    sample, warnings = ask(
        {**nvml_standin, "FAKE_NVML_COUNT": "1"},
        """
import pynvml
for name in ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetJpgUtilization"):
    vars(pynvml).pop(name, None)
with Nvml(warnings.append) as nvml:
    show([asdict(nvml.sample(nvml.gpus()[0])), warnings])
""",
    )
    assert (sample["temperature_celsius"], sample["jpeg_util_percent"]) == (40.0, None)
    assert warnings == [
        "GPU 0 (Stand-in 80GB): JPEG engine utilisation unknown, NVML failed"
        " (nvmlDeviceGetJpgUtilization: not in this version of nvidia-ml-py)."
    ]


def test_an_error_inside_the_binding_is_an_unknown_value(nvml_standin: dict[str, str]) -> None:
    sample, warnings = ask(
        {**nvml_standin, "FAKE_NVML_COUNT": "1"},
        """
import pynvml
def broken(handle):
    raise ValueError("no such struct")
pynvml.nvmlDeviceGetPowerUsage = broken
with Nvml(warnings.append) as nvml:
    gpu = nvml.gpus()[0]
    assert nvml.sample(gpu) == nvml.sample(gpu)
    show([asdict(nvml.sample(gpu)), warnings])
""",
    )
    assert (sample["power_watts"], sample["util_percent"]) == (None, 10.0)
    assert warnings == [
        "GPU 0 (Stand-in 80GB): power unknown, NVML failed (nvmlDeviceGetPowerUsage: ValueError: no such struct)."
    ]


def test_it_opens_once_and_closes_for_good(nvml_standin: dict[str, str]) -> None:
    answers = ask(
        nvml_standin,
        """
import os
nvml = Nvml(warnings.append)
assert nvml.open() is nvml and nvml.open() is nvml
gpu = nvml.gpus()[0]
before = nvml.driver_version()
nvml.close()
nvml.close()
after = [nvml.driver_version(), asdict(nvml.sample(gpu)) == asdict(GpuSample())]
try:
    nvml.gpus()
except NvmlUnavailable as error:
    after.append(error.reason)
again = nvml.open().sample(gpu).util_percent
nvml.close()
os.environ["FAKE_NVML_FAIL"] = "0:handle:15"
lost_while_closed = nvml.open().sample(gpu).util_percent
show([before, after, again, lost_while_closed])
""",
    )
    assert answers == ["550.54.15", [None, True, "the GPUs can't be counted: Uninitialized"], 10.0, None]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (4, "no permission to use the driver"),
        (9, "driver not loaded"),
        (12, "libnvidia-ml.so.1 not found"),
        (18, "driver and libnvidia-ml.so.1 have different versions"),
        (999, "Unknown Error"),
    ],
)
def test_the_reason_why_nvml_is_unavailable(nvml_standin: dict[str, str], code: int, reason: str) -> None:
    answer = ask(
        {**nvml_standin, "FAKE_NVML_INIT_ERROR": str(code)},
        """
try:
    Nvml(warnings.append).open()
except NvmlUnavailable as error:
    show([str(error), error.reason])
""",
    )
    assert answer == [reason, reason]


def test_no_gpu_at_all_is_an_empty_list(nvml_standin: dict[str, str]) -> None:
    assert ask({**nvml_standin, "FAKE_NVML_COUNT": "0"}, "show(Nvml(warnings.append).open().gpus())") == []


# The values of samples through another library, and of samples through NVML's own after it.
OTHER_LIBRARY = """
rounds = []
for library in (LIBRARY, None, LIBRARY):
    with Nvml(warnings.append, clock, library) as nvml:
        for _ in range(2):
            now[0] += 0.5
            samples = [asdict(nvml.sample(gpu)) for gpu in nvml.gpus()]
        rounds.append([nvml.driver_version(), samples])
show([rounds, warnings])
"""


def test_another_library_takes_the_place_of_nvmls_and_gives_it_back(
    nvml_standin_old_driver: dict[str, str], libixml: Path
) -> None:
    """The other one has GPM and the memory without what the driver reserves; NVML's own is an old one without them."""
    code = OTHER_LIBRARY.replace("LIBRARY", repr(str(libixml)))
    rounds, warnings = ask({**nvml_standin_old_driver, "FAKE_NVML_COUNT": "2"}, code)
    assert [version for version, _ in rounds] == ["550.54.15"] * 3
    others, nvmls, again = ([GpuSample(**sample) for sample in samples] for _, samples in rounds)
    assert others == again == [
        GpuSample(10.0, 1 * GIB, 80 * GIB, 100.25, 40.0, 1000.0, 2000.0, "", 5.0, 60.5, 30.25, 1000.125, 1),
        GpuSample(20.0, 2 * GIB, 80 * GIB, 200.25, 41.0, 1001.0, 2001.0, "GpuIdle", 10.0, 61.5, 31.25, 2000.125, 2),
    ]  # fmt: skip
    assert [(sample.memory_used_bytes, sample.sm_util_percent) for sample in nvmls] == [
        (2 * GIB, None),
        (3 * GIB, None),
    ]
    assert warnings == []


def test_what_another_library_lacks_is_unknown_or_asked_of_an_older_function(libixml_with_less: Path) -> None:
    code = SAMPLES.replace("clock)", f"clock, {str(libixml_with_less)!r})").replace("ROUNDS", "3")
    samples, warnings = ask({"FAKE_NVML_COUNT": "1"}, code)
    unknown = {"jpeg_util_percent", "sm_util_percent", "dram_util_percent", "energy_joules", "processes"}
    assert {name for name, value in samples[0].items() if value is None} == unknown
    assert samples[0]["memory_used_bytes"] == 2 * GIB  # the older function counts what the driver reserves
    assert warnings == []


def test_a_library_without_a_function_that_has_no_older_one_costs_one_warning(libixml: Path, tmp_path: Path) -> None:
    less = build_library(tmp_path / "libixml.so", SOURCE, "-DnvmlDeviceGetPowerUsage=otherwise_named")
    code = SAMPLES.replace("clock)", f"clock, {str(less)!r})").replace("ROUNDS", "3")
    samples, warnings = ask({"FAKE_NVML_COUNT": "1"}, code)
    assert (samples[0]["power_watts"], samples[0]["util_percent"]) == (None, 10.0)
    assert warnings == [
        "GPU 0 (Stand-in 80GB): power unknown, NVML failed (nvmlDeviceGetPowerUsage: Function Not Found)."
    ]


OPEN_OTHER = """
try:
    Nvml(warnings.append, library=LIBRARY).open()
except NvmlUnavailable as error:
    show(error.reason)
"""


def test_another_library_that_cannot_start_says_why(libixml: Path) -> None:
    code = OPEN_OTHER.replace("LIBRARY", repr(str(libixml)))
    assert ask({"FAKE_NVML_INIT_ERROR": "9"}, code) == f"{libixml}: Driver Not Loaded"
    assert ask({"FAKE_NVML_INIT_ERROR": "77"}, code) == f"{libixml}: an error of the stand-in"


def test_after_another_library_failed_nvmls_own_is_used(nvml_standin: dict[str, str], libixml: Path) -> None:
    code = OPEN_OTHER.replace("LIBRARY", repr(str(libixml))).replace("show(error.reason)", "pass")
    used = """
os.environ["FAKE_NVML_INIT_ERROR"] = "0"
with Nvml(warnings.append) as nvml:
    show([len(nvml.gpus()), "libnvidia-ml.so.1" in pathlib.Path("/proc/self/maps").read_text()])
"""
    code = "import pathlib\n" + code + used
    assert ask({**nvml_standin, "FAKE_NVML_INIT_ERROR": "9"}, code) == [4, True]


def test_a_missing_file_and_a_library_of_another_kind_are_named(library_without_nvml: Path, tmp_path: Path) -> None:
    missing, text = tmp_path / "libixml.so", tmp_path / "text.so"
    text.write_text("not a library")
    for path, reason in (
        (missing, f"{missing}: cannot open shared object file: No such file or directory"),
        (text, f"{text}: file too short"),
        (library_without_nvml, f"{library_without_nvml} has no function nvmlInit_v2"),
    ):
        with pytest.raises(NvmlUnavailable) as caught:
            Nvml(library=str(path)).open()
        assert caught.value.reason == reason


def test_a_name_without_a_folder_is_a_file_of_this_folder(libixml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not the library of that name on the loader's path, where libupnp's has the name of Iluvatar's."""
    monkeypatch.chdir(libixml.parent)
    with Nvml(library=libixml.name) as nvml:
        assert len(nvml.gpus()) == 4


@pytest.mark.parametrize("name", ["nvmlLib", "_nvmlGetFunctionPointer_cache", "_nvmlGetFunctionPointer"])
def test_a_binding_that_keeps_its_library_elsewhere_is_no_reason_to_crash(libixml: Path, name: str) -> None:
    gone = f"import pynvml\ndel pynvml.{name}\n"
    looks_elsewhere = f"import pynvml\npynvml.{name} = lambda name: None\n"
    reason = "this version of nvidia-ml-py can't use another library than libnvidia-ml.so.1"
    code = OPEN_OTHER.replace("LIBRARY", repr(str(libixml)))
    assert ask({}, gone + code) == reason
    if name == "_nvmlGetFunctionPointer":
        assert ask({}, looks_elsewhere + code) == reason


def test_a_machine_without_a_driver_says_so() -> None:
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        pass
    else:
        pytest.skip("this machine has libnvidia-ml.so.1")
    with pytest.raises(NvmlUnavailable, match=r"^libnvidia-ml\.so\.1 not found$"):
        Nvml().open()


def test_a_sampler_hands_out_what_nvml_says(nvml_standin: dict[str, str]) -> None:
    rows, warnings, window = ask(
        nvml_standin,
        """
import threading
from harness.machine.host import HostProbe
from harness.machine.visible_gpus import visible_gpus
from harness.machine.sampler import Sampler

now, ended, rows = [100.0], threading.Event(), []
def wait(seconds):
    if now[0] + seconds > 109.0:
        ended.set()
        return True
    now[0] += seconds
    return False

with Nvml(warnings.append) as nvml:
    devices = [(f"gpu{rank}", gpu) for rank, gpu in enumerate(visible_gpus(nvml.gpus(), "2,3,0"))]
    sampler = Sampler(devices, nvml, HostProbe(), rows.append, warn=warnings.append, clock=lambda: now[0],
                      unix_clock=lambda: now[0] + 0.5, wait=wait)
    with sampler:
        assert ended.wait(60)
show([[asdict(row) for row in rows], warnings, asdict(sampler.window(100.0, 109.0))])
""",
    )
    # PCI bus order is 1, 2, 3, 0.
    columns = ["time_unix_seconds", "device", "uuid", "util_percent", "power_watts", "jpeg_util_percent"]
    assert [[row[column] for column in columns] for row in rows[36:39]] == [
        [109.5, "gpu0", "GPU-30000000-aaaa-bbbb-cccc-000000000003", 40.0, None, 20.0],
        [109.5, "gpu1", "GPU-00000000-aaaa-bbbb-cccc-000000000000", 10.0, 100.25, 5.0],
        [109.5, "gpu2", "GPU-10000000-aaaa-bbbb-cccc-000000000001", 20.0, 200.25, 10.0],
    ]
    assert len(rows) == 40
    assert len(warnings) == 2
    assert (window["gpu_util_min_percent"], window["gpu_util_max_percent"]) == (10.0, 40.0)
    assert window["gpu_util_percent"] == pytest.approx(70.0 / 3.0)


def test_nothing_else_in_the_project_reaches_nvml() -> None:
    sources = [path for folder in ("harness", "models", "pipelines") for path in (ROOT / folder).rglob("*.py")]
    reaching = [
        path.relative_to(ROOT).as_posix()
        for path in [ROOT / "run_bench.py", *sources]
        if path.exists() and re.search(r"^\s*(import|from)\s+pynvml", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert reaching == ["harness/machine/nvml.py"]
