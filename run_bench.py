"""Entry point of the benchmark: `python run_bench.py --help` lists what it does."""

import sys

from harness.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
