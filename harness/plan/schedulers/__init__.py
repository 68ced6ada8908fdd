"""Where a process stands among the nodes of a run, as the scheduler or launcher that started it says."""
