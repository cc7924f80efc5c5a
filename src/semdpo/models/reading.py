"""How much of a prompt a diffusers pipeline reads; it is made to read it as plain text.

Pipelines have one to four text encoders (CLIP, T5, language models). The limit of each is in a signature, in a
tokenizer's settings or only in the code, and some pipelines put the prompt into a template. So the pipeline is called
once: the calls of its tokenizers are recorded, and it is stopped before it begins to render.
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

PROBE = "a red house near a tree"  # lower case, because some pipelines change prompts to it
# Denoisers that number a text's tokens, and for how many they have positions: those after them would get other ones.
_POSITIONS = {"QwenImage21Rope": 8191}


@dataclass(frozen=True, slots=True)
class Reading:
    """How one of a pipeline's tokenizers is used.

    Attributes:
        tokenizer: A transformers tokenizer.
        limit: The number of tokens that the encoder reads, including special tokens and the template's.
        before: The text that the pipeline puts before the prompt.
        after: The text that the pipeline puts after the prompt.
        special: Whether the tokenizer adds its own special tokens around the text.
        templated: Whether the pipeline's template has special tokens written as text, which must stay special.
    """

    tokenizer: Any
    limit: float
    before: str = ""
    after: str = ""
    special: bool = True
    templated: bool = False

    def count(self, prompts: Sequence[str]) -> list[int]:
        """The number of tokens of each prompt, including the text around it."""
        texts = [f"{self.before}{prompt}{self.after}" for prompt in prompts]
        if not self.templated:
            return [len(ids) for ids in plain_ids(self.tokenizer, texts, add_special_tokens=self.special)]
        rows = self.tokenizer(texts, add_special_tokens=self.special, verbose=False)["input_ids"] if texts else []
        return [len(ids) for ids in rows]


class PromptReader:
    """How a pipeline reads prompts. From its creation on, the pipeline's tokenizers read special tokens' text as text.

    Args:
        pipeline: A diffusers text-to-image pipeline.
        call: The keyword arguments of every call of the pipeline.
    """

    def __init__(self, pipeline: Any, call: Mapping[str, Any]) -> None:
        self._pipeline, self._call = pipeline, call
        tokenizers = _tokenizers(pipeline)
        recorded = _recorded(pipeline, call, list(tokenizers.values()))
        self._readings = recorded or _declared(pipeline, call, tokenizers)
        for reading in self._readings:
            if not reading.templated:
                always_plain(reading.tokenizer)

    def check(self, prompts: Sequence[str]) -> None:
        """Refuses prompts that the pipeline would misread.

        Raises:
            DataError: A prompt contains the text of a special token, and so does the pipeline's template.
        """
        for reading in self._readings:
            if reading.templated:
                refuse_special_text(reading.tokenizer, prompts, type(self._pipeline).__name__)

    def too_long(self, prompts: Sequence[str]) -> NDArray[np.bool_]:
        """Which prompts are too long even for the encoder that reads most, [n].

        Raises:
            DataError: As for ``check``.
        """
        self.check(prompts)
        if not self._readings or not prompts:
            return np.zeros(len(prompts), np.bool_)
        longest = max(self._readings, key=lambda reading: reading.limit - reading.count([""])[0])
        counts = longest.count(_prepared(self._pipeline, self._call, prompts))
        return np.array([count > longest.limit for count in counts], np.bool_)


def _tokenizers(pipeline: Any) -> dict[str, Any]:
    """A pipeline's tokenizers by name, including those inside processors."""
    tokenizers = {}
    for name, component in vars(pipeline).items():
        for candidate in (component, getattr(component, "tokenizer", None)):
            if isinstance(candidate, PreTrainedTokenizerBase):
                tokenizers[name] = candidate
    return tokenizers


# --------------------------------------------------------------------------------------------- what it does


class _EnoughError(BaseException):
    """Stops the pipeline; it is not an Exception, which a pipeline might catch."""


@dataclass(frozen=True, slots=True)
class _Call:
    tokenizer: Any
    texts: Sequence[str]
    named: Mapping[str, Any]

    @property
    def probed(self) -> bool:
        """Whether the call contains the prompt; other calls have a negative prompt, or a template alone."""
        return any(PROBE in text for text in self.texts)

    @property
    def limit(self) -> float | None:
        """The number of tokens that the text is truncated to; None if it is not truncated."""
        if self.named.get("truncation") in (None, False, "do_not_truncate"):
            return None
        return float(self.named.get("max_length") or self.tokenizer.model_max_length)


