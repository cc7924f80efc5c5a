"""Token ids of prompts and of their rewrites: the same in training, for the reference and in generation.

A causal language model reads ``begin tokens + ids(template with prompt)`` and writes ``ids(" " + rewrite)`` and one end
token. Together, the ids of prompt and rewrite are those of the whole text, unless the tokenizer would change the
prompt's ids when text follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from semdpo.errors import DataError
from semdpo.models.tokens import plain_ids, special_text
from semdpo.recipe.base import SLOT

_ANCHOR = "a"  # a word put before a text that is tokenized alone, so that it does not look like a beginning


def fill(template: str, prompt: str) -> str:
    """The text that the language model reads for a prompt; the rewrite follows after a space."""
    return template.replace(SLOT, prompt.strip())


def prompt_ids(
    tokenizer: Any, template: str, prompts: Sequence[str], names: Sequence[str] | None = None
) -> list[list[int]]:
    """The ids that the model reads for each prompt: begin tokens once, the filled template, no end token.

    Args:
        tokenizer: The model's tokenizer.
        template: The template with ``{prompt}`` in it; it may contain control tokens, such as those of a chat.
        prompts: The prompts, n; a special token's text inside them is read as text.
        names: The names of the rows for messages, n; None names no row.

    Returns:
        n lists of ids.

    Raises:
        DataError: A prompt's text would be a control token within this template, or for this tokenizer.
    """
    begin = _begin(tokenizer)
    rows = _ids(tokenizer, template, list(prompts), [""] * len(prompts), names)
    # A template may already begin with the begin token.
    return [ids if begin == ids[: len(begin)] else [*begin, *ids] for ids in rows]


def completion_ids(
    tokenizer: Any,
    template: str,
    prompts: Sequence[str],
    completions: Sequence[str],
    names: Sequence[str] | None = None,
) -> list[list[int]]:
    """The ids that the model writes after each prompt: a space, the text, and one end token.

    Args:
        tokenizer: The model's tokenizer, with an end token.
        template: As for ``prompt_ids``.
        prompts: The prompts, n.
        completions: The texts after the prompts, n; an end token's text at the end of one is not written twice.
        names: The names of the rows for messages, n; None names no row.

    Returns:
        n lists of ids.

    Raises:
        DataError: As for ``prompt_ids``.
    """
    texts = [f" {_without_end(tokenizer, completion)}" for completion in completions]
    before = _ids(tokenizer, template, list(prompts), [""] * len(texts), names)
    whole = _ids(tokenizer, template, list(prompts), texts, names)
    written = [
        ids[len(start) :] if ids[: len(start)] == start else None for start, ids in zip(before, whole, strict=True)
    ]
    merging = [k for k, ids in enumerate(written) if ids is None]
    for k, ids in zip(merging, _apart(tokenizer, [texts[k] for k in merging]), strict=True):
        written[k] = ids
    return [[*(ids or []), tokenizer.eos_token_id] for ids in written]


def _ids(
    tokenizer: Any, template: str, prompts: list[str], following: list[str], names: Sequence[str] | None
) -> list[list[int]]:
    """Ids of filled templates with a text after each, without the tokens that a tokenizer adds itself."""
    texts = [fill(template, prompt) + text for prompt, text in zip(prompts, following, strict=True)]
    if not texts:
        return []
    edges = template.split(SLOT)
    if all(special_text(tokenizer, edge) is None for edge in edges):
        try:
            return plain_ids(tokenizer, texts, add_special_tokens=False)
        except DataError as error:
            raise _named(tokenizer, texts, names, error) from error
    # The template's own control tokens are intended; the texts must not add others.
    count = sum(len(_specials(tokenizer, edge)) for edge in edges)
    for k, text in enumerate(texts):
        if len(_specials(tokenizer, text)) != count:
            bad = special_text(tokenizer, prompts[k] + following[k]) or "a control token"
            raise DataError(
                f"{_name(names, k)}the text '{_short(prompts[k] + following[k])}' contains '{bad}', which would be a "
                f"control token within the template '{_short(template)}'; remove it"
            )
    return [list(ids) for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]


def _specials(tokenizer: Any, text: str) -> list[str]:
    pieces: list[str] = []
    while (piece := special_text(tokenizer, text)) is not None:
        pieces.append(piece)
        text = text.partition(piece)[2]
    return pieces


def _apart(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Ids of texts that would merge with their prompts' last tokens: tokenized as after any other word."""
    if not texts:
        return []
    (anchor,) = plain_ids(tokenizer, [_ANCHOR], add_special_tokens=False)
    rows = plain_ids(tokenizer, [_ANCHOR + text for text in texts], add_special_tokens=False)
    alone = plain_ids(tokenizer, texts, add_special_tokens=False)
    return [
        ids[len(anchor) :] if ids[: len(anchor)] == anchor else other for ids, other in zip(rows, alone, strict=True)
    ]


def _begin(tokenizer: Any) -> list[int]:
    """The tokens that a tokenizer puts before a text; those that it puts after a text would end it too early."""
    bare = list(tokenizer(_ANCHOR, add_special_tokens=False)["input_ids"])
    full = list(tokenizer(_ANCHOR)["input_ids"])
    places = (k for k in range(len(full) - len(bare) + 1) if full[k : k + len(bare)] == bare)
    return full[: next(places, 0)]


def _without_end(tokenizer: Any, text: str) -> str:
    text, end = text.strip(), tokenizer.eos_token
    while end and text.endswith(end):
        text = text.removesuffix(end).rstrip()
    return text


def _named(tokenizer: Any, texts: Sequence[str], names: Sequence[str] | None, error: DataError) -> DataError:
    """The tokenizer's error about one of the texts, with the name of its row."""
    for k, text in enumerate(texts):
        try:
            plain_ids(tokenizer, [text], add_special_tokens=False)
        except DataError as refusal:
            return DataError(f"{_name(names, k)}{refusal}")
    return error


def _name(names: Sequence[str] | None, k: int) -> str:
    return "" if names is None else f"{names[k]}: "


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"
