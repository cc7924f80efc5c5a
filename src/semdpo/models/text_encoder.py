"""The frozen text encoder e of the semantic distance: a CLIP's text tower, or a sentence-transformers model."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semdpo import extras
from semdpo.errors import ModelError
from semdpo.models import long_clip
from semdpo.models.device import compute
from semdpo.models.loading import TRIAL, UNREADABLE, check_positive, quiet, read_json, unreadable
from semdpo.models.registry import Place, resolve
from semdpo.models.sentence_folder import is_sentence_model, prefix_of, runs_code
from semdpo.models.tokens import always_plain, plain_ids, refuse_special_text, special_text
from semdpo.protocols import Bool, Embeddings, Float, TextEncoder
from semdpo.recipe import defaults

_WORD = re.compile(r"[^\W\d_]+")


def load_text_encoder(
    name: str, batch_size: int = defaults.TEXTS_AT_A_TIME, allow_remote_code: Collection[str] = ()
) -> TextEncoder:
    """Loads a text encoder by name.

    Args:
        name: A CLIPModel, Long-CLIP's own file or a sentence-transformers model: ``tiny:NAME``, a folder or a published
            name.
        batch_size: The number of texts encoded at a time, ≥ 1.
        allow_remote_code: The names of models whose own Python code may run.

    Raises:
        ModelError: The name is unknown, or the folder holds no such model or one that has to run its own code.
        ConfigError: It is a sentence-transformers model, and that library is not installed.
    """
    check_positive("batch_size", batch_size)
    place = resolve(name)
    folder = place.folder()
    if is_sentence_model(folder):
        return SentenceEncoder(place, batch_size, allow_remote_code)
    if long_clip.checkpoint(folder) is not None:
        return CLIPTextEncoder(place, batch_size)
    config = read_json(folder / "config.json")
    if config.get("model_type") != "clip":
        raise ModelError(
            f"model '{name}' ({config.get('model_type', 'type unknown')}) cannot encode texts; give a CLIPModel "
            "or a sentence-transformers model"
        )
    return CLIPTextEncoder(place, batch_size)


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
            ModelError: A vector is not finite, or zero.
        """
        dim = self._towers.model.config.projection_dim
        vectors, truncated = np.zeros((len(texts), dim), np.float32), np.zeros(len(texts), np.bool_)
        for start in range(0, len(texts), self._batch_size):
            rows = slice(start, start + self._batch_size)
            with torch.inference_mode():
                unit, tokens = self._towers.texts(texts[rows])
            vectors[rows], truncated[rows] = unit.cpu().numpy(), tokens.truncated
        _refuse_without_direction(vectors, texts)
        return Embeddings(vectors, truncated, self.unknown_words(texts))

    @property
    def reads(self) -> int:
        """The number of tokens that CLIP reads, without its begin and end tokens."""
        return int(self._towers.max_tokens) - 2

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """The number of each text's tokens, without begin and end tokens, n."""
        return [len(ids) for ids in plain_ids(self._towers.tokenizer, texts, add_special_tokens=False)]

    def too_long(self, texts: Sequence[str]) -> Bool:
        """Whether each text is longer than CLIP reads, [n]."""
        return np.array([count > self.reads for count in self.lengths(texts)], np.bool_)

    def unknown_words(self, texts: Sequence[str]) -> Float | None:
        """The share of each text's words that are not in the vocabulary, [n]; None without a vocabulary."""
        if self._words is None:
            return None
        return np.array([unknown_share(text, self._words) for text in texts], np.float32)


