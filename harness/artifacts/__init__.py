"""The files that a run writes: tables, record and checkpoints, and how runs are found by name."""
