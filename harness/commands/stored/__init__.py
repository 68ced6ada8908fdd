"""The commands that read what runs have stored: they start nothing, and change no run."""
