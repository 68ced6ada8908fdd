"""Each quick check is ok where all is well, and finds its fault where the fault is put in."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.doctor import host, software
from harness.doctor.check import FAIL, OK, QUICK, SKIP, WARN, Check, Context, Finding
from harness.doctor.checks import CHECKS
from harness.doctor.isolation import run_isolated
from harness.machine.host import available_cores
from tests.support.small_disk import SmallDisk, fill, make_read_only

LIMIT_SECONDS = 60.0
HERE = Context()


def run(check: Callable[[Context], Finding], context: Context = HERE, /, **environment: str) -> Finding:
    return run_isolated(check, context, LIMIT_SECONDS, environment={**os.environ, **environment})


def project(folder: Path, *dependencies: str, python: str = ">=3.10") -> Context:
    """A context whose pyproject.toml asks for these."""
    path = folder / "pyproject.toml"
    listed = ", ".join(f'"{text}"' for text in dependencies)
    path.write_text(f'[project]\nname = "p"\nrequires-python = "{python}"\ndependencies = [{listed}]\n')
    return Context(project=str(path))


def distribution(folder: Path, name: str, version: str) -> None:
    """A package that is installed as far as its metadata say."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_python(tmp_path: Path) -> None:
    assert run(software.python).status == OK
    found = run(software.python, project(tmp_path, python=">=3.99"))
    assert (found.status, found.expected, found.cure) == (FAIL, ">=3.99", "make install PYTHON=python3.12")


def test_packages(tmp_path: Path) -> None:
    assert run(software.packages).status == OK
    found = run(software.packages, project(tmp_path, "numpy<1", "no-such-package>=2", "rich>=1"))
    assert found.status == FAIL
    assert found.expected == "numpy <1, no-such-package >=2"
    assert "no-such-package not installed" in found.found
    assert found.cure == "make install"


def test_both_of_paddles_packages(tmp_path: Path) -> None:
    assert run(software.paddle_package).status == OK
    distribution(tmp_path, "paddlepaddle", "3.3.1")
    distribution(tmp_path, "paddlepaddle-gpu", "3.3.1")
    found = run(software.paddle_package, PYTHONPATH=str(tmp_path))
    assert found.status == FAIL
    assert "are both installed" in found.reason
    assert "pip uninstall -y" in found.cure


def test_a_paddle_that_is_too_old(tmp_path: Path) -> None:
    distribution(tmp_path, "paddlepaddle", "2.6.2")
    found = run(software.paddle_package, PYTHONPATH=str(tmp_path))
    assert found.status == FAIL
    assert "2.6.2" in found.reason
    assert "pip install" in found.cure


def test_the_driver(nvml_standin: dict[str, str], tmp_path: Path) -> None:
    found = run(software.driver, **nvml_standin)
    assert (found.status, found.found.partition(",")[2]) == (OK, " 4 GPUs")
    none = run(software.driver, **nvml_standin, FAKE_NVML_COUNT="0")
    assert (none.status, none.reason) == (WARN, "the driver sees no GPU")


def test_a_driver_that_does_not_answer_is_no_skip(nvml_standin: dict[str, str], tmp_path: Path) -> None:
    mismatch = {**nvml_standin, "FAKE_NVML_INIT_ERROR": "18"}
    absent = run(software.driver, Context(root=str(tmp_path)), **mismatch)
    assert absent.status == SKIP
    assert "different versions" in absent.reason
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").touch()
    found = run(software.driver, Context(root=str(tmp_path)), **mismatch)
    assert found.status == FAIL
    assert "different versions" in found.found
    assert found.cure.startswith("nvidia-smi")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"FAKE_NVML_DRIVER": "470.199.02", "FAKE_NVML_CUDA": "11040"}, "470.199.02"),
        ({"FAKE_NVML_MIG": "1"}, "MIG mode"),
    ],
)
def test_gpus_that_do_not_fit(nvml_standin: dict[str, str], fault: dict[str, str], reason: str) -> None:
    environment = {**nvml_standin, **fault}
    found = run(software.driver, **environment)
    assert found.status == FAIL
    assert reason in found.reason
    assert found.cure
    assert run(software.gpu_processes, **environment).status == SKIP


def test_a_paddle_that_was_built_from_source(tmp_path: Path) -> None:
    distribution(tmp_path, "paddlepaddle", "0.0.0")
    found = run(software.paddle_package, PYTHONPATH=str(tmp_path))
    assert found.status == WARN
    assert "built from source" in found.reason


def test_processes_on_the_gpus(nvml_standin: dict[str, str]) -> None:
    found = run(software.gpu_processes, **nvml_standin)
    assert (found.status, found.found) == (WARN, "3 of 4 GPUs in use")
    assert "is also used by process" in found.reason
    assert "nvidia-smi" in found.cure
    assert run(software.gpu_processes, **nvml_standin, FAKE_NVML_COUNT="0").status == SKIP


