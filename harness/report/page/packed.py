"""Packs what the page's script needs into text: compressed, and in letters that no HTML parser takes for markup."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.report.page.html import Html


def packed(name: str, content: bytes) -> Html:
    """Returns a block of data that the script finds by its name; equal contents give equal blocks."""
    text = base64.b64encode(gzip.compress(content, compresslevel=9, mtime=0)).decode("ascii")
    return Html(f'<script type="text/plain" id="{name}">{text}</script>')


def plotly() -> bytes:
    """Returns plotly's script, from its installed package."""
    return (files("plotly") / "package_data" / "plotly.min.js").read_bytes()


@dataclass(slots=True)
class Arrays:
    """Numbers of the charts, one after another, as 32-bit floats; a description refers to them by place and number."""

    parts: list[bytes] = field(default_factory=list)
    count: int = 0

    def add(self, values: npt.ArrayLike) -> Mapping[str, Any]:
        """Add an array. Returns how the description refers to it."""
        array = np.asarray(values, dtype="<f4")
        begin, self.count = self.count, self.count + array.size
        self.parts.append(array.tobytes())
        return {"begin": begin, "count": array.size}

    def blocks(self, described: Any) -> Html:
        """Returns the blocks with a description of charts and with all arrays."""
        text = json.dumps(described, separators=(",", ":"), allow_nan=False)
        return Html(packed("charts", text.encode()) + packed("arrays", b"".join(self.parts)))
