"""Compiles fake_nvml.c into a libnvidia-ml.so.1, so that the real pynvml sees four known GPUs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "fake_nvml.c"


def build_nvml_standin(folder: Path, *compiler_options: str) -> dict[str, str]:
    """Environment under which a process that starts finds the stand-in. Skips the test where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (gcc or cc) to build the NVML stand-in with")
    library = folder / "libnvidia-ml.so.1"
    options = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{library.name}", *compiler_options]
    built = subprocess.run([compiler, *options, "-o", library, SOURCE], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    paths = [str(folder), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {"LD_LIBRARY_PATH": os.pathsep.join(paths)}


@pytest.fixture(scope="session")
def nvml_standin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment to merge into a subprocess's; see fake_nvml.c for the variables that change what it reports."""
    return build_nvml_standin(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def nvml_standin_old_driver(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """As nvml_standin, without the functions that drivers before 535 lack."""
    return build_nvml_standin(tmp_path_factory.mktemp("nvml-old"), "-DOLD_DRIVER")
