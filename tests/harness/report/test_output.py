"""Output that nobody reads, or that can't be written, ends nothing."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from harness import ROOT

SCRIPT = """
import sys
from pathlib import Path
from harness.report.output import tolerate_lost_output
output = tolerate_lost_output()
sys.stdin.readline()
for number in range(10_000):
    print("line", number, flush=number % 100 == 99)
print("to standard error", file=sys.stderr)
lost = output.flushed()
Path(sys.argv[1]).write_text(f"done: {lost}")
"""


def end_of(process: subprocess.Popen[bytes], told: Path) -> str:
    """What the script has written at its end, once its output has no reader any more."""
    assert process.stdin is not None
    process.stdin.write(b"go\n")
    process.stdin.close()
    assert process.wait(60) == 0
    return told.read_text(encoding="utf-8")


def start(folder: Path, output: int) -> subprocess.Popen[bytes]:
    """The script, which waits for a line before it prints. The descriptor is its output and its errors."""
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder / "told")], cwd=ROOT, stdin=subprocess.PIPE,
                            stdout=output, stderr=output)  # fmt: skip


@pytest.mark.parametrize("opened", [os.pipe, pty.openpty], ids=["pipe", "terminal"])
def test_a_process_goes_on_without_a_reader(tmp_path: Path, opened: object) -> None:
    """Case D4: a pipe into `head`, and a terminal that was closed."""
    reader, writer = opened()  # type: ignore[operator]
    process = start(tmp_path, writer)
    os.close(writer)
    os.close(reader)
    assert end_of(process, tmp_path / "told") == "done: "


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """Case D4: here somebody wanted the output."""
    with Path("/dev/full").open("wb") as full:
        assert end_of(start(tmp_path, full.fileno()), tmp_path / "told") == "done: No space left on device"


def test_what_has_a_reader_arrives_whole(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("wb") as stream:
        assert end_of(start(tmp_path, stream.fileno()), tmp_path / "told") == "done: "
    assert path.read_text(encoding="utf-8").splitlines() == [*(f"line {n}" for n in range(10_000)), "to standard error"]


@pytest.mark.parametrize("arguments", [["--help"], ["compare", "bi_v100", "bi_v100"], ["--gpus", "0"]])
@pytest.mark.parametrize("output", ["/dev/full", "pipe"])
def test_commands_end_quietly(arguments: list[str], output: str) -> None:
    """Case D4. Their own exit code stays; only a success whose output is lost on a full disk is none."""
    reader, pipe = os.pipe()
    os.close(reader)
    full = os.open("/dev/full", os.O_WRONLY)
    done = subprocess.run([sys.executable, ROOT / "run_bench.py", *arguments], stderr=subprocess.PIPE, text=True,
                          stdout=pipe if output == "pipe" else full, timeout=60, check=False)  # fmt: skip
    os.close(pipe)
    os.close(full)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    if arguments[0] == "--gpus":
        assert done.returncode == 2
    elif output == "pipe":
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert done.returncode == 3
        assert "the output is incomplete: No space left on device" in done.stderr


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_no_file_of_a_run_gets_the_number_of_a_closed_descriptor(closed: int) -> None:
    """Case D4: `run_bench.py ... >&-`, as some services start programs."""
    script = (
        f"import os; os.close({closed})\n"
        "from harness.report.output import tolerate_lost_output\n"
        "tolerate_lost_output()\n"
        "assert os.open('/dev/null', os.O_RDONLY) > 2"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
