"""How much of a prompt a diffusers pipeline reads, and that it reads it as plain text.

Pipelines have one to four text encoders (CLIP, T5, language models), each with a limit that stands in a signature, a
tokenizer's settings or only in the code, and some put the prompt into a template. So the pipeline itself is asked: it
is called once, the calls of its tokenizers are recorded, and it is stopped before it begins to render.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedTokenizerBase

from semdpo.models.loading import UNREADABLE, quiet
from semdpo.models.tokens import always_plain, plain_ids, refuse_special_text, special_text

PROBE = "a red house near a tree"  # lower case, for some pipelines make it so


@dataclass(frozen=True, slots=True)
class Reading:
    """How one of a pipeline's tokenizers is used.

    Attributes:
        tokenizer: of transformers.
        limit: tokens that its encoder reads, special ones and the template's included.
        before: what the pipeline writes before the prompt.
        after: and after it.
        special: whether the tokenizer puts its own special tokens around the text.
        templated: whether the pipeline gives the tokenizer special tokens as text, which it must go on obeying.
    """

    tokenizer: Any
    limit: float
    before: str = ""
    after: str = ""
    special: bool = True
    templated: bool = False

    def count(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt, with what stands around it."""
        texts = [f"{self.before}{prompt}{self.after}" for prompt in prompts]
        if not self.templated:
            return [len(ids) for ids in plain_ids(self.tokenizer, texts, add_special_tokens=self.special)]
        rows = self.tokenizer(texts, add_special_tokens=self.special, verbose=False)["input_ids"] if texts else []
        return [len(ids) for ids in rows]


class PromptReader:
    """What a pipeline reads of prompts. From here on its tokenizers take special tokens' text for text.

    Args:
        pipeline: a diffusers text-to-image pipeline.
        call: keyword arguments of every call of it.
    """

    def __init__(self, pipeline: Any, call: Mapping[str, Any]) -> None:
        self._pipeline, self._call = pipeline, call
        tokenizers = _tokenizers(pipeline)
        recorded = _recorded(pipeline, call, list(tokenizers.values()))
        self._readings = recorded or _declared(pipeline, call, tokenizers)
        for each in self._readings:
            if not each.templated:
                always_plain(each.tokenizer)

    def check(self, prompts: Sequence[str]) -> None:
        """Refuse prompts that the pipeline would misread.

        Raises:
            DataError: a prompt contains the text of a special token, and the pipeline's template is made of such.
        """
        for each in self._readings:
            if each.templated:
                refuse_special_text(each.tokenizer, prompts, type(self._pipeline).__name__)

    def too_long(self, prompts: Sequence[str]) -> NDArray[np.bool_]:
        """Which prompts even the encoder that reads most reads only in part, [n].

        Raises:
            DataError: as of ``check``.
        """
        self.check(prompts)
        if not self._readings or not prompts:
            return np.zeros(len(prompts), np.bool_)
        longest = max(self._readings, key=lambda each: each.limit - each.count([""])[0])
        counts = longest.count(_prepared(self._pipeline, self._call, prompts))
        return np.array([count > longest.limit for count in counts], np.bool_)


def _tokenizers(pipeline: Any) -> dict[str, Any]:
    """A pipeline's tokenizers by name, those inside of processors too."""
    found = {}
    for name, part in vars(pipeline).items():
        inner = getattr(part, "tokenizer", None)
        for each in (part, inner):
            if isinstance(each, PreTrainedTokenizerBase):
                found[name] = each
    return found


# --------------------------------------------------------------------------------------------- what it does


class _EnoughError(BaseException):
    """Stops the pipeline; no Exception, which a pipeline might catch."""


@dataclass(frozen=True, slots=True)
class _Call:
    tokenizer: Any
    texts: Sequence[str]
    named: Mapping[str, Any]

    @property
    def probed(self) -> bool:
        """Whether it is about the prompt; others are about the negative prompt, or a template alone."""
        return any(PROBE in each for each in self.texts)

    @property
    def limit(self) -> float | None:
        """What the text is truncated to; None when it is not."""
        if self.named.get("truncation") in (None, False, "do_not_truncate"):
            return None
        return float(self.named.get("max_length") or self.tokenizer.model_max_length)


