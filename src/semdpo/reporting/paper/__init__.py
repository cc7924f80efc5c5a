"""The numbers that the paper (arXiv 2507.20133) printed, for comparison with those of a run."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

TABLES = Path(__file__).with_name("tables.json")


@functools.cache
def tables() -> dict[str, Any]:
    """Every table and the numbers of the figures, by the paper's numbering: ``table5``, ``figure4`` …

    Scores are means over the 200 prompts of a set; methods, sets and metrics have the paper's names.
    """
    tables: dict[str, Any] = json.loads(TABLES.read_text(encoding="utf-8"))
    return tables
