"""What ended the ranks, from their logs: NCCL's errors as Paddle 3.3.1 words them (phi/core/enforce.h in its wheel)."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import MachineError, TrainingError
from harness.launch.failures import death
from harness.launch.rank_monitor import RankExit
from models.errors import ActionableError
from tests.support.plans import a_plan

# build_nvidia_error_msg: the code, ncclGetErrorString's words, and after ENOSPC and EAGAIN errno's words and advice.
ADVICE = (
    "Please try one of the following solutions:\n1. export NCCL_SHM_DISABLE=1;\n2. export NCCL_P2P_LEVEL=SYS;\n"
    "3. Increase shared memory by setting the -shm-size option when starting docker container, e.g., setting "
    " -shm-size=2g.\n"
)
SYSTEM = "NCCL error(2), unhandled system error (run with NCCL_DEBUG=INFO for details). "
REMOTE = "NCCL error(6), remote process exited or there was a network error. "
HINT = "\n  [Hint: Please search for the error code({}) on website ...] (at /paddle/nccl_comm_context.cc:90)\n"


def ended(folder: Path, log: str, *, nodes: int = 1) -> ActionableError:
    """The error for a GPU rank that printed this before it ended with exit code 1."""
    (folder / "workerlog.1").write_text(f"Traceback (most recent call last):\nOSError: (External) {log}", "utf-8")
    plan = a_plan(device="gpu", nodes=nodes, ranks=2 * nodes)
    return death(folder, plan, RankExit(1, 1, 1), 1, folder / "kept")


@pytest.mark.parametrize(
    "log",
    [
        REMOTE + HINT.format(6),
        REMOTE + " Detail: Resource temporarily unavailable\n" + ADVICE,
        SYSTEM + HINT.format(2),
        "Failed, NCCL error /paddle/phi/nccl_tools.cc:38 'remote process exited or there was a network error'\n",
    ],
)
def test_a_lost_node_is_told_by_the_words_of_nccl(tmp_path: Path, log: str) -> None:
    error = ended(tmp_path, log, nodes=2)
    assert isinstance(error, TrainingError)
    assert error.message == "a node was lost: the connection of rank 1 to another node broke"
    assert "Rank 1 ended with exit code 1." in error.cure


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (REMOTE + HINT.format(6), "remote process exited or there was a network error"),
        (SYSTEM + HINT.format(2), "unhandled system error (run with NCCL_DEBUG=INFO for details)"),
        ("Failed, NCCL error /paddle/a.cc:38 'invalid usage'\n", "invalid usage"),
        # A socket leaves EAGAIN, so that Paddle's advice about shared memory says nothing here.
        (REMOTE + " Detail: Resource temporarily unavailable\n" + ADVICE, "remote process exited or there was a"),
    ],
)
def test_on_one_machine_the_words_of_nccl_are_the_hint(tmp_path: Path, log: str, words: str) -> None:
    error = ended(tmp_path, log)
    assert isinstance(error, TrainingError)
    assert error.message == "rank 1 ended with exit code 1"
    assert error.cure.startswith(f"NCCL reported: {words}")


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize(
    "log",
    [
        SYSTEM + " Detail: No space left on device\n" + ADVICE,
        "x\nhost:7:9 [0] misc/shmutils.cc:112 NCCL WARN Error while creating shared memory segment /dev/shm/nccl-zT"
        f" (size 5967872)\n{SYSTEM}",
    ],
)
def test_shared_memory_that_is_too_small_is_the_machines_fault(tmp_path: Path, log: str, nodes: int) -> None:
    error = ended(tmp_path, log, nodes=nodes)
    assert isinstance(error, MachineError)
    assert error.message.startswith("NCCL found no room in /dev/shm")
    assert "docker run --shm-size=2g" in error.cure
    assert "export NCCL_SHM_DISABLE=1" in error.cure


def test_a_cuda_error_inside_nccl_is_the_devices_failure(tmp_path: Path) -> None:
    error = ended(tmp_path, "NCCL error(1), unhandled cuda error (run with NCCL_DEBUG=INFO for details). \n")
    assert isinstance(error, MachineError)
    assert error.message.startswith("the device of rank 1 failed: NCCL error(1), unhandled cuda error")


def test_a_rank_that_never_spoke_of_nccl_has_no_such_hint(tmp_path: Path) -> None:
    error = ended(tmp_path, "something else\n")
    assert error.message == "rank 1 ended with exit code 1"
    assert "NCCL" not in error.cure
