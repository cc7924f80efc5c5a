"""How the encoder of a recipe reads texts: how many tokens, behind which prefix, and how many texts are too long."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from semdpo.engine.providers import Models
from semdpo.errors import ModelError, SemdpoError
from semdpo.models import registry
from semdpo.models.sentence_folder import prefix_of
from semdpo.models.unread import sentence, tokens_read
from semdpo.preflight.resources import Finding, is_absent
from semdpo.preflight.sample import Sample

COUNTED = 2000  # texts of each kind whose tokens are counted


@runtime_checkable
class _Counts(Protocol):
    """An encoder that knows which texts are too long for it, without embedding them."""

    def too_long(self, texts: Sequence[str]) -> Any:
        """Whether each text is longer than it reads, [n]."""
        ...


def reading(name: str) -> list[Finding]:
    """Reports how an encoder reads texts, as far as its name and its files tell; empty where they tell nothing.

    Args:
        name: the encoder's name; a model that is not here is not downloaded.
    """
    tokens, published = tokens_read(name), registry.published(name)
    parts = [] if tokens is None else [f"reads {tokens:,} tokens"]
    if published is not None and published.encoder is not None:
        parts.append(f"gives {published.encoder.dimension:,} numbers for a text")
    try:
        place = registry.resolve(name)
        if place.local:
            parts += _prefix(name, Path(place.path))
        elif published is not None and published.encoder is not None and published.encoder.prefix:
            parts.append(f"gets {published.encoder.prefix!r} before every text")
    except ModelError as error:
        return [Finding("error", "drift.encoder", str(error))]
    return [Finding("ok", "drift.encoder", f"{name} {', '.join(parts)}")] if parts else []


def _prefix(name: str, folder: Path) -> list[str]:
    found = prefix_of(name, folder)
    if found.text:
        return [f"gets {found.text!r} before every text"]
    if found.unused:
        return [f"gets nothing before a text, since none of its prompts ({', '.join(found.unused)}) is its default"]
    return []


def unread(name: str, sample: Sample, models: Models) -> list[str]:
    """One sentence for prompts and one for rewrites, where many are longer than the encoder reads.

    Args:
        name: the encoder's name; nothing is counted where it is not here, or cannot be loaded.
        sample: the recipe's prompts and rewrites; typical ones that stand in for them are not counted.
        models: functions that load the run's models.
    """
    texts = {} if sample.typical else {"prompts are": [row.prompt for row in (*sample.prompts, *sample.held_out)]}
    texts |= {} if sample.typical_rewrites else {"rewrites are": [rewrite for _, rewrite in sample.rewrites]}
    try:
        encoder = None if is_absent(name) else models.encoder(name)
        if not isinstance(encoder, _Counts):
            return []
        counted = {what: encoder.too_long(some[:COUNTED]) for what, some in texts.items()}
    except SemdpoError:  # reported where the encoder is measured
        return []
    found = [sentence(int(sum(flags)), len(flags), what, name) for what, flags in counted.items()]
    return [text for text in found if text]
