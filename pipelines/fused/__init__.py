"""Resizing, mirroring, cropping and normalising on the CPU in one pass, within DALI's graphs and threads."""