def container(root: Path, **files: str) -> Context:
    """A root in which the process's control group has these files."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("0::/\n")
    (root / "sys/fs/cgroup").mkdir(parents=True)
    for name, text in files.items():
        (root / "sys/fs/cgroup" / name.replace("_", ".")).write_text(text)
    return Context(root=str(root))


def test_cores(tmp_path: Path) -> None:
    free = run(host.cores, container(tmp_path / "free"))
    assert free.status == (OK if available_cores() >= 2 else WARN)
    found = run(host.cores, container(tmp_path / "half", cpu_max="50000 100000\n"))
    assert (found.status, found.found.partition(" ")[0]) == (WARN, "0.5")
    assert "(quota 0.5)" in found.found
    assert found.cure


@pytest.mark.skipif(available_cores() < 2, reason="a quota of 1.5 cores needs two")
def test_a_quota_of_part_of_a_core(tmp_path: Path) -> None:
    found = run(host.cores, container(tmp_path, cpu_max="150000 100000\n"))
    assert found.status == WARN
    assert "quota" in found.reason


@pytest.mark.parametrize(("name", "status"), [("performance", OK), ("powersave", WARN), (None, SKIP)])
def test_the_governor(tmp_path: Path, name: str | None, status: str) -> None:
    folder = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq"
    folder.mkdir(parents=True)
    if name is not None:
        (folder / "scaling_governor").write_text(f"{name}\n")
    found = run(host.governor, Context(root=str(tmp_path)))
    assert found.status == status
    assert bool(found.cure) is (status == WARN)


@pytest.mark.parametrize(
    ("free_gib", "limit_gib", "status"),
    [(64, None, OK), (64, 2, WARN), (2, None, WARN), (0.5, None, FAIL), (64, 0.5, FAIL)],
)
def test_memory(tmp_path: Path, free_gib: float, limit_gib: float | None, status: str) -> None:
    files = {} if limit_gib is None else {"memory_max": f"{int(limit_gib * 2**30)}\n"}
    context = container(tmp_path, **files)
    kib = int(free_gib * 2**20)
    names = ("MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "Active", "Inactive", "SwapTotal", "SwapFree")
    (tmp_path / "proc/meminfo").write_text("".join(f"{name}: {kib} kB\n" for name in names))
    found = run(host.memory, context)
    assert found.status == status
    assert bool(found.cure) is (status != OK)


def test_shared_memory(tmp_path: Path, small_disk: SmallDisk) -> None:
    absent = run(host.shared_memory, Context(root=str(tmp_path)))
    assert (absent.status, absent.found) == (WARN, "no /dev/shm")
    (tmp_path / "dev").mkdir()
    for size_bytes, status in ((64 * 2**20, WARN), (2 * 2**30, OK)):
        (tmp_path / "dev/shm").unlink(missing_ok=True)
        (tmp_path / "dev/shm").symlink_to(small_disk(size_bytes))
        found = run(host.shared_memory, Context(root=str(tmp_path)))
        assert found.status == status
        assert ("--shm-size=1g" in found.cure) is (status == WARN)


def test_the_disk_of_results(tmp_path: Path, small_disk: SmallDisk) -> None:
    small, full, fixed = small_disk(512 * 2**20), small_disk(4 * 2**20), small_disk(2 * 2**30)
    found = run(host.disk, Context(results=str(small / "not" / "yet")))
    assert found.status == WARN
    assert "MB/s" in found.found
    assert list(small.iterdir()) == []
    fill(full)
    found = run(host.disk, Context(results=str(full)))
    assert (found.status, found.cure.partition(": ")[2]) == (FAIL, "--results /path/to/folder")
    make_read_only(fixed)
    found = run(host.disk, Context(results=str(fixed)))
    assert (found.status, found.reason) == (FAIL, "Read-only file system")


@pytest.fixture
def few_open_files() -> Iterator[None]:
    """At most 300 open files for what starts here."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("few_open_files")
def test_few_open_files() -> None:
    found = run(host.open_files)
    assert (found.status, found.found) == (WARN, "300 per process")
    assert found.cure.startswith("ulimit -n 1024")


def test_the_tests_have_enough_open_files() -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < host.GOOD_OPEN_FILES:
        pytest.skip("the limit of open files is lower here")
    assert run(host.open_files).status == OK


@pytest.mark.parametrize("check", [check for check in CHECKS if check.level == QUICK], ids=lambda check: check.id)
def test_quick_checks_load_neither_paddle_nor_dali(check: Check, tmp_path: Path) -> None:
    """Else they would take as long as these take to load."""
    loaded = tmp_path / "loaded"
    for name in ("paddle", "nvidia/dali"):
        package = tmp_path / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f"open({str(loaded)!r}, 'w')")
    found = run(check.function, PYTHONPATH=str(tmp_path))
    assert found.found or found.status == SKIP
    assert not loaded.exists()
