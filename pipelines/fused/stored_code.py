"""Functions that DALI calls in its threads: compiled once for a processor, and kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from numba import cfunc, types
from numba.core.caching import FunctionCache

from pipelines.quick_loading import quick_loading

_shapes, _counts = types.CPointer(types.CPointer(types.int64)), types.CPointer(types.int32)
_tensors = (types.CPointer(types.voidptr), _shapes, _counts, types.int32)
# What DALI calls for a batch: shapes of the outputs, then of the inputs, tensor by tensor, each with the number of
# dimensions of a tensor and the number of tensors; and the batch's size.
SETUP = types.void(*_tensors[1:], *_tensors[1:], types.int32)
# What it calls for a sample: addresses and shapes of the outputs, then of the inputs.
RUN = types.void(*_tensors, *_tensors)
# The same for a batch, tensor by tensor, with its size.
RUN_BATCH = types.void(*_tensors, *_tensors, types.int32)

# Machine code lives as long as what numba returned.
_kept: list[Any] = []


@cache
def address(signature: Any, function: Callable[..., None]) -> int:
    """The address of a function's machine code, from disk if it was compiled before for this processor.

    Stored code that can't be read is replaced. Where code can't be stored, it is compiled for this process alone.
    """
    # numba loads most of its modules with the first function.
    with quick_loading():
        made = _made(signature, function)
    _kept.append(made)
    return int(made.address)


def _made(signature: Any, function: Callable[..., None]) -> Any:
    # Whatever is the matter with the function itself is the matter without a store, too.
    try:
        return _stored_code(signature, function)
    except Exception:
        try:
            FunctionCache(function).flush()
            return _stored_code(signature, function)
        except Exception:
            return cfunc(signature, nopython=True)(function)


def _stored_code(signature: Any, function: Callable[..., None]) -> Any:
    return cfunc(signature, nopython=True, cache=True)(function)
