"""Token ids of plain text: what looks like a special token inside a prompt or a rewrite is read as text.

``<|endoftext|>`` or ``[SEP]`` in a user's words is no order to the model. A tokenizer that is asked plainly takes it
for one: CLIP would end its reading there, BERT would see two sentences. The begin and end tokens that a tokenizer puts
around a text by itself stay where they are.
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
    """What a tokenizer takes for special.

    Attributes:
        pattern: matches the text of any special token; None when there is none.
        ids: of the special tokens, without the unknown one, which plain text may have too.
        size: of the tokenizer when this was found out; another one means that tokens were added since.
    """

    pattern: re.Pattern[str] | None
    ids: frozenset[int]
    size: int


_SPECIAL: WeakKeyDictionary[Any, _Special] = WeakKeyDictionary()
_READERS: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def plain_ids(tokenizer: Any, texts: Sequence[str], **more: Any) -> list[list[int]]:
    """Token ids of texts in which the text of a special token is read as text.

    Args:
        tokenizer: a transformers tokenizer.
        texts: n texts.
        more: of the tokenizer's call, such as ``add_special_tokens=False`` or ``max_length``; no ``return_tensors``.

    Returns:
        n lists. For a text without special tokens' text they are what the tokenizer's own call gives.

    Raises:
        DataError: the tokenizer cannot read such a text as text; the text is named.
    """
    return [list(ids) for ids in plain(tokenizer, texts, **more)["input_ids"]] if texts else []


def plain(tokenizer: Any, texts: Sequence[str], **more: Any) -> Any:
    """The whole answer of a tokenizer's call (ids, mask, ...) under the rule of ``plain_ids``; its arguments, too.

    Args:
        tokenizer: a transformers tokenizer.
        texts: n texts, n ≥ 1.
        more: of the tokenizer's call, such as ``padding``, ``truncation`` or ``return_tensors``.

    Raises:
        DataError: the tokenizer cannot read a text as text; the text is named.
    """
    rows = list(texts)
    suspects = [text for text in rows if special_text(tokenizer, text) is not None]
    reader = _reader(tokenizer) if suspects else tokenizer
    if suspects:
        _refuse_special(tokenizer, reader, suspects)
    return reader(rows, split_special_tokens=True, **{"verbose": False, **more})


def special_text(tokenizer: Any, text: str) -> str | None:
    """The first piece of a text that is the text of one of the tokenizer's special tokens; None without one."""
    pattern = _special(tokenizer).pattern
    found = pattern.search(text) if pattern else None
    return found.group() if found else None


def always_plain(tokenizer: Any) -> None:
    """Makes a tokenizer read as ``plain_ids`` does whoever calls it, for libraries that call it by themselves."""
    reader = _reader(tokenizer)
    tokenizer.split_special_tokens = True
    if reader is not tokenizer:
        tokenizer.backend_tokenizer.model = reader.backend_tokenizer.model


def refuse_special_text(tokenizer: Any, texts: Sequence[str], model: str, more: Sequence[str] = ()) -> None:
    """For a model that reads texts by code which is not ours, and would obey a special token inside of them.

    Args:
        tokenizer: of the model.
        texts: that it would read.
        model: its name, for the message.
        more: other texts that the model's code replaces, such as the place of an image.

    Raises:
        DataError: a text contains the text of a special token; both are named.
    """
    for text in texts:
        found = special_text(tokenizer, text) or next((each for each in more if each in text), None)
        if found is not None:
            raise _refusal(text, found, model)


def _special(tokenizer: Any) -> _Special:
    known = _SPECIAL.get(tokenizer)
    if known is not None and known.size == len(tokenizer):
        return known
    added = {index: token for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    texts = {token.content for token in added.values()} | {str(token) for token in tokenizer.all_special_tokens}
    ids = {*added, *tokenizer.all_special_ids} - {tokenizer.unk_token_id}
    # The longest first, so that a message names the whole of it.
    alternatives = "|".join(re.escape(text) for text in sorted(texts - {""}, key=len, reverse=True))
    found = _Special(re.compile(alternatives) if alternatives else None, frozenset(ids), len(tokenizer))
    _SPECIAL[tokenizer] = found
    _READERS.pop(tokenizer, None)
    return found


def _reader(tokenizer: Any) -> Any:
    """The tokenizer, or a copy of it that can read special tokens' text as text.

    ``split_special_tokens`` keeps the added tokens from being looked for. In a unigram model (T5, XLM-R) they stand
    among the ordinary pieces as well, with the best score of all, and would be found there. SentencePiece, from which
    these vocabularies come, never finds them in a text; nor does the copy, in which they have names that no text has.
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
    """Vocabularies are of many kinds; where a special token still comes out, no number must be made of it."""
    forbidden = _special(tokenizer).ids
    rows = reader(list(texts), split_special_tokens=True, add_special_tokens=False, verbose=False)["input_ids"]
    for text, ids in zip(texts, rows, strict=True):
        if forbidden.intersection(ids):
            raise _refusal(text, special_text(tokenizer, text) or "", "this model's tokenizer")


def _refusal(text: str, found: str, model: str) -> DataError:
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return DataError(f"the text '{shown}' contains '{found}', which {model} takes for a control token; remove it")
