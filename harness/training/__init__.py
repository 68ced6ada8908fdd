"""The rank process: everything that loads Paddle and DALI, trains, evaluates and records. Only cli.py imports it."""
