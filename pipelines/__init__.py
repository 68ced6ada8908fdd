"""Image lists, the DALI graphs that decode them, and the source that hands their batches to Paddle."""
