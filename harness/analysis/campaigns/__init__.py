"""Campaigns: a matrix of runs, what each has come to, and their figures side by side."""
