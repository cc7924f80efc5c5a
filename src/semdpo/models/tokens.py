"""Token ids of plain text: the text of a special token inside a prompt or a rewrite is read as text.

``<|endoftext|>`` or ``[SEP]`` in a user's text must not control the model. By default, tokenizers turn such text into
the special token: CLIP would stop reading there, and BERT would see two sentences. The begin and end tokens that a
tokenizer itself puts around a text stay where they are.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from semdpo.errors import DataError

_SHOWN = 60  # characters of a text in a message


@dataclass(frozen=True, slots=True)
class _Special:
    """A tokenizer's special tokens.

    Attributes:
        pattern: The pattern that matches the text of any special token; None if there is none.
        ids: The ids of the special tokens, except the unknown token, which plain text may give too.
        size: The tokenizer's size at the time; a different size now means that tokens were added.
    """

    pattern: re.Pattern[str] | None
    ids: frozenset[int]
    size: int


_SPECIAL: WeakKeyDictionary[Any, _Special] = WeakKeyDictionary()
_READERS: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def plain_ids(tokenizer: Any, texts: Sequence[str], **more: Any) -> list[list[int]]:
    """Token ids of texts in which the text of a special token is read as text.

    Args:
        tokenizer: A transformers tokenizer.
        texts: The texts, n.
        more: Arguments of the tokenizer's call, such as ``add_special_tokens=False``; but no ``return_tensors``.

    Returns:
        n lists of ids. Without special tokens' text they are what the tokenizer's own call gives.

    Raises:
        DataError: The tokenizer cannot read a special token's text as text; the text is named.
    """
    return [list(ids) for ids in plain(tokenizer, texts, **more)["input_ids"]] if texts else []


def plain(tokenizer: Any, texts: Sequence[str], **more: Any) -> Any:
    """The whole result of a tokenizer's call (ids, mask, …), with special tokens' text read as text.

    Args:
        tokenizer: A transformers tokenizer.
        texts: The texts, n ≥ 1.
        more: Arguments of the tokenizer's call, such as ``padding``, ``truncation`` or ``return_tensors``.

    Raises:
        DataError: The tokenizer cannot read a special token's text as text; the text is named.
    """
    rows = list(texts)
    suspects = [text for text in rows if special_text(tokenizer, text) is not None]
    reader = _reader(tokenizer) if suspects else tokenizer
    if suspects:
        _refuse_special(tokenizer, reader, suspects)
    return reader(rows, split_special_tokens=True, **{"verbose": False, **more})


def special_text(tokenizer: Any, text: str) -> str | None:
    """The first special token's text inside a text; None if there is none."""
    pattern = _special(tokenizer).pattern
    match = pattern.search(text) if pattern else None
    return match.group() if match else None


def always_plain(tokenizer: Any) -> None:
    """Makes every call of a tokenizer read special tokens' text as text, for libraries that call it themselves."""
    reader = _reader(tokenizer)
    tokenizer.split_special_tokens = True
    if reader is not tokenizer:
        tokenizer.backend_tokenizer.model = reader.backend_tokenizer.model


def refuse_special_text(tokenizer: Any, texts: Sequence[str], model: str, more: Sequence[str] = ()) -> None:
    """Refuses special tokens' text, for a model whose own code reads the texts and would obey such tokens.

    Args:
        tokenizer: The model's tokenizer.
        texts: The texts that the model would read.
        model: The model's name, for the message.
        more: Other texts that the model's code replaces, such as the placeholder of an image.

    Raises:
        DataError: A text contains the text of a special token; both are named.
    """
    for text in texts:
        special = special_text(tokenizer, text) or next((piece for piece in more if piece in text), None)
        if special is not None:
            raise _refusal(text, special, model)


def _special(tokenizer: Any) -> _Special:
    cached = _SPECIAL.get(tokenizer)
    if cached is not None and cached.size == len(tokenizer):
        return cached
    added = {index: token for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    texts = {token.content for token in added.values()} | {str(token) for token in tokenizer.all_special_tokens}
    ids = {*added, *tokenizer.all_special_ids} - {tokenizer.unk_token_id}
    # The longest first, so that a message names the whole token.
    alternatives = "|".join(re.escape(text) for text in sorted(texts - {""}, key=len, reverse=True))
    special = _Special(re.compile(alternatives) if alternatives else None, frozenset(ids), len(tokenizer))
    _SPECIAL[tokenizer] = special
    _READERS.pop(tokenizer, None)
    return special


def _reader(tokenizer: Any) -> Any:
    """The tokenizer, or a copy of it that can read special tokens' text as text.

    ``split_special_tokens`` stops the tokenizer from looking for added tokens. But in a unigram model (T5, XLM-R) they
    are ordinary pieces too, with the best score of all, and would still be found. SentencePiece, from which these
    vocabularies come, never finds them in a text. Neither does the copy, which gives them names that no text contains.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or type(backend.model).__name__ != "Unigram":
        return tokenizer
    if tokenizer not in _READERS:
        from tokenizers.models import Unigram

        pattern = _special(tokenizer).pattern
        model = json.loads(backend.to_str())["model"]
        hidden = [
            (f"\0{piece}" if pattern is not None and pattern.fullmatch(piece) else piece, score)
            for piece, score in model["vocab"]
        ]
        reader = copy.deepcopy(tokenizer)
        reader.backend_tokenizer.model = Unigram(hidden, model["unk_id"], bool(model.get("byte_fallback")))
        _READERS[tokenizer] = reader
    return _READERS[tokenizer]


def _refuse_special(tokenizer: Any, reader: Any, texts: Sequence[str]) -> None:
    """Refuses texts that still give a special token's id, whatever kind of vocabulary the tokenizer has."""
    forbidden = _special(tokenizer).ids
    rows = reader(list(texts), split_special_tokens=True, add_special_tokens=False, verbose=False)["input_ids"]
    for text, ids in zip(texts, rows, strict=True):
        if forbidden.intersection(ids):
            raise _refusal(text, special_text(tokenizer, text) or "", "this model's tokenizer")


def _refusal(text: str, special: str, model: str) -> DataError:
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return DataError(f"the text '{shown}' contains '{special}', which {model} takes for a control token; remove it")
