"""Prints what a person sees: the plan, progress, and the final tables."""