def _recorded(pipeline: Any, call: Mapping[str, Any], tokenizers: Sequence[Any]) -> list[Reading]:
    """How the pipeline uses its tokenizers, from one call of it; empty where it cannot be called."""
    rendering = [
        part
        for name, part in vars(pipeline).items()
        if isinstance(part, nn.Module) and not any(kind in name for kind in ("text", "image_encoder"))
    ]
    if not callable(pipeline) or not rendering:
        return []
    with contextlib.ExitStack() as stack:
        calls = stack.enter_context(_listening(tokenizers))
        for part in rendering:
            stack.callback(part.register_forward_pre_hook(_stop).remove)
        stack.enter_context(quiet())
        stack.enter_context(torch.inference_mode())
        # An error in the call will be reported by the one that renders.
        stack.enter_context(contextlib.suppress(_EnoughError, *UNREADABLE, IndexError, NotImplementedError))
        pipeline(prompt=[PROBE], generator=[torch.Generator("cpu").manual_seed(0)], output_type="np", **call)
    most = _after_template(pipeline, call)
    of_one = [[call for call in calls if call.tokenizer is each] for each in tokenizers]
    return [reading for own in of_one if (reading := _concluded(pipeline, own, most)) is not None]


def _concluded(pipeline: Any, calls: Sequence[_Call], most: float) -> Reading | None:
    """What the calls of one tokenizer show; None when it was not asked about the prompt."""
    probed = [each for each in calls if each.probed]
    if not probed:
        return None
    # Many pipelines call a second time without truncation, for a warning; others truncate the tokens themselves.
    call = next((each for each in probed if each.limit is not None), probed[0])
    limit = call.limit or float(getattr(pipeline, "tokenizer_max_length", None) or "inf")
    before, _, after = next(each for each in call.texts if PROBE in each).partition(PROBE)
    templated = any(special_text(call.tokenizer, text) is not None for each in calls for text in each.texts)
    special = call.named.get("add_special_tokens", True)
    return Reading(call.tokenizer, min(limit, most), before, after, special, templated)


def _stop(*_: object) -> None:
    raise _EnoughError


@contextlib.contextmanager
def _listening(tokenizers: Sequence[Any]) -> Iterator[list[_Call]]:
    """Notes every call of the tokenizers, which answer as ever."""
    calls: list[_Call] = []
    with contextlib.ExitStack() as stack:
        for tokenizer in {id(each): each for each in tokenizers}.values():
            kind = type(tokenizer)

            def listening(self: Any, *given: Any, _ask: Any = kind.__call__, **named: Any) -> Any:
                texts = given[0] if given else named.get("text")
                rows = [texts] if isinstance(texts, str) else [each for each in texts or [] if isinstance(each, str)]
                calls.append(_Call(self, rows, named))
                return _ask(self, *given, **named)

            # Python looks a call up in the class, so this one object gets a class of its own meanwhile.
            tokenizer.__class__ = type(kind.__name__, (kind,), {"__call__": listening})
            stack.callback(setattr, tokenizer, "__class__", kind)
        yield calls


def _after_template(pipeline: Any, call: Mapping[str, Any]) -> float:
    """Tokens of template and prompt that a pipeline keeps when it slices its encoder's output, as Qwen-Image does."""
    start = getattr(pipeline, "prompt_template_encode_start_idx", None)
    read = _setting(pipeline, call, "max_sequence_length")
    return float("inf") if start is None or read is None else start + read


def _setting(pipeline: Any, call: Mapping[str, Any], name: str) -> Any:
    """What a call gives, or the pipeline's signature; None when neither does."""
    parameter = inspect.signature(type(pipeline).__call__).parameters.get(name)
    default = None if parameter is None or parameter.default is inspect.Parameter.empty else parameter.default
    return call.get(name, default)


def _prepared(pipeline: Any, call: Mapping[str, Any], prompts: Sequence[str]) -> list[str]:
    """Prompts as the pipeline hands them to its tokenizers: some tidy them first."""
    tidy = getattr(pipeline, "_text_preprocessing", None)
    if tidy is None:
        return list(prompts)
    with quiet():
        return list(tidy(list(prompts), clean_caption=bool(_setting(pipeline, call, "clean_caption"))))


# ---------------------------------------------------------------------------------------------- what it declares


def _declared(pipeline: Any, call: Mapping[str, Any], tokenizers: Mapping[str, Any]) -> list[Reading]:
    """The smallest number that tokenizer, encoder and signature name, for each encoder that is there.

    A tokenizer of a language model that chats is taken to stand in a template.
    """
    found = []
    for name, tokenizer in tokenizers.items():
        encoder = getattr(pipeline, name.replace("tokenizer", "text_encoder"), None)
        if encoder is None:
            continue
        positions = getattr(getattr(encoder, "config", None), "max_position_embeddings", None)
        numbers = [tokenizer.model_max_length, positions, _setting(pipeline, call, "max_sequence_length")]
        limit = min(each for each in numbers if each is not None)
        found.append(Reading(tokenizer, limit, templated=getattr(tokenizer, "chat_template", None) is not None))
    return found
