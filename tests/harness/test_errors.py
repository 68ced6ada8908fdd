from __future__ import annotations

import pytest

from harness.errors import (
    DATA_EXIT_CODE,
    INTERRUPTED_EXIT_CODE,
    BenchError,
    GateError,
    InvariantError,
    MachineError,
    TrainingError,
    UsageError,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [(BenchError, 1), (GateError, 1), (UsageError, 2), (MachineError, 3), (TrainingError, 5), (InvariantError, 1)],
)
def test_every_error_has_its_exit_code(error: type[BenchError], code: int) -> None:
    assert error("wrong").exit_code == code
    assert issubclass(error, BenchError)


def test_the_other_exit_codes() -> None:
    assert DATA_EXIT_CODE == 4
    assert INTERRUPTED_EXIT_CODE == 75


def test_an_error_carries_message_and_cure_apart() -> None:
    error = UsageError("5 is too many; 4 at most", "Use 4.")
    assert (error.message, error.cure, str(error)) == ("5 is too many; 4 at most", "Use 4.", "5 is too many; 4 at most")
    assert UsageError("5 is too many").cure == ""