def _recorded(pipeline: Any, call: Mapping[str, Any], tokenizers: Sequence[Any]) -> list[Reading]:
    """How the pipeline uses its tokenizers, recorded in one call; empty if the pipeline cannot be called."""
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
        # An error in this call will be reported by the call that renders.
        stack.enter_context(contextlib.suppress(_EnoughError, *UNREADABLE))
        pipeline(prompt=[PROBE], generator=[torch.Generator("cpu").manual_seed(0)], output_type="np", **call)
    most = _after_template(pipeline, call)
    by_tokenizer = [[call for call in calls if call.tokenizer is tokenizer] for tokenizer in tokenizers]
    return [reading for one in by_tokenizer if (reading := _concluded(pipeline, one, most)) is not None]


def _concluded(pipeline: Any, calls: Sequence[_Call], most: float) -> Reading | None:
    """How the pipeline uses one tokenizer, from its calls; None if none of them contains the prompt."""
    probed = [call for call in calls if call.probed]
    if not probed:
        return None
    # Many pipelines call a second time without truncation, for a warning; others truncate the tokens themselves.
    call = next((call for call in probed if call.limit is not None), probed[0])
    limit = call.limit or float(getattr(pipeline, "tokenizer_max_length", None) or "inf")
    before, _, after = next(text for text in call.texts if PROBE in text).partition(PROBE)
    templated = any(special_text(call.tokenizer, text) is not None for other in calls for text in other.texts)
    special = call.named.get("add_special_tokens", True)
    return Reading(call.tokenizer, min(limit, most), before, after, special, templated)


def _stop(*_: object) -> None:
    raise _EnoughError


@contextlib.contextmanager
def _listening(tokenizers: Sequence[Any]) -> Iterator[list[_Call]]:
    """Records every call of the tokenizers; their results stay the same."""
    calls: list[_Call] = []
    with contextlib.ExitStack() as stack:
        for tokenizer in {id(tokenizer): tokenizer for tokenizer in tokenizers}.values():
            kind = type(tokenizer)

            def listening(self: Any, *given: Any, _ask: Any = kind.__call__, **named: Any) -> Any:
                texts = given[0] if given else named.get("text")
                rows = [texts] if isinstance(texts, str) else [text for text in texts or [] if isinstance(text, str)]
                calls.append(_Call(self, rows, named))
                return _ask(self, *given, **named)

            # Python looks up ``__call__`` in the class, so this one object gets its own class for the time being.
            tokenizer.__class__ = type(kind.__name__, (kind,), {"__call__": listening})
            stack.callback(setattr, tokenizer, "__class__", kind)
        yield calls


def _after_template(pipeline: Any, call: Mapping[str, Any]) -> float:
    """The tokens of template and prompt up to the last one that a pipeline reads, where it leaves out the first ones.

    Qwen-Image takes a number of its encoder's tokens; Qwen-Image-2.1 takes all, and has positions for a number of them.
    """
    start = getattr(pipeline, "prompt_template_encode_start_idx", getattr(pipeline, "_drop_idx", None))
    rope = getattr(getattr(pipeline, "transformer", None), "pos_embed", None)
    read = _setting(pipeline, call, "max_sequence_length") or _POSITIONS.get(type(rope).__name__)
    return float("inf") if start is None or read is None else start + read


def _setting(pipeline: Any, call: Mapping[str, Any], name: str) -> Any:
    """A setting from the call, or its default in the pipeline's signature; None if neither has it."""
    parameter = inspect.signature(type(pipeline).__call__).parameters.get(name)
    default = None if parameter is None or parameter.default is inspect.Parameter.empty else parameter.default
    return call.get(name, default)


def _prepared(pipeline: Any, call: Mapping[str, Any], prompts: Sequence[str]) -> list[str]:
    """Prompts as the pipeline passes them to its tokenizers; some pipelines clean them first."""
    clean = getattr(pipeline, "_text_preprocessing", None)
    if clean is None:
        return list(prompts)
    with quiet():
        return list(clean(list(prompts), clean_caption=bool(_setting(pipeline, call, "clean_caption"))))


# ---------------------------------------------------------------------------------------------- what it declares


def _declared(pipeline: Any, call: Mapping[str, Any], tokenizers: Mapping[str, Any]) -> list[Reading]:
    """The readings that the pipeline declares: the smallest limit of tokenizer, encoder and signature.

    A tokenizer with a chat template is assumed to be used with a template.
    """
    readings = []
    for name, tokenizer in tokenizers.items():
        encoder = getattr(pipeline, name.replace("tokenizer", "text_encoder"), None)
        if encoder is None:
            continue
        positions = getattr(getattr(encoder, "config", None), "max_position_embeddings", None)
        numbers = [tokenizer.model_max_length, positions, _setting(pipeline, call, "max_sequence_length")]
        limit = min(number for number in numbers if number is not None)
        readings.append(Reading(tokenizer, limit, templated=getattr(tokenizer, "chat_template", None) is not None))
    return readings
