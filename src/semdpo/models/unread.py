"""What an encoder does not read: how many tokens it reads, and one sentence where many texts are longer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from semdpo.errors import ModelError
from semdpo.models.catalogue import longer_encoders
from semdpo.models.registry import held_in, published, resolve

MANY = 0.05  # the share of texts from which on a sentence is worth its line
NAMED = 2  # encoders that read more, in a message


def tokens_read(name: str) -> int | None:
    """The number of tokens that an encoder reads, begin and end tokens included, as far as its files tell.

    Args:
        name: The encoder's name; it is not loaded, and not downloaded.
    """
    model = published(name)
    if model is not None and model.encoder is not None:
        return model.encoder.tokens
    try:
        place = resolve(name)
    except ModelError:
        return None
    if not place.local:
        return None
    folder = Path(place.path)
    if (held := held_in(folder)) is not None and held.encoder is not None:
        return held.encoder.tokens
    found = _values(folder / "sentence_bert_config.json").get("max_seq_length")
    text = _values(folder / "config.json").get("text_config")
    if found is None and isinstance(text, dict):
        found = text.get("max_position_embeddings", 77)  # which CLIP's settings leave out where it is 77
    return found if isinstance(found, int) else None


def sentence(long: int, total: int, of: str, encoder: str | None) -> str:
    """What many texts that are too long mean, and what to do; empty where they are few.

    Args:
        long: How many are longer than the encoder reads.
        total: How many there are.
        of: What they are, such as ``pairs have a text`` or ``prompts are``.
        encoder: The encoder's name; None where it is not known.
    """
    if not total or long < MANY * total:
        return ""
    reads = None if encoder is None else tokens_read(encoder)
    name = "the encoder" if encoder is None else encoder
    longer = list(longer_encoders(reads or 0).items())[:NAMED]
    named = " or ".join(f"{other} ({tokens:,})" for other, tokens in longer)
    cure = f"choose one that reads more tokens, such as {named}" if longer else "shorten the texts"
    what = f"{long:,} of {total:,} {of} longer than {name} reads"
    tokens = "" if reads is None else f" ({reads:,} tokens)"
    return f"{what}{tokens}, so what follows has no effect on the drift; {cure} (--encoder, in a recipe drift.encoder)"


def _values(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none, which is reported where the model is loaded."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
