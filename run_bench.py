"""Entry point of the benchmark: `python run_bench.py --help` lists what it does."""

import os
import sys

try:
    from harness.launch.paddle_launcher import is_launcher, launch

    # Paddle's launcher starts without the command line, whose modules take a quarter of a second.
    if is_launcher(sys.argv[1:], os.environ):
        start = launch
    else:
        from harness.cli import start
except ModuleNotFoundError as missing:
    if missing.name in ("harness", "pipelines", "models"):
        raise
    print(
        f"error: the package {missing.name} isn't installed for {sys.executable}\n"
        "  make install sets up .venv; then run .venv/bin/python run_bench.py",
        file=sys.stderr,
    )
    sys.exit(3)

if __name__ == "__main__":
    start(sys.argv[1:])
