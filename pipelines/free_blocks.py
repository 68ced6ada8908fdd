"""Large free blocks that a forked process has from its parent, by chance: they decide how fast OpenCV decodes in it."""

from __future__ import annotations

import ctypes

# glibc maps buffers beyond this from the kernel, and gives them back when they are free, unless a free block fits.
LARGE_BYTES = 33 << 20
_FIELDS = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip


class _Memory(ctypes.Structure):
    """What glibc's mallinfo2 returns: arena is the heap's size, hblks the number of mapped buffers."""

    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS]


def use_up_large_free_blocks() -> int:
    """Take the heap's large free blocks out of use, without touching them. Returns their number.

    Where one is left, every buffer for a picture of 11 megapixels or more is made of it, and its pages are there
    already; otherwise they are mapped for each picture, and one of 12 megapixels takes 76 ms instead of 46. A process
    that has forked has such a block or not, depending on what its parent did before. Does nothing where the C library
    isn't glibc 2.33 or later.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        return 0
    library.mallinfo2.restype = _Memory
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    library.free.argtypes = (ctypes.c_void_p,)
    taken = 0
    while True:
        before = library.mallinfo2()
        block = library.malloc(LARGE_BYTES)
        after = library.mallinfo2()
        if block is None or after.hblks > before.hblks or after.arena > before.arena:
            library.free(block)
            return taken
        taken += 1
