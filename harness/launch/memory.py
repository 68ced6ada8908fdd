"""Whether an error, or the log of a process that ended, says that memory ran out."""

from __future__ import annotations

import re

# Paddle 3.3.1 (strings of libphi_core.so; its ResourceExhausted reaches Python as MemoryError), DALI 2.4
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
MAX_SAID = 200


def out_of_memory(error: BaseException) -> str | None:
    """What an error says of memory that ran out, in one line; None if it is another error. Its causes count."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        said = memory_line(str(link))
        if said is not None:
            return said
        if isinstance(link, MemoryError):
            return "MemoryError"
        link = link.__cause__ or link.__context__
    return None


def memory_line(text: str) -> str | None:
    """The line of a text that says that memory ran out, the most telling one; None if none does."""
    lines = [line.strip() for line in text.splitlines() if OUT_OF_MEMORY.search(line)]
    if not lines:
        return None
    # Paddle's headline has no figures, the line below it has.
    return next((line for line in lines if re.search(r"\d", line)), lines[0])[:MAX_SAID]
