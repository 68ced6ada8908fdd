"""Converts names of devices and data sets to parts of file names."""

from __future__ import annotations

import hashlib
import re

MAX_CHARS = 60  # of the 255 bytes that a file's name may have


def readable_part(name: str) -> str:
    """Returns the name without characters that are unsafe in a file's name; two names may become the same."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "unnamed"


def unique_part(name: str) -> str:
    """Returns at most MAX_CHARS of `readable_part`, followed by a part of the name's hash if that changed the name."""
    plain = readable_part(name)[:MAX_CHARS]
    if plain == name:
        return plain
    return f"{plain}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"
