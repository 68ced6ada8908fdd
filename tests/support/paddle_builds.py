"""Builds of Paddle for GPUs as they look once installed: their metadata, and what they say about themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.support.seen import python_path

ONE_BUILD = """
from importlib import metadata

of_any = metadata.version

def version(package):
    if package == "paddlepaddle":
        raise metadata.PackageNotFoundError(package)
    return of_any(package)

metadata.version = version
"""


def install_build(
    folder: Path,
    version: str = "3.3.1",
    *,
    cuda: str | None = None,
    kernels: Sequence[int] = (),
    requires: Sequence[str] = (),
    package: str = "paddlepaddle-gpu",
    alone: bool = False,
) -> dict[str, str]:
    """Environment of a process that finds the build in this folder.

    cuda and kernels are written as setup.py of Paddle 3.3.1 writes them; without cuda that file is missing. alone: the
    process doesn't find the build that the tests run with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if alone:
        (folder / "sitecustomize.py").write_text(ONE_BUILD, encoding="utf-8")
    metadata = folder / f"{package.replace('-', '_')}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {package}", f"Version: {version}"]
    metadata.write_text("\n".join([*lines, *(f"Requires-Dist: {text}" for text in requires), ""]), encoding="utf-8")
    if cuda is not None:
        of_paddle = folder / "paddle" / "version" / "__init__.py"
        of_paddle.parent.mkdir(parents=True)
        of_paddle.write_text(
            f"full_version     = '{version}'\ncuda_version     = '{cuda}'\ncudnn_version    = '9.5.1'\n"
            f"compiled_cuda_archs     = {list(kernels)}\n",
            encoding="utf-8",
        )
    return {"PYTHONPATH": python_path(folder)}