class SentenceEncoder:
    """Any sentence-transformers model; the prefix of its texts is that of ``sentence_folder.prefix_of``.

    Args:
        place: The place of a saved model, with ``modules.json``.
        batch_size: The number of texts encoded at a time.
        allow_remote_code: The names of models whose own Python code may run.

    Raises:
        ConfigError: sentence-transformers is not installed.
        ModelError: The folder cannot be read, or the model has to run its own code and is not among those that may.
    """

    def __init__(self, place: Place, batch_size: int, allow_remote_code: Collection[str] = ()) -> None:
        folder = place.folder()
        extras.require(sentence=f"the encoder '{place.name}'")
        own_code = runs_code(folder)
        if own_code and place.name not in allow_remote_code:
            raise ModelError(
                f"model '{place.name}' runs Python code that comes with it; if you trust its publisher, allow it in a "
                f"recipe with scoring.allow_remote_code=['{place.name}'], or use another encoder"
            )
        self._prefix = prefix_of(place.name, folder).text
        self._model = _sentence_transformer(folder, own_code)
        self._batch_size, self._name = batch_size, place.name
        # Other kinds of modules (a bag of words, static vectors) have a tokenizer without special tokens.
        tokenizer = getattr(self._model, "tokenizer", None)
        self._tokenizer = tokenizer if hasattr(tokenizer, "all_special_tokens") else None
        self._obeys = own_code  # its own code may turn special tokens' text into these tokens
        if self._tokenizer is not None:
            if self._prefix and (special := special_text(self._tokenizer, self._prefix)) is not None:
                raise ModelError(
                    f"the prompt {self._prefix!r} of '{place.name}' has the control token '{special}', which would be "
                    "read as text; use another encoder"
                )
            always_plain(self._tokenizer)
        self._limit = _fit_to_positions(self._model)
        self._try(folder)

    def encode(self, texts: Sequence[str]) -> Embeddings:
        """Unit vectors, [n, dim]; texts that are longer than the model reads are truncated and flagged.

        Args:
            texts: The texts, n.

        Raises:
            DataError: The tokenizer cannot read a text as plain text; the text is named.
            ModelError: A vector is not finite, or zero.
        """
        truncated = self.too_long(texts)  # also refuses a text that cannot be read as plain text
        vectors: Float = np.asarray(self._encoded(list(texts)), np.float32).reshape(len(texts), -1)
        _refuse_without_direction(vectors, texts)
        return Embeddings(vectors, truncated)

    def _encoded(self, texts: list[str]) -> Any:
        with quiet():
            return self._model.encode(
                texts,
                prompt=self._prefix or None,  # of every text; the same for prompts and rewrites
                batch_size=self._batch_size,
                normalize_embeddings=True,
                show_progress_bar=False,
            )

    def too_long(self, texts: Sequence[str]) -> Bool:
        """Whether each text, with its prefix, is longer than the model reads, [n].

        Raises:
            DataError: The tokenizer cannot read a text as plain text; the text is named.
        """
        if self._tokenizer is None:
            return np.zeros(len(texts), np.bool_)
        if self._obeys:
            refuse_special_text(self._tokenizer, texts, self._name)
        # The model's tokenizer may truncate by default, so the whole length is asked for.
        rows = plain_ids(self._tokenizer, [self._prefix + text for text in texts], truncation=False, padding=False)
        return np.array([self._limit is not None and len(ids) > self._limit for ids in rows], np.bool_)

    def _try(self, folder: Path) -> None:
        """Encodes one text, since some modules are refused only then, such as a router without a default."""
        try:
            self._encoded([TRIAL])
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise unreadable(folder, "encoder of single texts", error) from error


def _sentence_transformer(folder: Path, own_code: bool) -> Any:
    """A model of sentence-transformers, in float32; weights of half precision are not computed with as such."""
    with quiet():
        from sentence_transformers import SentenceTransformer
    try:
        with quiet():
            return SentenceTransformer(
                str(folder),
                device=compute().device.type,
                local_files_only=not own_code,  # its code may be in another repository
                trust_remote_code=own_code,
                # Not only afterwards: some networks compute constants in the precision that they are built in.
                model_kwargs={"dtype": torch.float32},
            ).float()
    except UNREADABLE as error:
        raise unreadable(folder, "sentence-transformers model", error) from error


def _fit_to_positions(model: Any) -> int | None:
    """The number of tokens that a model reads, begin and end tokens included; None where it has no limit.

    A limit above the model's table of positions would end in an error at the first long text, and is lowered to it.
    """
    limit, positions = model.max_seq_length, _positions(model)
    if positions is not None and (limit is None or limit > positions):
        model.max_seq_length = limit = positions
    return None if limit in (None, math.inf) else int(limit)  # static vectors have an infinite limit


def _positions(model: Any) -> int | None:
    """The number of a network's learned positions; those of RoBERTa's kind begin behind that of the padding token."""
    for module in model.modules():
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, torch.nn.Embedding):
            padding = getattr(module, "padding_idx", None)
            return table.num_embeddings - (padding + 1 if isinstance(padding, int) else 0)
    return None


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


def _refuse_without_direction(vectors: Float, texts: Sequence[str]) -> None:
    """Refuses vectors that are not finite, and zero, which static vectors give a text without a known word."""
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1) | ~vectors.any(axis=1))
    if bad.size:
        fault = "is not finite" if vectors[bad[0]].any() else "is zero, because the encoder knows none of its words"
        raise ModelError(f"the embedding of row {bad[0]} ('{texts[bad[0]][:60]}') {fault}; use another encoder")
