"""What run_bench.py does after parsing, in the launching process: runs, series, compare, export, verify, import."""
