"""The figures of a measurement of inference: percentiles with intervals, the published claim, and what is stored."""
