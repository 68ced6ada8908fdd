"""Starts the ranks and watches them; owns the files by which ranks and launching process talk."""
