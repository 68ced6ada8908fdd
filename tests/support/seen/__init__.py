"""The folder that PYTHONPATH has in tests, so that processes write down what they say."""

from __future__ import annotations

import os
from pathlib import Path

SEEN = Path(__file__).parent


def python_path(*folders: object) -> str:
    """PYTHONPATH with these folders, for a process that is to write down what it says."""
    return os.pathsep.join([*map(str, folders), str(SEEN)])
