"""What makes a shell complete commands and options."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness import ROOT


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_option_can_be_completed(shell: str) -> None:
    """In bash it is tried: a script that is wrong completes nothing."""
    command = [sys.executable, str(ROOT / "run_bench.py"), "completion", shell]
    script = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for word in ("throughput-only", "batch-size", "campaign", "retry-failed", "watch", "quiet"):
        assert word in script, word
    if shell == "bash":
        ask = (
            f"{script}\nCOMP_WORDS=(run_bench.py --throughp); COMP_CWORD=1; _shtab_run_bench_py; echo ${{COMPREPLY[@]}}"
        )
        done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=False)
        assert done.stdout.split() == ["--throughput-only"], done.stderr
