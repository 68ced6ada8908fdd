"""What was asked for, and what a run will do, with every default decided."""
