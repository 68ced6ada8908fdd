"""A worker's large buffers are mapped from the kernel, whatever free blocks its parent had."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness import ROOT

# A free block of 200 MB, as a process may have after it freed much memory below a block that it still uses.
SCRIPT = """
import ctypes
from pipelines.free_blocks import LARGE_BYTES, use_up_large_free_blocks
library = ctypes.CDLL(None)
if not hasattr(library, "mallinfo2"):
    raise SystemExit("no glibc")
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
library.free.argtypes = (ctypes.c_void_p,)
M_MMAP_MAX = -4
assert use_up_large_free_blocks() == 0
library.mallopt(M_MMAP_MAX, 0)
block = library.malloc(200 << 20)
kept = library.malloc(100_000)
library.free(block)
library.mallopt(M_MMAP_MAX, 65_536)
print((200 << 20) // LARGE_BYTES, use_up_large_free_blocks(), use_up_large_free_blocks())
library.mallopt(M_MMAP_MAX, 0)
print(use_up_large_free_blocks())
"""


def test_free_blocks_are_used_up_once() -> None:
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    if "no glibc" in found.stderr:
        pytest.skip("the C library isn't glibc")
    # Where nothing is ever mapped, the heap would grow for ever.
    assert found.stdout.split("\n")[:2] == ["6 6 0", "0"], found.stderr
