"""What the tables say: windows of steps and the figures of a run."""
