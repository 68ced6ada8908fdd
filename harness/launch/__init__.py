"""Starts the ranks and watches them; owns the files by which the ranks report to the launching process."""
