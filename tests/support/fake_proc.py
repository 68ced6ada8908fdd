"""A folder that stands in for /proc."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.machine.processes import RunProcesses


class FakeProc:
    """A /proc to write processes into. Times are given in clock ticks, and read back in seconds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 0.0

    def write(
        self, pid: int, parent: int, user: int, system: int = 0, *, waited: tuple[int, int] = (0, 0),
        read_bytes: int | None = 0, started: int = 7, name: str = "python",
    ) -> None:  # fmt: skip
        (self.folder / str(pid)).mkdir(exist_ok=True)
        times = f"{user} {system} {waited[0]} {waited[1]}"
        (self.folder / str(pid) / "stat").write_text(
            f"{pid} ({name}) S {parent} 1 1 0 -1 4194304 1 2 3 4 {times} 20 0 1 0 {started} 1000 200\n"
        )
        io = self.folder / str(pid) / "io"
        io.unlink(missing_ok=True)
        if read_bytes is not None:
            io.write_text(f"rchar: 999\nwchar: 1\nread_bytes: {read_bytes}\nwrite_bytes: 5\ncancelled_write_bytes: 0\n")

    def end(self, pid: int) -> None:
        shutil.rmtree(self.folder / str(pid))

    def clock(self) -> float:
        return self.now

    def processes(self, root_pid: int) -> RunProcesses:
        return RunProcesses(root_pid, proc=self.folder, clock=self.clock)
