"""The tables a run leaves: `schema` declares them, `files` writes and reads, `mirror` follows the reference."""
