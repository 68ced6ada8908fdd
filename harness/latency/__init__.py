"""Timing inference: the processes in which networks are exported and timed, and the order in which they take turns."""
