"""Compiles the stand-in accelerator (standin/), says how a process gets it, and reads what it counts.

A process that starts in `environment()` has the devices "standin:0" and "standin:1", or others as its options say.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import struct
import subprocess
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
from filelock import FileLock

SOURCES = Path(__file__).parent / "standin"

OPTIONS = {
    "name": "the devices' type, as Paddle is to know it; standin if left out",
    "devices": "how many there are; 2 if left out",
    "delay_ms": "each queued task begins after a random time up to this",
    "seed": "of the random times",
    "copy_ms": "how long a copy to the device takes on any stream but the default one",
    "copy_bytes": "from how many bytes on copy_ms holds; 4096 if left out",
    "memory_bytes": "how much memory a device has; 16 GiB are reported if left out, and none refused",
    "allocation_error": "1: an allocation that fails is an error of the device, not memory that ran out",
    "blocking_events": "1: the host waits where it records an event or has a stream wait for one, and query() waits for"
    " the device, as with Paddle's plugin for Iluvatar",
    "fail": "failures to inject, such as alloc@40,rank1:hang@200: each begins at the operation of that number, counted"
    " from 1, and lasts. alloc (allocations): none succeeds. hang (operations): the device never does another. lost"
    " (operations): every call returns an error. collective_error (collectives): they return an error."
    " collective_hang (collectives): they never end. rankN: holds for that rank alone",
    "counters": "path: rank N counts in the file path.N what it does",
}


@dataclass(frozen=True, slots=True)
class Counters:
    """What a process has asked of its devices; the fields are in the order of standin/settings.h.

    h2d, d2h and d2d are copies from the host, to the host and on the device, *_queued those among them that are given
    to a stream; of these the host waits for d2h alone. operations are the pieces of work that devices have begun.
    """

    h2d: int
    h2d_bytes: int
    h2d_queued: int
    d2h: int
    d2h_bytes: int
    d2h_queued: int
    d2d: int
    d2d_queued: int
    memset: int
    synchronize_device: int
    synchronize_stream: int
    synchronize_event: int
    stream_wait_event: int
    collectives: int
    allocations: int
    operations: int
    live_bytes: int
    peak_bytes: int

    @property
    def waits(self) -> int:
        """How often the host waited for the device other than for a copy.

        Paddle synchronizes the stream once for every copy that isn't queued, and so around every operator that it
        computes on the CPU. numpy() and float() of a tensor synchronize once more, which counts here.
        """
        copies = self.h2d + self.d2h + self.d2d - (self.h2d_queued + self.d2h_queued + self.d2d_queued)
        return self.synchronize_stream - copies + self.synchronize_device + self.synchronize_event

    def __sub__(self, earlier: Counters) -> Counters:
        """What was counted since; live_bytes and peak_bytes are differences too."""
        return Counters(*(getattr(self, field.name) - getattr(earlier, field.name) for field in fields(self)))


def read_counters(prefix: str | Path, rank: int = 0) -> Counters:
    """Returns what a rank has counted so far, with the option counters=prefix."""
    data = Path(f"{prefix}.{rank}").read_bytes()
    return Counters(*struct.unpack(f"{len(fields(Counters))}Q", data))


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A compiled stand-in, in its own folder."""

    folder: Path

    def environment(self, **options: str | float | Path) -> dict[str, str]:
        """Returns the variables under which a process has the stand-in, set with OPTIONS."""
        if unknown := sorted(options.keys() - OPTIONS.keys()):
            raise TypeError(f"the stand-in accelerator has no option {', '.join(unknown)}; it has {', '.join(OPTIONS)}")
        # With its kernels of strides Paddle asks every device for one that makes tensors contiguous.
        variables = {"CUSTOM_DEVICE_ROOT": str(self.folder), "FLAGS_use_stride_kernel": "0"}
        return variables | {f"STANDIN_{name.upper()}": str(value) for name, value in options.items()}

    @staticmethod
    def counters(prefix: str | Path, rank: int = 0) -> Counters:
        """As read_counters."""
        return read_counters(prefix, rank)


def build(folder: Path) -> Path:
    """Compile the stand-in, unless the folder has it; returns the folder for CUSTOM_DEVICE_ROOT.

    Processes may share the folder. Skips the test where there is no compiler.
    """
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler (g++ or c++) to build the stand-in accelerator with")
    headers = _paddle_headers()
    sources = [*sorted(SOURCES.iterdir()), headers / "paddle/phi/backends/device_ext.h"]
    digest = hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    target = folder / f"standin-{digest}"
    library = target / "libpaddle-standin.so"
    target.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "standin.lock"):
        if not library.exists():
            # Under another name first, so that what has the name is whole. nodelete: Paddle unloads the library as it
            # ends, while threads of streams still run.
            unfinished = library.with_suffix(".unfinished")
            options = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-Wl,-z,nodelete"]
            files = [
                "-isystem",
                str(headers),
                str(SOURCES / "accelerator.cc"),
                "-lpthread",
                "-ldl",
                "-o",
                str(unfinished),
            ]
            built = subprocess.run([compiler, *options, *files], capture_output=True, text=True, check=False)
            assert built.returncode == 0, built.stderr
            unfinished.replace(library)
    return target


def _paddle_headers() -> Path:
    paddle = importlib.util.find_spec("paddle")
    assert paddle is not None
    assert paddle.origin is not None
    return Path(paddle.origin).parent / "include"


@pytest.fixture(scope="session")
def accelerator(tmp_path_factory: pytest.TempPathFactory) -> Accelerator:
    """The stand-in accelerator, compiled once for all processes that share the tests."""
    folder = tmp_path_factory.getbasetemp()
    return Accelerator(build(folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder))
