"""The folders of the embedded world's models and of its files of prompts."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).resolve().parent / "weights"
DATA = Path(__file__).resolve().parent / "data"
CARD = Path(__file__).resolve().parent / "card.json"
