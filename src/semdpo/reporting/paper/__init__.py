"""The numbers that the paper (arXiv 2507.20133) printed, to stand beside those of a run."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

TABLES = Path(__file__).with_name("tables.json")


@functools.cache
def tables() -> dict[str, Any]:
    """Every table and the numbers of the figures, by the paper's own name: ``table5``, ``figure4`` …

    Scores are means over 200 prompts of a set, named as the paper names methods, sets and metrics.
    """
    found: dict[str, Any] = json.loads(TABLES.read_text(encoding="utf-8"))
    return found
