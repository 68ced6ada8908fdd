"""What a run leaves on disk: tables, record, checkpoints, and how they are found by name."""
