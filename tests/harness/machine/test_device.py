"""Which devices a run gets. No GPU is touched: NVML is a stand-in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

import harness.machine.device
from harness import ROOT
from harness.errors import MachineError
from harness.machine.device import (
    Devices,
    check_paddle,
    choose_devices,
    cudnn_tf32,
    installed_version,
    local_rank,
    worker_environment,
)
from harness.machine.nvml import Gpu
from tests.support.paddle_builds import install_build

NO_GPUS = {"CUDA_VISIBLE_DEVICES": ""}
UUIDS = [f"GPU-{index}0000000-aaaa-bbbb-cccc-00000000000{index}" for index in range(4)]

# choose_devices for each (kind, count, CUDA_VISIBLE_DEVICES or null) of the first argument.
CHOOSE = """
import json, sys
from dataclasses import asdict
from harness.machine.device import choose_devices
from harness.errors import MachineError
answers = []
for kind, count, visible in json.loads(sys.argv[1]):
    try:
        devices, notices = choose_devices(kind, count, {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
        answers.append([asdict(devices), list(notices)])
    except MachineError as error:
        answers.append([error.message, error.cure])
print(json.dumps(answers))
"""


def choose(environment: dict[str, str], *cases: tuple[str, int | None, str | None]) -> list[Any]:
    """Devices and notices, or message and cure, in a process that has the environment."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHOOSE, json.dumps(cases)],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    return answers


def with_cores(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    monkeypatch.setattr(harness.machine.device, "available_cores", lambda: cores)


def with_packages(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    """Only these packages are installed; their names have underscores for dashes."""

    def version(package: str) -> str:
        found = versions.get(package.replace("-", "_"))
        if found is None:
            raise PackageNotFoundError(package)
        return found

    monkeypatch.setattr(harness.machine.device, "version", version)


@pytest.fixture
def gpu_build(tmp_path: Path) -> dict[str, str]:
    """Environment in which paddlepaddle-gpu seems to be installed: its metadata is, which is all that is looked at."""
    return install_build(tmp_path)


@pytest.mark.parametrize(
    ("cores", "count", "ranks", "notices"),
    [
        (64, None, 4, ()),
        (2, None, 2, ()),
        (64, 16, 16, ()),
        (2, 2, 2, ()),
        (2, 3, 3, ("3 ranks share 2 cores",)),
    ],
)
def test_cpus(
    monkeypatch: pytest.MonkeyPatch, cores: int, count: int | None, ranks: int, notices: tuple[str, ...]
) -> None:
    with_cores(monkeypatch, cores)
    assert choose_devices("cpu", count, {}) == (Devices("cpu", ranks, "CPU"), notices)
    assert choose_devices("cpu", count, {}, look=False) == (Devices("cpu", ranks, "CPU"), notices)


def test_a_dry_run_takes_the_gpus_that_are_asked_for_as_given() -> None:
    assert choose_devices("auto", 4, NO_GPUS, look=False) == (Devices("gpu", 4, "GPU"), ())
    assert choose_devices("gpu", None, NO_GPUS, look=False) == (Devices("gpu", 1, "GPU"), ())
    assert choose_devices("gpu", 5, NO_GPUS, look=False) == (Devices("gpu", 5, "GPU"), ())


@pytest.mark.parametrize("look", [True, False])
def test_auto_without_a_gpu_is_the_cpu_with_a_notice(monkeypatch: pytest.MonkeyPatch, look: bool) -> None:
    with_cores(monkeypatch, 3)
    devices, (notice,) = choose_devices("auto", None, NO_GPUS, look=look)
    assert devices == Devices("cpu", 3, "CPU")
    assert notice.startswith("no GPU (")
    assert notice.endswith("): training on the CPU with 3 ranks")


@pytest.mark.parametrize(
    ("kind", "count", "wanted", "ranks"),
    [("gpu", None, "1 GPU", 1), ("gpu", 1, "1 GPU", 1), ("auto", 2, "2 GPUs", 2), ("auto", 8, "8 GPUs", 3)],
)
def test_gpus_that_are_asked_for_and_not_there(
    monkeypatch: pytest.MonkeyPatch, kind: str, count: int | None, wanted: str, ranks: int
) -> None:
    with_cores(monkeypatch, 3)
    with pytest.raises(MachineError) as caught:
        choose_devices(kind, count, NO_GPUS)
    assert caught.value.message.startswith(f"{wanted} requested, 0 found (")
    assert caught.value.cure == f"To run on this machine's CPU instead: --device cpu --gpus {ranks}"


def test_gpus_that_are_there(nvml_standin: dict[str, str], gpu_build: dict[str, str]) -> None:
    """The stand-in's PCI order is 1, 2, 3, 0."""
    every, two, visible, by_name, five, three_of_two, none = choose(
        {**nvml_standin, **gpu_build},
        ("auto", None, None),
        ("gpu", 2, None),
        ("auto", None, "3,0"),
        ("gpu", 1, "GPU-2"),
        ("auto", 5, None),
        ("gpu", 3, "0,1"),
        ("gpu", None, ""),
    )
    assert [gpu["index"] for gpu in every[0]["gpus"]] == [1, 2, 3, 0]
    assert (every[0]["kind"], every[0]["count"], every[0]["name"]) == ("gpu", 4, "Stand-in 80GB")
    assert (two[0]["count"], [gpu["uuid"] for gpu in two[0]["gpus"]]) == (2, UUIDS[1:3])
    assert (visible[0]["count"], [gpu["uuid"] for gpu in visible[0]["gpus"]]) == (2, [UUIDS[0], UUIDS[1]])
    assert [gpu["uuid"] for gpu in by_name[0]["gpus"]] == [UUIDS[2]]
    assert five[0] == "5 GPUs requested, 4 found"
    assert "--device cpu --gpus " in five[1]
    assert three_of_two[0] == "3 GPUs requested, 2 found"
    assert none[0] == "1 GPU requested, 0 found (NVML finds no GPU that CUDA_VISIBLE_DEVICES allows)"


def test_gpus_under_the_cpu_build_of_paddle(nvml_standin: dict[str, str]) -> None:
    if installed_version("paddlepaddle-gpu") is not None:
        pytest.skip("the GPU build is installed here")
    asked_of_newer = choose({**nvml_standin, "FAKE_NVML_CAPABILITY": "1:100"}, ("auto", 1, "0"))
    assert asked_of_newer[0][1].endswith("-i https://www.paddlepaddle.org.cn/packages/stable/cu129/")
    fallback, asked = choose(nvml_standin, ("auto", None, None), ("auto", 4, None))
    assert fallback[0]["kind"] == "cpu"
    assert fallback[1][0].startswith("no GPU (the installed paddlepaddle is the CPU build): training on the CPU with ")
    assert asked == [
        "4 GPUs found, but the installed paddlepaddle is the CPU build",
        "Install the GPU build: pip uninstall -y paddlepaddle && pip install paddlepaddle-gpu==3.3.1"
        " -i https://www.paddlepaddle.org.cn/packages/stable/cu126/",
    ]


def test_the_workers_environment_on_gpus() -> None:
    given = {"HOME": "/home/me", "CUDA_VISIBLE_DEVICES": "1,0", "OMP_NUM_THREADS": "64"}
    gpus = (Gpu(1, "GPU-b", "X", "00000000:17:00.0"), Gpu(0, "GPU-a", "X", "00000000:C1:00.0"))
    assert worker_environment(Devices("gpu", 2, "X", gpus), 6, given) == {
        "HOME": "/home/me",
        "CUDA_VISIBLE_DEVICES": "GPU-b,GPU-a",
        "OMP_NUM_THREADS": "6",
        "PADDLE_DISTRI_BACKEND": "nccl",
        "CUSTOM_DEVICE_ROOT": "",
        "FLAGS_cudnn_exhaustive_search": "True",
        "FLAGS_cudnn_batchnorm_spatial_persistent": "True",
    }
    assert given == {"HOME": "/home/me", "CUDA_VISIBLE_DEVICES": "1,0", "OMP_NUM_THREADS": "64"}


def test_idle_threads_on_cpus_sleep_soon_unless_the_user_says_otherwise() -> None:
    devices = Devices("cpu", 1, "X")
    assert worker_environment(devices, 6, {})["KMP_BLOCKTIME"] == "1"
    assert worker_environment(devices, 6, {"KMP_BLOCKTIME": "200"})["KMP_BLOCKTIME"] == "200"


def test_cudnn_s_settings_are_defaults_that_the_user_overrides() -> None:
    given = {"FLAGS_cudnn_exhaustive_search": "False", "CUSTOM_DEVICE_ROOT": "/plugins", "PADDLE_DISTRI_BACKEND": "x"}
    found = worker_environment(Devices("gpu", 2, "X"), 6, given)
    assert found["FLAGS_cudnn_exhaustive_search"] == "False"
    assert found["FLAGS_cudnn_batchnorm_spatial_persistent"] == "True"
    # What must hold for the run's ranks to start stays as it is.
    assert (found["CUSTOM_DEVICE_ROOT"], found["PADDLE_DISTRI_BACKEND"]) == ("", "nccl")


@pytest.mark.parametrize(
    ("tf32", "own", "left"),
    [
        ("off", None, "0"),
        ("off", "1", "0"),
        ("on", "0", None),
        ("on", None, None),
        (None, "0", "0"),
        (None, None, None),
    ],
)
def test_tf32_is_forbidden_to_all_libraries_or_to_none(tf32: str | None, own: str | None, left: str | None) -> None:
    given = {} if own is None else {"NVIDIA_TF32_OVERRIDE": own}
    found = worker_environment(Devices("gpu", 1, "X"), 1, given, tf32)
    assert found.get("NVIDIA_TF32_OVERRIDE") == left


def test_whether_cudnn_may_use_tf32_is_read_from_paddle_and_the_environment() -> None:
    from paddle.base import core

    assert core.get_cudnn_switch()
    assert [cudnn_tf32("gpu", {"NVIDIA_TF32_OVERRIDE": value}) for value in ("0", "1")] == [False, True]
    assert cudnn_tf32("gpu", {}) is True
    core.set_cudnn_switch(False)
    try:
        assert cudnn_tf32("gpu", {}) is False
    finally:
        core.set_cudnn_switch(True)
    assert cudnn_tf32("cpu", {"NVIDIA_TF32_OVERRIDE": "0"}) is None


def test_the_workers_environment_on_cpus() -> None:
    given = {"HOME": "/home/me", "CUDA_VISIBLE_DEVICES": "0"}
    assert worker_environment(Devices("cpu", 2, "CPU"), 3, given) == {
        "HOME": "/home/me",
        "OMP_NUM_THREADS": "3",
        "PADDLE_DISTRI_BACKEND": "gloo",
        "CUSTOM_DEVICE_ROOT": "",
        "KMP_BLOCKTIME": "1",
    }
    assert given == {"HOME": "/home/me", "CUDA_VISIBLE_DEVICES": "0"}
    assert worker_environment(Devices("cpu", 1, "CPU"), 1, {})["PADDLE_DISTRI_BACKEND"] == "gloo"


@pytest.mark.parametrize(
    "versions",
    [
        {"paddlepaddle": "3.2.0"},
        {"paddlepaddle": "3.2.0rc1"},
        {"paddlepaddle": "3.10.0"},
        {"paddlepaddle": "10.0"},
        {"paddlepaddle_gpu": "3.3.1"},
        {"paddlepaddle_iluvatar": "3.3.0"},
    ],
)
def test_a_paddle_that_serves(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]) -> None:
    with_packages(monkeypatch, **versions)
    assert check_paddle() == ()


@pytest.mark.parametrize(
    ("versions", "package"),
    [
        ({"paddlepaddle": "0.0.0"}, "paddlepaddle 0.0.0"),
        ({"paddlepaddle_gpu": "0.0.0.post126"}, "paddlepaddle-gpu 0.0.0.post126"),
    ],
)
def test_a_paddle_built_from_source_serves_with_a_notice(
    monkeypatch: pytest.MonkeyPatch, versions: dict[str, str], package: str
) -> None:
    with_packages(monkeypatch, **versions)
    assert check_paddle() == (f"{package} was built from source: its version is unknown, and 3.2 or newer is needed",)


@pytest.mark.parametrize("cpu", ["3.3.1", "2.6.2", "0.0.0"])
def test_both_of_paddles_packages_at_once_are_refused(monkeypatch: pytest.MonkeyPatch, cpu: str) -> None:
    with_packages(monkeypatch, paddlepaddle_gpu="3.3.1", paddlepaddle=cpu)
    with pytest.raises(MachineError) as caught:
        check_paddle()
    assert caught.value.message == (
        f"paddlepaddle-gpu 3.3.1 and paddlepaddle {cpu} are both installed: they have the same files, of which the one"
        " installed last has overwritten the other's"
    )
    assert caught.value.cure.splitlines() == [
        "Uninstall both: pip uninstall -y paddlepaddle-gpu paddlepaddle",
        "Then install one. On a CPU: pip install 'paddlepaddle>=3.2'",
        "On GPUs: pip install paddlepaddle-gpu==3.3.1 -i https://www.paddlepaddle.org.cn/packages/stable/cu126/",
    ]


@pytest.mark.parametrize(
    ("versions", "wrong", "cure"),
    [
        (
            {"paddlepaddle_gpu": "2.6.2"},
            "paddlepaddle-gpu 2.6.2 is too old; 3.2 or newer is needed",
            "pip install paddlepaddle-gpu==3.3.1 -i https://www.paddlepaddle.org.cn/packages/stable/cu126/",
        ),
        (
            {"paddlepaddle": "3.1.9"},
            "paddlepaddle 3.1.9 is too old; 3.2 or newer is needed",
            "pip install 'paddlepaddle>=3.2'",
        ),
        ({"paddlepaddle_gpu": "2.6.2.post120"}, "paddlepaddle-gpu 2.6.2.post120", "-i https"),
    ],
)
def test_a_paddle_that_is_too_old(
    monkeypatch: pytest.MonkeyPatch, versions: dict[str, str], wrong: str, cure: str
) -> None:
    with_packages(monkeypatch, **versions)
    with pytest.raises(MachineError) as caught:
        check_paddle()
    assert wrong in caught.value.message
    assert cure in caught.value.cure


def test_no_paddle_at_all_is_told_both_ways_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with_packages(monkeypatch)
    with pytest.raises(MachineError) as caught:
        check_paddle()
    assert caught.value.message == "Paddle isn't installed"
    assert caught.value.cure.splitlines() == [
        "On a CPU: pip install 'paddlepaddle>=3.2'",
        "On GPUs: pip install paddlepaddle-gpu==3.3.1 -i https://www.paddlepaddle.org.cn/packages/stable/cu126/",
    ]


def test_versions_of_packages() -> None:
    assert installed_version("pytest") == pytest.__version__
    assert installed_version("no-such-package-here") is None


def test_the_local_rank_is_the_launcher_s() -> None:
    assert local_rank({"PADDLE_LOCAL_RANK": "3", "PADDLE_TRAINER_ID": "7"}) == 3
    assert local_rank({}) == 0
