"""What a trained rewriter's folder keeps beside its weights, in ``semdpo.json``: how it is to be used."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from semdpo.errors import ModelError
from semdpo.models.loading import read_json
from semdpo.models.rewriter import SETTINGS, load_template


@dataclass(frozen=True, slots=True)
class Kept:
    """What a rewriter needs to be used as it was trained; None where it is not known.

    Attributes:
        template: what it reads, with ``{prompt}`` in it.
        max_new_tokens: budget of a rewrite: no rewrite that it learnt is longer.
        encoder: name of the encoder that measured the drift of the pairs it learnt from.
        encoder_fingerprint: SHA-256 of that encoder's files (``fingerprint.model``).
    """

    template: str
    max_new_tokens: int | None = None
    encoder: str | None = None
    encoder_fingerprint: str | None = None

    def rows(self) -> dict[str, Any]:
        """What the model card says of it."""
        known = {
            "longest rewrite, in tokens": self.max_new_tokens,
            "encoder of the drift": self.encoder,
            "SHA-256 of the encoder": self.encoder_fingerprint,
        }
        return {name: value for name, value in known.items() if value is not None}


def read(folder: Path) -> Kept:
    """What a folder keeps; the usual template alone where it has no ``semdpo.json``.

    Raises:
        ModelError: the file is there, and a value in it cannot be one.
    """
    template, path = load_template(folder), folder / SETTINGS
    if not path.is_file():
        return Kept(template)
    found = read_json(path)
    budget = found.get("max_new_tokens")
    if budget is not None and (isinstance(budget, bool) or not isinstance(budget, int) or budget < 1):
        raise ModelError(f"'{path}': max_new_tokens must be a whole number from 1 on, not {budget!r}; correct it")
    texts = {name: found.get(name) for name in ("encoder", "encoder_fingerprint")}
    for name, value in texts.items():
        if value is not None and (not isinstance(value, str) or not value):
            raise ModelError(f"'{path}': {name} must be a text, not {value!r}; correct or remove it")
    return Kept(template, budget, texts["encoder"], texts["encoder_fingerprint"])


def write(folder: Path, kept: Kept) -> None:
    """Writes ``semdpo.json``; what is not known is left out."""
    known = {name: value for name, value in asdict(kept).items() if value is not None}
    (folder / SETTINGS).write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def name_encoder(folder: Path, encoder: str) -> None:
    """Adds an encoder to a rewriter's folder and card, where none is named: one that took no part in its training."""
    if not (folder / SETTINGS).is_file():
        return
    kept = read(folder)
    if kept.encoder is not None:
        return
    write(folder, replace(kept, encoder=encoder))
    card = folder / "README.md"
    if card.is_file():
        card.write_text(card.read_text(encoding="utf-8") + f"| encoder of the drift | {encoder} |\n", encoding="utf-8")
