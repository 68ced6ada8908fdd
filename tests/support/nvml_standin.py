"""Compiles fake_nvml.c into a libnvidia-ml.so.1 or another library, so that the real pynvml sees four known GPUs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "fake_nvml.c"


def build_nvml_standin(folder: Path, *compiler_options: str) -> dict[str, str]:
    """Environment under which a process that starts finds the stand-in. Skips the test where there is no compiler."""
    build_library(folder / "libnvidia-ml.so.1", SOURCE, *compiler_options)
    paths = [str(folder), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {"LD_LIBRARY_PATH": os.pathsep.join(paths)}


def build_library(library: Path, source: Path = SOURCE, *compiler_options: str) -> Path:
    """The library, compiled from the source. Skips the test where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (gcc or cc) to build the NVML stand-in with")
    options = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{library.name}", *compiler_options]
    built = subprocess.run([compiler, *options, "-o", library, source], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return library


@pytest.fixture(scope="session")
def nvml_standin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment to merge into a subprocess's; see fake_nvml.c for the variables that change what it reports."""
    return build_nvml_standin(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def nvml_standin_old_driver(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """As nvml_standin, without the functions that drivers before 535 lack."""
    return build_nvml_standin(tmp_path_factory.mktemp("nvml-old"), "-DOLD_DRIVER")


@pytest.fixture(scope="session")
def libixml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in as another vendor's library, with every function of NVML."""
    return build_library(tmp_path_factory.mktemp("ixml") / "libixml.so")


@pytest.fixture(scope="session")
def libixml_with_less(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without functions that another vendor's library may lack."""
    return build_library(tmp_path_factory.mktemp("ixml-less") / "libixml.so", SOURCE, "-DOTHER_VENDOR", "-DOLD_DRIVER")


@pytest.fixture(scope="session")
def library_without_nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of that name that has other functions, as the one of libupnp has."""
    folder = tmp_path_factory.mktemp("upnp")
    (folder / "ixml.c").write_text("int ixmlParseBuffer(void) { return 0; }\n")
    return build_library(folder / "libixml.so", folder / "ixml.c")
