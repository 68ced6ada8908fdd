"""The commands that look at data sets, or make them."""
