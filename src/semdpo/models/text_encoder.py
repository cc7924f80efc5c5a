"""The frozen text encoder e of the semantic distance: CLIP's text tower, or a sentence-transformers model."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semdpo import extras
from semdpo.errors import ModelError
from semdpo.models.device import compute
from semdpo.models.loading import check_positive, quiet, read_json, unreadable
from semdpo.models.registry import Place, resolve
from semdpo.models.tokens import always_plain, plain_ids
from semdpo.protocols import Bool, Embeddings, Float, TextEncoder
from semdpo.recipe import defaults

_WORD = re.compile(r"[^\W\d_]+")


def load_text_encoder(name: str, batch_size: int = defaults.TEXTS_AT_A_TIME) -> TextEncoder:
    """Loads a text encoder by name.

    Args:
        name: A CLIPModel or a sentence-transformers model: ``tiny:NAME``, a folder or a published name.
        batch_size: The number of texts encoded at a time, ≥ 1.

    Raises:
        ModelError: The name is unknown, or the folder holds no such model.
        ConfigError: It is a sentence-transformers model, and that library is not installed.
    """
    check_positive("batch_size", batch_size)
    place = resolve(name)
    folder = place.folder()
    if is_sentence_model(folder):
        return SentenceEncoder(folder, batch_size)
    config = read_json(folder / "config.json")
    if config.get("model_type") != "clip":
        raise ModelError(
            f"model '{name}' ({config.get('model_type', 'type unknown')}) cannot encode texts; give a CLIPModel "
            "or a sentence-transformers model"
        )
    return CLIPTextEncoder(place, batch_size)


def is_sentence_model(folder: Path) -> bool:
    """Whether a folder holds a sentence-transformers model."""
    return (folder / "modules.json").is_file()


class CLIPTextEncoder:
    """CLIP's text tower with its projection.

    If the folder has a ``vocabulary.json``, a list of the lower-case words that the model has seen in training, each
    vector comes with the share of its text's words that are not in the list.

    Args:
        place: The place of a saved CLIPModel with its tokenizer.
        batch_size: The number of texts encoded at a time.
    """

    def __init__(self, place: Place, batch_size: int) -> None:
        from semdpo.models.clip import load_towers

        self._towers = load_towers(place, compute())
        self._words = _vocabulary(place.folder() / "vocabulary.json")
        self._batch_size = batch_size

    def encode(self, texts: Sequence[str]) -> Embeddings:
        """Unit vectors, [n, dim]; texts that are longer than CLIP reads are truncated and flagged.

        Args:
            texts: The texts, n.

        Raises:
            DataError: The tokenizer cannot read a text as plain text; the text is named.
            ModelError: A vector is not finite.
        """
        dim = self._towers.model.config.projection_dim
        vectors, truncated = np.zeros((len(texts), dim), np.float32), np.zeros(len(texts), np.bool_)
        for start in range(0, len(texts), self._batch_size):
            rows = slice(start, start + self._batch_size)
            with torch.inference_mode():
                unit, tokens = self._towers.texts(texts[rows])
            vectors[rows], truncated[rows] = unit.cpu().numpy(), tokens.truncated
        _check_finite(vectors, texts)
        return Embeddings(vectors, truncated, self.unknown_words(texts))

    @property
    def reads(self) -> int:
        """The number of tokens that CLIP reads, without its begin and end tokens."""
        return int(self._towers.max_tokens) - 2

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """The number of each text's tokens, without begin and end tokens, n."""
        return [len(ids) for ids in plain_ids(self._towers.tokenizer, texts, add_special_tokens=False)]

    def unknown_words(self, texts: Sequence[str]) -> Float | None:
        """The share of each text's words that are not in the vocabulary, [n]; None without a vocabulary."""
        if self._words is None:
            return None
        return np.array([unknown_share(text, self._words) for text in texts], np.float32)


class SentenceEncoder:
    """Any sentence-transformers model.

    Args:
        folder: The folder of a saved model, with ``modules.json``.
        batch_size: The number of texts encoded at a time.

    Raises:
        ConfigError: sentence-transformers is not installed.
        ModelError: The folder cannot be read.
    """

    def __init__(self, folder: Path, batch_size: int) -> None:
        extras.require(sentence=f"the encoder '{folder}'")
        with quiet():
            from sentence_transformers import SentenceTransformer
        try:
            with quiet():
                self._model: Any = SentenceTransformer(
                    str(folder), device=compute().device.type, local_files_only=True
                ).float()
        except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
            raise unreadable(folder, "sentence-transformers model", error) from error
        self._batch_size = batch_size
        # Other kinds of modules (a bag of words, static vectors) have a tokenizer without special tokens.
        self._tokenizer = self._model.tokenizer if hasattr(self._model.tokenizer, "all_special_tokens") else None
        if self._tokenizer is not None:
            always_plain(self._tokenizer)

    def encode(self, texts: Sequence[str]) -> Embeddings:
        """Unit vectors, [n, dim]; texts that are longer than the model reads are truncated and flagged.

        Args:
            texts: The texts, n.

        Raises:
            DataError: The tokenizer cannot read a text as plain text; the text is named.
            ModelError: A vector is not finite.
        """
        truncated = self._too_long(texts)  # also refuses a text that cannot be read as plain text
        with quiet():
            encoded = self._model.encode(
                list(texts), batch_size=self._batch_size, normalize_embeddings=True, show_progress_bar=False
            )
        vectors: Float = np.asarray(encoded, np.float32).reshape(len(texts), -1)
        _check_finite(vectors, texts)
        return Embeddings(vectors, truncated)

    def _too_long(self, texts: Sequence[str]) -> Bool:
        limit = self._model.max_seq_length
        if self._tokenizer is None:
            return np.zeros(len(texts), np.bool_)
        # The model's tokenizer may truncate by default, so the whole length is asked for.
        rows = plain_ids(self._tokenizer, texts, truncation=False, padding=False)
        return np.array([limit is not None and len(ids) > limit for ids in rows], np.bool_)


def unknown_share(text: str, words: frozenset[str]) -> float:
    """The share of a text's alphabetic words that are not in ``words``; 0 for a text without words."""
    in_text = _WORD.findall(text.lower())
    return sum(word not in words for word in in_text) / len(in_text) if in_text else 0.0


def _vocabulary(path: Path) -> frozenset[str] | None:
    if not path.is_file():
        return None
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"'{path}' is not valid JSON; build the model again with `semdpo world build`") from error
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ModelError(f"'{path}' must hold a list of words; build the model again with `semdpo world build`")
    return frozenset(words)


def _check_finite(vectors: Float, texts: Sequence[str]) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if bad.size:
        raise ModelError(f"the embedding of row {bad[0]} ('{texts[bad[0]][:60]}') is not finite; use another encoder")
