"""A finished run's figures in the formats of other programs, made of its record and tables after it has ended."""
