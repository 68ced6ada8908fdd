from __future__ import annotations

import pytest

from harness.launch.memory import out_of_memory

# Paddle 3.3.1, CPU: what paddle.zeros([2**33]) raises within 6 GiB.
CPU = """(ResourceExhausted) Fail to alloc memory of 34359738368 size, error code is 12.
  [Hint: Expected error == 0, but received error:12 != 0:0.]
"""
# Paddle, GPU: PaddlePaddle/Paddle#42228.
GPU = """ResourceExhaustedError:

Out of memory error on GPU 0. Cannot allocate 98.000244MB memory on GPU 0, 6.000000GB memory has been allocated and\
 available memory is only 0.000000B.

Please check whether there is any other process using GPU 0.
1. If yes, please stop them, or start PaddlePaddle on another GPU.
2. If no, please decrease the batch size of your model.
"""
# Paddle, a plugin that calls every failure C_ERROR, with FLAGS_call_stack_level=2 (frames left out).
PLUGIN = """

--------------------------------------
C++ Traceback (most recent call last):
--------------------------------------
14  paddle::memory::allocation::Allocator::Allocate(unsigned long)
15  paddle::memory::allocation::CustomAllocator::AllocateImpl(unsigned long)
16  phi::CustomDevice::MemoryAllocate(unsigned long, unsigned long)
18  common::enforce::GetCurrentTraceBackString[abi:cxx11](bool)

----------------------
Error Message Summary:
----------------------
ExternalError:  CustomDevice error, the error code is : 3.  (at /paddle/paddle/phi/backends/custom/custom_device.cc:387)
"""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(CPU), "(ResourceExhausted) Fail to alloc memory of 34359738368 size, error code is 12."),
        (RuntimeError(GPU), "Out of memory error on GPU 0. Cannot allocate 98.000244MB memory on GPU 0, 6.000000GB"),
        (MemoryError(), "MemoryError"),
        (MemoryError("Unable to allocate 64.0 GiB for an array with shape (8589934592,)"), "Unable to allocate 64.0"),
        (RuntimeError("std::bad_alloc"), "std::bad_alloc"),
        (RuntimeError("CUDA allocation failed\nCurrent pipeline object is no longer valid."), "CUDA allocation failed"),
        (
            RuntimeError("CUDA runtime API error cudaErrorMemoryAllocation (2):\nout of memory"),
            "CUDA runtime API error",
        ),
        (OSError("(External) CUDNN error(2), CUDNN_STATUS_ALLOC_FAILED."), "(External) CUDNN error(2)"),
        (OSError(PLUGIN), "CustomDevice error, the error code is : 3, as memory was allocated"),
    ],
)
def test_memory_that_ran_out_is_known_by_what_libraries_say(error: BaseException, said: str) -> None:
    found = out_of_memory(error)
    assert found is not None
    assert found.startswith(said)
    assert len(found) <= 200
    assert "\n" not in found


def test_the_cause_of_an_error_counts() -> None:
    """DALI's errors reach the harness as errors of the data."""
    error = ValueError("DALI could not decode a batch: x.jpg")
    error.__cause__ = RuntimeError("[/opt/dali/core/mm] CUDA allocation failed")
    assert out_of_memory(error) == "[/opt/dali/core/mm] CUDA allocation failed"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("memory of 3 steps"),
        RuntimeError("Connection reset by peer"),
        OSError("[Errno 28] No space left on device"),
        RuntimeError("CUDA error(719), unspecified launch failure."),
        OSError(PLUGIN.replace("MemoryAllocate", "MemoryCopyH2D")),
    ],
)
def test_other_errors_are_not_about_memory(error: BaseException) -> None:
    assert out_of_memory(error) is None
