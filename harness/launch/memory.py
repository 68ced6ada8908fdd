"""Recognises that memory ran out, from an error or from the log of a process that ended."""

from __future__ import annotations

import re

# Messages of Paddle 3.3.1 (strings of libphi_core.so; its ResourceExhausted reaches Python as MemoryError), DALI 2.4
# (CUDABadAlloc), CUDA, cuDNN and cuBLAS, numpy, and C++ itself.
OUT_OF_MEMORY = re.compile(
    r"ResourceExhausted"
    r"|Out of memory error on "
    r"|Fail to alloc memory of \d+ size"
    r"|Cannot allocate \S+ (?:memory )?(?:on|in) "
    r"|CUDA allocation failed"
    r"|CUDABadAlloc"
    r"|cudaErrorMemoryAllocation|CUDA(?: runtime)? (?:API )?error[^\n]*out of memory|CUDA_ERROR_OUT_OF_MEMORY"
    r"|CUDNN_STATUS_ALLOC_FAILED|CUBLAS_STATUS_ALLOC_FAILED"
    r"|std::bad_alloc"
    r"|Unable to allocate \S+ \S+ for an array"
    r"|\bMemoryError\b"
)
# A plugin may call this any failure (Iluvatar's: C_ERROR), so that only the frame in Paddle's stack tells it. Paddle
# prints the stack with the flags of `harness.machine.device_kinds.plugin`.
FAILED_ALLOCATION = re.compile(
    r"phi::CustomDevice::MemoryAllocate.*?(CustomDevice error, the error code is : \d+)", re.DOTALL
)
MAX_LINE_CHARS = 200


def out_of_memory(error: BaseException) -> str | None:
    """Returns the line of an error, or of its causes, that says that memory ran out; None for other errors."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        line = memory_line(str(link))
        if line is not None:
            return line
        if isinstance(link, MemoryError):
            return "MemoryError"
        link = link.__cause__ or link.__context__
    return None


def memory_line(text: str) -> str | None:
    """Returns the most informative line of a text that says that memory ran out; None if there is none."""
    lines = [line.strip() for line in text.splitlines() if OUT_OF_MEMORY.search(line)]
    if not lines:
        failed = FAILED_ALLOCATION.search(text)
        return None if failed is None else f"{failed[1]}, as memory was allocated"
    # Paddle's headline has no figures, but the line below it has.
    return next((line for line in lines if re.search(r"\d", line)), lines[0])[:MAX_LINE_CHARS]
