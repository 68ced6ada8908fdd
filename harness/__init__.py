"""The benchmark harness: see docs/architecture.md for its rooms."""

from pathlib import Path

# The checkout, which the tool runs from.
ROOT = Path(__file__).parents[1]
