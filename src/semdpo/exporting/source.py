"""The rewriter that is exported: its weights, its tokenizer, and the text around a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from semdpo.engine.model_folders import refuse_damaged
from semdpo.errors import ModelError
from semdpo.models.registry import resolve
from semdpo.models.rewriter import Decoding, load_causal
from semdpo.models.rewriter_settings import read_settings

# Texts that stand for the system's and the user's text while a chat template is rendered.
_SYSTEM, _PROMPT = "SemdpoPlaceOfSystem", "SemdpoPlaceOfPrompt"


@dataclass(frozen=True, slots=True)
class Form:
    """How a rewriter is asked.

    Attributes:
        template: The text that the rewriter reads, with ``{prompt}`` in it; None is the tokenizer's chat template.
        system: The system's text in the chat template; None is none.
        max_new_tokens: The token budget of a rewrite.
    """

    template: str | None
    system: str | None
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Source:
    """A rewriter to export.

    Attributes:
        name: The name that the user gave.
        folder: The rewriter's folder.
        tokenizer_folder: The folder of its tokenizer.
        form: How it is asked.
    """

    name: str
    folder: Path
    tokenizer_folder: Path
    form: Form

    def load(self) -> tuple[Any, Any]:
        """The model in float32 and its tokenizer; adapters are added to the weights of their base.

        Raises:
            ModelError: The folder cannot be read.
        """
        return load_causal(self.folder, self.tokenizer_folder)


def find(name: str) -> Source:
    """The rewriter of a name.

    Args:
        name: A folder, ``tiny:gpt2`` or a published name.

    Raises:
        ModelError: There is no such model, or its ``semdpo.json`` is not valid.
        StoreError: A file of a rewriter that semdpo trained has changed since.
    """
    place = resolve(name)
    folder = place.folder()
    refuse_damaged(folder)
    return Source(name, folder, place.tokenizer_folder(), _form(folder))


def _form(folder: Path) -> Form:
    settings = read_settings(folder)
    template = None if settings.reads.is_chat else settings.template
    return Form(template, settings.system, settings.max_new_tokens or Decoding().max_new_tokens)


def refuse_overflow(name: str, weight: torch.Tensor, type_: torch.dtype) -> None:
    """Refuses a weight that would become infinite.

    Args:
        name: The weight's name, for the message.
        weight: The weight.
        type_: The type in which it will be written.

    Raises:
        ModelError: It has a value that float16 cannot hold.
    """
    if type_ is not torch.float16 or not weight.is_floating_point() or weight.numel() == 0:
        return
    largest = float(weight.detach().abs().max())
    if not largest <= torch.finfo(type_).max:
        raise ModelError(f"the weight {name} has the value {largest:g}, which float16 cannot hold; use bf16 or f32")


def edges(source: Source, tokenizer: Any) -> list[str]:
    """The constant texts around the system's text and the prompt, in order.

    Args:
        source: The rewriter.
        tokenizer: Its tokenizer.

    Returns:
        Two texts (before and after the prompt), or three if the rewriter has a system text: before it, between it and
        the prompt, and after the prompt.

    Raises:
        ModelError: The chat template is missing, or does not put each of the two texts in one place, unchanged.
    """
    form = source.form
    if form.template is not None:
        return form.template.split("{prompt}")
    places = [_PROMPT] if form.system is None else [_SYSTEM, _PROMPT]
    rest, parts = _rendered(source, tokenizer, places), []
    for place in places:
        before, _, rest = rest.partition(place)
        parts.append(before)
    parts.append(rest)
    # Other texts must give the same edges: a template could repeat, cut or change the texts.
    others = [f"1 {place} (2)" for place in places]
    expected = "".join(edge + text for edge, text in zip(parts, [*others, ""], strict=True))
    if any(place in edge for place in places for edge in parts) or _rendered(source, tokenizer, others) != expected:
        raise ModelError(
            f"the chat template of '{source.name}' does not put the prompt in one place, so it cannot be written as a "
            "text with a gap; export to gguf, which keeps the template itself"
        )
    return parts


def _rendered(source: Source, tokenizer: Any, texts: list[str]) -> str:
    roles = ["system", "user"][-len(texts) :]
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
    if not tokenizer.chat_template:
        raise ModelError(f"'{source.name}' is asked in its chat template, but its tokenizer has none; save it again")
    return str(
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    )
