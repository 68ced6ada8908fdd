"""`run_bench.py latency`: what it was asked, and how it is carried out."""
