"""The tuner's decisions: which settings to try, and when a difference counts. Measuring is `harness.commands.tune`."""
