"""`run_bench.py doctor`: checks of the machine, each in its own process, and what each found."""
