"""Paddle's wheels for GPUs: which of them fits a compute capability and a driver.

`python -m harness.machine.gpu_fit.wheels` says which one fits this machine, by what nvidia-smi reports. `make install`
has it installed that way, where Paddle is not there yet, so that this module needs nothing but Python.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass

PADDLE_GPU_VERSION = "3.3.1"
# Paddle's own index, because PyPI ends at paddlepaddle-gpu 2.6.2 (CUDA 11.8).
PADDLE_INDEX = "https://www.paddlepaddle.org.cn/packages/stable/"
SMI_SECONDS = 30.0

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Wheel:
    """A build of paddlepaddle-gpu: the name of its index, and what it runs on.

    Its kernels are for compute capabilities from oldest on, up to every one whose major number is newest. driver is
    the oldest driver that runs its CUDA.
    """

    name: str
    oldest: Version
    newest: int
    driver: Version

    @property
    def index(self) -> str:
        """The address of the index that has this build."""
        return f"{PADDLE_INDEX}{self.name}/"

    @property
    def cuda(self) -> Version:
        """Its CUDA: (12, 6) for cu126."""
        return int(self.name[2:4]), int(self.name[4:])

    @property
    def cuda_major(self) -> int:
        """The major version of its CUDA."""
        return self.cuda[0]

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f"pip install paddlepaddle-gpu=={PADDLE_GPU_VERSION} -i {self.index}"

    def runs_on(self, capability: Version) -> bool:
        """Whether it has kernels for a compute capability."""
        return capability >= self.oldest and capability[0] <= self.newest


# In the order of preference: the first one that fits is taken. Sources: cu126's kernels are for 6.1, 7.0, 7.5, 8.0 and
# 9.0, which newer GPUs of the same major number run; Paddle's maintainers name cu129 for RTX 50 (Paddle issue 76037).
# Drivers: NVIDIA, CUDA Compatibility, "Minor Version Compatibility"; 525.60.13 is CUDA 12.0's. CUDA 13 has dropped what
# is below 7.5.
WHEELS = (
    Wheel("cu126", (6, 1), 9, (525, 60, 13)),
    Wheel("cu129", (7, 5), 12, (525, 60, 13)),
    Wheel("cu130", (7, 5), sys.maxsize, (580,)),
)
DEFAULT = WHEELS[0]


@dataclass(frozen=True, slots=True)
class Found:
    """GPUs as nvidia-smi lists them: names and compute capabilities, and the driver's version."""

    names: tuple[str, ...]
    capabilities: tuple[Version, ...]
    driver: str


def parse_version(text: str) -> Version:
    """Returns the numbers of a version: (550, 54, 15) for "550.54.15"; empty without any."""
    return tuple(int(number) for number in re.findall(r"\d+", text))


def written(version: Version) -> str:
    """Returns a version as text."""
    return ".".join(str(number) for number in version)


def wheel_for(capabilities: Collection[Version], driver: Version | None = None) -> Wheel | None:
    """Returns the wheel for these GPUs and this driver (None: unknown); None if no wheel runs on all of them.

    If only the driver is too old, the wheel that needs the least is returned.
    """
    running = [wheel for wheel in WHEELS if all(wheel.runs_on(capability) for capability in capabilities)]
    fitting = [wheel for wheel in running if driver is None or driver >= wheel.driver]
    return next(iter([*fitting, *running]), None)


def found_by_nvidia_smi() -> Found | None:
    """Returns what nvidia-smi reports; None without it, or if it doesn't answer (drivers before 510 don't)."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=SMI_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
    if not rows or any(len(row) != 3 or not re.fullmatch(r"\d+\.\d+", row[1]) for row in rows):
        return None
    names, capabilities, drivers = zip(*rows, strict=True)
    return Found(names, tuple(parse_version(text) for text in capabilities), drivers[0])


def choose() -> tuple[Wheel, str]:
    """Returns the wheel for this machine's GPUs, and why."""
    found = found_by_nvidia_smi()
    if found is None:
        return DEFAULT, "nvidia-smi reports no GPU"
    gpus = ", ".join(
        dict.fromkeys(f"{name} ({written(cap)})" for name, cap in zip(found.names, found.capabilities, strict=True))
    )
    seen = f"{gpus}, driver {found.driver}"
    driver = parse_version(found.driver)
    wheel = wheel_for(found.capabilities, driver)
    if wheel is None:
        return DEFAULT, f"{seen}; no build that is known here runs on all of these GPUs: choose one with WHEEL="
    if driver < wheel.driver:
        return wheel, f"{seen}; the driver is too old: {written(wheel.driver)} or newer is needed"
    return wheel, seen


def pip_command(wheel: Wheel) -> list[str]:
    """Returns the command that installs a wheel into this Python."""
    # -I keeps the folder that the interpreter runs from out of pip's sight.
    pip = [sys.executable, "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    return [*pip, "--index-url", wheel.index, f"paddlepaddle-gpu=={PADDLE_GPU_VERSION}"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Say which of Paddle's builds fits this machine's GPUs and driver; with --install, install it."""
    named = {wheel.name: wheel for wheel in WHEELS}
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", nargs="?", choices=named, help="take this build")
    parser.add_argument("--install", action="store_true", help="install it into this Python")
    options = parser.parse_args(arguments)
    wheel, reason = choose() if options.name is None else (named[options.name], "as asked")
    print(f"Paddle's build for GPUs: {wheel.name} ({reason})", flush=True)
    if options.install:
        sys.exit(subprocess.run(pip_command(wheel), check=False).returncode)


if __name__ == "__main__":
    main()
