"""The installed build of Paddle for GPUs: its CUDA, and the compute capabilities that it has kernels for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from harness.machine.gpu_fit.wheels import Version, parse_version

PADDLE_GPU = "paddlepaddle-gpu"
# What Paddle's build writes about itself; read as text, because importing Paddle takes seconds.
VERSION_FILE = "paddle/version/__init__.py"
# The packages that bring a build's CUDA, in its requirements.
CUDA_REQUIRED = re.compile(r"(?:nvidia-cuda-runtime(?:-cu\d+)?|cuda-toolkit)(?:\[[^\]]*\])? *\(?==(\d+\.\d+)")
# The toolkits that brought or dropped kernels, by NVIDIA's release notes: 12.8 brought Blackwell's, 13.0 dropped those
# below 7.5.
BLACKWELL_CUDA, BLACKWELL = (12, 8), 10
TURING_CUDA, TURING = (13,), (7, 5)


@dataclass(frozen=True, slots=True)
class Build:
    """A build of Paddle for GPUs. cuda is its toolkit's version, and kernels what it has; empty where it is unknown."""

    version: str
    cuda: Version = ()
    kernels: tuple[Version, ...] = ()

    @property
    def title(self) -> str:
        """Its name in messages."""
        cuda = f" (CUDA {'.'.join(map(str, self.cuda[:2]))})" if self.cuda else ""
        return f"{PADDLE_GPU} {self.version}{cuda}"

    def lacks(self, capability: Version) -> bool:
        """Whether it certainly has no kernel that a GPU of this compute capability can run.

        A kernel runs on GPUs of its own major number and of the same minor number or a higher one. Without a list of
        kernels, the toolkit decides.
        """
        if self.kernels:
            return not any(kernel[0] == capability[0] and kernel <= capability for kernel in self.kernels)
        if not self.cuda:
            return False
        too_new = capability[0] >= BLACKWELL and self.cuda < BLACKWELL_CUDA
        return too_new or (capability < TURING and self.cuda >= TURING_CUDA)


def installed_build() -> Build | None:
    """Returns the installed build of Paddle for GPUs; None if there is none."""
    try:
        package = distribution(PADDLE_GPU)
    except PackageNotFoundError:
        return None
    text = _version_text(package)
    stated = re.search(r"^cuda_version\s*=\s*'(\d+\.\d+)[\d.]*'", text, re.MULTILINE)
    cuda = parse_version(stated[1]) if stated is not None else _cuda_of_metadata(package)
    listed = re.search(r"^compiled_cuda_archs\s*=\s*\[([\d, ]*)\]", text, re.MULTILINE)
    # 61 is 6.1, 120 is 12.0.
    kernels = tuple(divmod(int(number), 10) for number in re.findall(r"\d+", listed[1])) if listed is not None else ()
    return Build(package.version, cuda, kernels)


def _version_text(package: Distribution) -> str:
    try:
        return Path(str(package.locate_file(VERSION_FILE))).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _cuda_of_metadata(package: Distribution) -> Version:
    """Returns the toolkit's version by a local version or a post-release (3.3.1+cu126, 2.6.2.post120), or by what the
    build requires; empty if neither tells it.
    """
    labelled = re.search(r"(?:\+cu|\.post)(\d\d)(\d)$", package.version)
    if labelled is not None:
        return int(labelled[1]), int(labelled[2])
    for requirement in package.requires or ():
        required = CUDA_REQUIRED.match(requirement)
        if required is not None:
            return parse_version(required[1])
    return ()
