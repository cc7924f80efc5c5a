"""``semdpo.json`` in a trained rewriter's folder: the template, token budget and encoder to use with it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from semdpo.errors import ModelError
from semdpo.models.loading import read_json
from semdpo.models.rewriter import SETTINGS, load_template
from semdpo.recipe.base import Template


@dataclass(frozen=True, slots=True)
class RewriterSettings:
    """The settings for using a rewriter as it was trained; None for what is unknown.

    Attributes:
        template: The text that the rewriter reads, with ``{prompt}`` in it; or ``chat``.
        max_new_tokens: The token budget of a rewrite: the length of the longest rewrite in its training data.
        encoder: The name of the encoder that measured the drift of its training pairs.
        encoder_fingerprint: The SHA-256 of that encoder's files (``fingerprint.model``).
        system: The system message of a chat.
    """

    template: str
    max_new_tokens: int | None = None
    encoder: str | None = None
    encoder_fingerprint: str | None = None
    system: str | None = None

    @property
    def reads(self) -> Template:
        """What the rewriter reads around a prompt."""
        return Template(self.template, self.system)

    def card_rows(self) -> dict[str, Any]:
        """The rows of the model card's table, without unknown values."""
        rows = {
            "longest rewrite, in tokens": self.max_new_tokens,
            "encoder of the drift": self.encoder,
            "SHA-256 of the encoder": self.encoder_fingerprint,
        }
        return {name: value for name, value in rows.items() if value is not None}


def read_settings(folder: Path) -> RewriterSettings:
    """The settings in a rewriter's folder; without a ``semdpo.json``, only the default template.

    Raises:
        ModelError: One of the file's values is not valid.
    """
    template, path = load_template(folder), folder / SETTINGS
    if not path.is_file():
        return RewriterSettings(template.text)
    values = read_json(path)
    budget = values.get("max_new_tokens")
    if budget is not None and (isinstance(budget, bool) or not isinstance(budget, int) or budget < 1):
        raise ModelError(f"'{path}': max_new_tokens must be a whole number, at least 1, not {budget!r}; correct it")
    texts = {name: values.get(name) for name in ("encoder", "encoder_fingerprint")}
    for name, value in texts.items():
        if value is not None and (not isinstance(value, str) or not value):
            raise ModelError(f"'{path}': {name} must be a text, not {value!r}; correct or remove it")
    return RewriterSettings(template.text, budget, texts["encoder"], texts["encoder_fingerprint"], template.system)


def write_settings(folder: Path, settings: RewriterSettings) -> None:
    """Writes ``semdpo.json``, without unknown values."""
    values = {name: value for name, value in asdict(settings).items() if value is not None}
    (folder / SETTINGS).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def name_encoder(folder: Path, encoder: str) -> None:
    """Adds an encoder to the settings and card of a rewriter whose training used none."""
    if not (folder / SETTINGS).is_file():
        return
    settings = read_settings(folder)
    if settings.encoder is not None:
        return
    write_settings(folder, replace(settings, encoder=encoder))
    card = folder / "README.md"
    if card.is_file():
        card.write_text(card.read_text(encoding="utf-8") + f"| encoder of the drift | {encoder} |\n", encoding="utf-8")
