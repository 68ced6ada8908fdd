"""Which kernels of oneDNN ran, counted from what it prints when ONEDNN_VERBOSE is set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# oneDNN prints to the process's standard output; the process prints this line before each call.
CALL_MARK = "latency-call"
EXECUTED = "exec"
# The first field of its lines, by version.
VERBOSE = ("onednn_verbose", "dnnl_verbose")


@dataclass(frozen=True, slots=True)
class KernelUse:
    """One implementation of one primitive: its executions in a call, and their milliseconds, means over the calls."""

    primitive: str
    implementation: str
    executions: float
    milliseconds: float


@dataclass(frozen=True, slots=True)
class KernelProfile:
    """What oneDNN executed in a call of one size with one engine, the longest first.

    instructions is the instruction set that oneDNN says it uses; empty where it printed nothing, so that nothing of it
    ran. milliseconds is the median of the whole call while oneDNN printed, which takes time between its kernels.
    """

    size: str
    engine: str
    instructions: str
    milliseconds: float
    kernels: tuple[KernelUse, ...]

    @property
    def kernel_ms(self) -> float:
        """The milliseconds of a call in which kernels of oneDNN ran."""
        return sum(kernel.milliseconds for kernel in self.kernels)


def kernels_in(printed: str, skip_calls: int = 0) -> tuple[KernelUse, ...]:
    """Returns the kernels that ran, the longest first, of what was printed between the marks of calls.

    The first calls are left out, in which weights are put into the layout of the kernels. A line of oneDNN's is
    `onednn_verbose,v1,primitive,exec,cpu,convolution,brgconv_1x1:avx512_core,...,0.02`, whose last field are
    milliseconds; versions before 3 lack the fields `v1,primitive`. Lines without milliseconds are skipped.
    """
    calls = printed.split(CALL_MARK)[1 + skip_calls :]
    found: dict[tuple[str, str], list[float]] = {}
    for line in "\n".join(calls).splitlines():
        fields = line.strip().split(",")
        if fields[0] not in VERBOSE or EXECUTED not in fields[1:5]:
            continue
        place = fields.index(EXECUTED)
        try:
            milliseconds = float(fields[-1])
            primitive, implementation = fields[place + 2], fields[place + 3]
        except (ValueError, IndexError):
            continue
        found.setdefault((primitive, implementation), []).append(milliseconds)
    uses = [KernelUse(*key, len(times) / len(calls), sum(times) / len(calls)) for key, times in found.items()]
    return tuple(sorted(uses, key=lambda use: -use.milliseconds))


def instructions_in(printed: str) -> str:
    """Returns the instruction set that oneDNN says it uses, such as "Intel AVX2"; empty if it printed none."""
    lines = (line.partition("cpu,isa:")[2] for line in printed.splitlines() if "_verbose" in line)
    return next((line.strip() for line in lines if line), "")


def by_primitive(kernels: Sequence[KernelUse]) -> dict[str, float]:
    """Returns the milliseconds of a call for each primitive, the longest first."""
    totals: dict[str, float] = {}
    for kernel in kernels:
        totals[kernel.primitive] = totals.get(kernel.primitive, 0.0) + kernel.milliseconds
    return dict(sorted(totals.items(), key=lambda item: -item[1]))
