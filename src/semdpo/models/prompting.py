"""Token ids of prompts and of their rewrites: the same in training, for the reference and in generation.

With a template of text, a causal language model reads ``begin tokens + ids(template with prompt)`` and writes
``ids(" " + rewrite)`` and one end token. With ``chat`` it reads what the tokenizer's chat template gives for the prompt
as the user's message, thinking switched off, and writes ``ids(rewrite)`` and the token that ends the assistant's turn.
Together, the ids of prompt and rewrite are those of the whole text, unless the tokenizer would change the prompt's ids
when text follows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from semdpo.errors import DataError, ModelError
from semdpo.models.tokens import plain_ids, special_text
from semdpo.recipe.base import SLOT, Template

THINKING = "<think>"  # with this, Qwen3 and others begin to reason

_ANCHOR = "a"  # a word put before a text that is tokenized alone, so that it does not look like a beginning
_ANSWER = "the-rewrite"  # a text that no chat template contains


def end_token(tokenizer: Any, template: str | Template) -> int:
    """The id of the token that ends a rewrite: the one that ends the assistant's turn in a chat, or the end token.

    Args:
        tokenizer: The model's tokenizer, with an end token.
        template: A text with ``{prompt}`` in it, or a ``Template``.

    Raises:
        ModelError: It shall be a chat, but the tokenizer has no chat template, or its template refuses the messages.
    """
    template = Template.of(template)
    if template.is_chat:
        turns = [*_messages(template, _ANCHOR), {"role": "assistant", "content": _ANSWER}]
        after = _chat(tokenizer, turns, add_generation_prompt=False).rpartition(_ANSWER)[2]
        if (end := special_text(tokenizer, after)) is not None:
            return int(tokenizer.convert_tokens_to_ids(end))
    return int(tokenizer.eos_token_id)


def prompt_ids(
    tokenizer: Any, template: str | Template, prompts: Sequence[str], names: Sequence[str] | None = None
) -> list[list[int]]:
    """The ids that the model reads for each prompt: begin tokens once, the filled template, no end token.

    Args:
        tokenizer: The model's tokenizer.
        template: A text with ``{prompt}`` in it, which may contain control tokens; or a ``Template``.
        prompts: The prompts, n; a special token's text inside them is read as text.
        names: The names of the rows for messages, n; None names no row.

    Returns:
        n lists of ids.

    Raises:
        DataError: A prompt's text would be a control token within this template, or for this tokenizer.
        ModelError: As for ``end_token``.
    """
    template = Template.of(template)
    rows = _ids(tokenizer, template, list(prompts), [""] * len(prompts), names)
    if template.is_chat:  # a chat template writes the begin token itself
        return rows
    begin = begin_ids(tokenizer)
    # A template may already begin with the begin token.
    return [ids if begin == ids[: len(begin)] else [*begin, *ids] for ids in rows]


def completion_ids(
    tokenizer: Any,
    template: str | Template,
    prompts: Sequence[str],
    completions: Sequence[str],
    names: Sequence[str] | None = None,
) -> list[list[int]]:
    """The ids that the model writes after each prompt: the text, after a space unless it is a chat, and one end token.

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
        ModelError: As for ``end_token``.
    """
    template = Template.of(template)
    end = end_token(tokenizer, template)
    ends = {tokenizer.eos_token, tokenizer.convert_ids_to_tokens(end)} - {None, ""}
    gap = "" if template.is_chat else " "
    texts = [gap + _without_end(ends, completion) for completion in completions]
    before = _ids(tokenizer, template, list(prompts), [""] * len(texts), names)
    whole = _ids(tokenizer, template, list(prompts), texts, names)
    written = [
        ids[len(start) :] if ids[: len(start)] == start else None for start, ids in zip(before, whole, strict=True)
    ]
    merging = [k for k, ids in enumerate(written) if ids is None]
    for k, ids in zip(merging, _apart(tokenizer, [texts[k] for k in merging]), strict=True):
        written[k] = ids
    return [[*(ids or []), end] for ids in written]


def _filled(tokenizer: Any, template: Template, prompt: str) -> str:
    if template.is_chat:
        return _chat(tokenizer, _messages(template, prompt.strip()), add_generation_prompt=True)
    return template.text.replace(SLOT, prompt.strip())


def _messages(template: Template, prompt: str) -> list[dict[str, str]]:
    system = [] if template.system is None else [{"role": "system", "content": template.system}]
    return [*system, {"role": "user", "content": prompt}]


def _chat(tokenizer: Any, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
    """The text of a chat, without the thinking that some models do before they answer."""
    from jinja2 import TemplateError

    if getattr(tokenizer, "chat_template", None) is None:
        raise ModelError(
            "the template is 'chat', but the model's tokenizer has no chat template; use a chat model, or a template "
            f"of text with {SLOT} in it"
        )
    try:
        text: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt, enable_thinking=False
        )
    except TemplateError as error:  # some templates refuse a system message
        raise ModelError(f"the model's chat template refuses the messages: {error}; change or remove system") from error
    if text.rstrip().endswith(THINKING):
        raise ModelError(
            f"the model's chat template always begins to think ({THINKING}), which no rewriter does; use a model whose "
            f"template has enable_thinking, or a template of text with {SLOT} in it"
        )
    return text


def _ids(
    tokenizer: Any, template: Template, prompts: list[str], following: list[str], names: Sequence[str] | None
) -> list[list[int]]:
    """Ids of filled templates with a text after each, without the tokens that a tokenizer adds itself."""
    texts = [_filled(tokenizer, template, prompt) + text for prompt, text in zip(prompts, following, strict=True)]
    if not texts:
        return []
    # The template's own control tokens are intended; the texts must not add others.
    intended = _specials(tokenizer, _filled(tokenizer, template, _ANCHOR))
    if not intended:
        try:
            return plain_ids(tokenizer, texts, add_special_tokens=False)
        except DataError as error:
            raise _named(tokenizer, texts, names, error) from error
    for k, text in enumerate(texts):
        if _specials(tokenizer, text) != intended:
            bad = special_text(tokenizer, prompts[k] + following[k]) or "a control token"
            raise DataError(
                f"{_name(names, k)}the text '{_short(prompts[k] + following[k])}' contains '{bad}', which would be a "
                f"control token within the template '{_short(template.text)}'; remove it"
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


def begin_ids(tokenizer: Any) -> list[int]:
    """The ids that a tokenizer puts before a text; those that it puts after a text would end it too early."""
    bare = list(tokenizer(_ANCHOR, add_special_tokens=False)["input_ids"])
    full = list(tokenizer(_ANCHOR)["input_ids"])
    places = (k for k in range(len(full) - len(bare) + 1) if full[k : k + len(bare)] == bare)
    return full[: next(places, 0)]


def _without_end(ends: Collection[str], text: str) -> str:
    text = text.strip()
    while end := next((end for end in ends if text.endswith(end)), None):
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
