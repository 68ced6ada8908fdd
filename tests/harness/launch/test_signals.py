"""What a process does when a signal arrives that asks it to end."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from harness import ROOT
from harness.launch.signals import STOP_SIGNALS

BEGIN = """
import signal, sys, time
from harness.launch import signals
def arrive(*numbers):
    for number in numbers:
        signal.raise_signal(number)
"""


def said(script: str, prefix: tuple[str, ...] = ()) -> tuple[int, str]:
    """Exit code and output of the script, which knows `signals` and what lets some arrive."""
    done = subprocess.run([*prefix, sys.executable, "-c", BEGIN + script], cwd=ROOT, text=True, timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)  # fmt: skip
    return done.returncode, done.stdout


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_command_is_interrupted_once(number: int) -> None:
    """Case B4: what follows does not disturb its end, whatever it is."""
    assert said(f"""
signals.listen()
try:
    arrive({int(number)})
except KeyboardInterrupt:
    arrive(*signals.STOP_SIGNALS, {int(number)})
    print("saved")
""") == (0, "saved\n")


def test_a_second_ctrl_c_that_is_meant_so_interrupts_once_more() -> None:
    assert said("""
signals.listen()
signals.AGAIN_SECONDS = 0.05
for wait in (0.0, 0.1, 0.1):
    time.sleep(wait)
    try:
        arrive(signal.SIGINT)
        print("goes on")
    except KeyboardInterrupt:
        print("interrupted")
""") == (0, "interrupted\ninterrupted\ngoes on\n")


def test_nohup_s_run_goes_on_without_its_terminal() -> None:
    """Case B4. Every other signal still ends it; so it is in a rank, and the launcher's ranks inherit it."""
    script = """
signals.{how}()
arrive(signal.SIGHUP)
print("goes on", flush=True)
arrive(signal.{number})
"""
    assert said(script.format(how="listen", number="SIGUSR1"), ("nohup",)) == (-signal.SIGINT, "goes on\n")
    assert said(script.format(how="end_at_once", number="SIGUSR2"), ("nohup",)) == (75, "goes on\n")


def test_work_that_is_done_is_not_undone_by_a_late_signal() -> None:
    """Case B4: Python takes its handlers away before it has ended."""
    code, _ = said("""
signals.listen()
signals.ignore()
class Late:
    def __del__(self):
        arrive(*signals.STOP_SIGNALS)
sys.late = Late()
""")
    assert code == 0
