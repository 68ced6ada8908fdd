"""Names of devices and data sets as parts of files' names."""

from __future__ import annotations

import hashlib
import re

MAX_CHARS = 60  # of the 255 bytes that a file's name may have


def readable_part(name: str) -> str:
    """The name without what a file's name had better not hold; two names may become the same."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "unnamed"


def unique_part(name: str) -> str:
    """As `readable_part`, at most MAX_CHARS of it; a name that had to be altered gets some of its hash behind it."""
    plain = readable_part(name)[:MAX_CHARS]
    if plain == name:
        return plain
    return f"{plain}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"
