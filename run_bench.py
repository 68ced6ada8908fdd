"""Entry point of the benchmark: `python run_bench.py --help` lists what it does."""

import sys

try:
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
