"""Rewriters: causal language models that read a template with the prompt in it, and write the rewrite after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, LogitsProcessorList

from semdpo.data.records import content_seed
from semdpo.errors import DataError, ModelError
from semdpo.models.adapters import is_adapters, merged, place_of_base
from semdpo.models.device import Compute, compute
from semdpo.models.loading import check_positive, load_model, load_tokenizer, quiet, read_json
from semdpo.models.prompting import prompt_ids
from semdpo.models.registry import has_tokenizer, resolve
from semdpo.models.sampling import Greedy, Sampler
from semdpo.models.tokens import plain_ids
from semdpo.recipe import defaults
from semdpo.recipe.base import TEMPLATE, one_slot

SETTINGS = "semdpo.json"
THINKING = ("<think>",)  # the token with which Qwen3 begins its reasoning


def load_template(folder: Path) -> str:
    """The template that a rewriter was trained with: from its ``semdpo.json``, or the default without that file.

    Raises:
        ModelError: The file has no template with ``{prompt}`` in it.
    """
    if not (folder / SETTINGS).is_file():
        return TEMPLATE
    return _checked(read_json(folder / SETTINGS).get("template"), str(folder / SETTINGS))


def load_causal(folder: Path, tokenizer_folder: Path | None = None, where: Compute | None = None) -> tuple[Any, Any]:
    """A causal language model and its tokenizer, which always has an end token and a padding token.

    Args:
        folder: The folder of a saved model, or of adapters, which are added to the weights of their base model.
        tokenizer_folder: The folder of the tokenizer; None is ``folder``.
        where: The device and the weights' type; None is the CPU and float32.

    Raises:
        ModelError: The folder cannot be read, or the tokenizer has no end token, without which no rewrite ends.
    """
    model, default_folder = _weights(Path(folder), where)
    tokenizer = load_tokenizer(default_folder if tokenizer_folder in (None, folder) else tokenizer_folder)
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer of '{folder}' has no end token; set eos_token in tokenizer_config.json")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    ends = model.generation_config.eos_token_id
    ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    # A new configuration: a published one has sampling settings, which would mix with those of ``Decoding``.
    model.generation_config = GenerationConfig(
        eos_token_id=sorted({*ends, tokenizer.eos_token_id}),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    return model, tokenizer


def _weights(folder: Path, where: Compute | None) -> tuple[Any, Path]:
    """The model, and the folder of its tokenizer: the adapters' folder if it has one, otherwise their base's."""
    if not is_adapters(folder):
        return load_model(AutoModelForCausalLM, folder, where), folder
    place = place_of_base(folder)
    base, tokenizer_folder = _weights(
        place.folder(), None
    )  # adapters are added in float32, whatever type the model will compute in
    model = merged(base, folder)
    if has_tokenizer(folder):
        tokenizer_folder = folder
    elif tokenizer_folder == place.folder():
        tokenizer_folder = place.tokenizer_folder()
    return model if where is None else model.to(where.device, where.dtype), tokenizer_folder


def load_rewriter(
    path: str | Path,
    template: str | None = None,
    precision: str = "auto",
    **decoding: Any,
) -> CausalRewriter:
    """A rewriter from a transformers folder, on the GPU if there is one.

    Args:
        path: The model: ``tiny:NAME``, a folder or a published name.
        template: The text that the model reads, with ``{prompt}`` in it; None is the template in ``semdpo.json``.
        precision: The precision of the weights, as for ``compute``.
        decoding: The settings of ``Decoding``.

    Raises:
        ModelError: The name is unknown, the folder holds no language model, or a setting is out of range.
    """
    how = Decoding(**decoding)
    place = resolve(str(path))
    folder = place.folder()
    used = load_template(folder) if template is None else _checked(template, "the option template")
    model, tokenizer = load_causal(folder, place.tokenizer_folder(), compute(precision))
    return CausalRewriter(model, tokenizer, used, how)


def _checked(template: object, where: str) -> str:
    if not isinstance(template, str):
        raise ModelError(f"{where} must contain {{prompt}} exactly once, not {template!r}")
    try:
        return one_slot(template)
    except ValueError as error:
        raise ModelError(f"{where}: {error}") from error


@dataclass(frozen=True, slots=True)
class Decoding:
    """How a rewriter's tokens are chosen.

    Attributes:
        temperature: The sampling temperature, ≥ 0; 0 always takes the most probable token.
        top_p: The share of probability, in (0, 1], that the most probable tokens to sample from make up.
        top_k: The number of most probable tokens to sample from; None is all.
        max_new_tokens: The token budget of a rewrite, ≥ 1.
        num_beams: The number of beams of beam search, which needs temperature 0; 1 is no beam search.
        length_penalty: The exponent of the length by which beam search divides a beam's log-probability.
        repetition_penalty: The divisor of the logits of tokens that occurred before, > 0; 1 is no penalty.
        batch_size: The number of prompts rewritten at a time, ≥ 1.

    Raises:
        ModelError: A setting is out of range.
    """

    temperature: float = 1.0
    top_p: float = 0.95
    top_k: int | None = None
    max_new_tokens: int = 40
    num_beams: int = 1
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0
    batch_size: int = defaults.TEXTS_AT_A_TIME

    def __post_init__(self) -> None:  # noqa: D105
        for name in ("max_new_tokens", "num_beams", "batch_size"):
            check_positive(name, getattr(self, name))
        if not self.temperature >= 0 or not 0 < self.top_p <= 1:
            raise ModelError(f"temperature must be ≥ 0 and top_p in (0, 1], not {self.temperature} and {self.top_p}")
        if self.num_beams > 1 and self.temperature > 0:
            raise ModelError(f"beam search does not sample; set temperature to 0, not {self.temperature}")
        if not self.repetition_penalty > 0:
            raise ModelError(f"repetition_penalty must be > 0, not {self.repetition_penalty}")


class CausalRewriter:
    """Samples rewrites; a rewrite depends only on its prompt, index and seed, not on the rest of its batch.

    Args:
        model: A causal language model whose generation config names its end and padding tokens.
        tokenizer: The model's tokenizer.
        template: The text that the model reads, with ``{prompt}`` in it.
        decoding: How tokens are chosen.
    """

    def __init__(self, model: Any, tokenizer: Any, template: str, decoding: Decoding) -> None:
        self._model, self._tokenizer = model, tokenizer
        self.template = template
        self._decoding = decoding
        # A model that was trained to reason before it answers must not begin to reason.
        vocabulary = tokenizer.get_vocab()
        self._suppressed = sorted({vocabulary[token] for token in THINKING if token in vocabulary})

    def at_temperature(self, temperature: float) -> CausalRewriter:
        """The same rewriter with another temperature; the weights are shared."""
        return self._with(temperature=temperature)

    def with_budget(self, max_new_tokens: int) -> CausalRewriter:
        """The same rewriter with another token budget; the weights are shared."""
        return self._with(max_new_tokens=max_new_tokens)

    def _with(self, **decoding: Any) -> CausalRewriter:
        return CausalRewriter(self._model, self._tokenizer, self.template, replace(self._decoding, **decoding))

    def rewrite(self, prompts: Sequence[str], n: int, seed: int) -> list[list[str]]:
        """``n`` rewrites of each prompt, each on one line without outer blanks.

        Args:
            prompts: The users' prompts.
            n: The number of rewrites of each prompt, ≥ 1.
            seed: The seed of the sampling; another seed gives other rewrites.

        Raises:
            DataError: A prompt is too long for the model.
        """
        return [[text for text, _ in row] for row in self.rewrite_flagged(prompts, n, seed)]

    def rewrite_flagged(self, prompts: Sequence[str], n: int, seed: int) -> list[list[tuple[str, bool]]]:
        """Like ``rewrite``, but each text comes with a flag: whether the token budget truncated it."""
        check_positive("n", n)
        inputs = prompt_ids(self._tokenizer, self.template, prompts)
        self._check_lengths(prompts, inputs)
        rewrites: list[list[tuple[str, bool]]] = []
        for start in range(0, len(prompts), self._decoding.batch_size):
            batch = prompts[start : start + self._decoding.batch_size]
            rows = self._generate(
                [ids for ids in inputs[start : start + len(batch)] for _ in range(n)],
                [content_seed("rewrite", prompt, str(index), str(seed)) for prompt in batch for index in range(n)],
            )
            rewrites += [rows[i : i + n] for i in range(0, len(rows), n)]
        return rewrites

    def tokens(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text, without special tokens."""
        return [len(ids) for ids in plain_ids(self._tokenizer, texts, add_special_tokens=False)]

    def _check_lengths(self, prompts: Sequence[str], inputs: Sequence[Sequence[int]]) -> None:
        limit = getattr(self._model.config, "max_position_embeddings", None)
        if limit is None:
            return
        for prompt, ids in zip(prompts, inputs, strict=True):
            if len(ids) + self._decoding.max_new_tokens > limit:
                raise DataError(
                    f"the prompt '{prompt[:60]}…' has {len(ids)} tokens with its template, and with max_new_tokens "
                    f"{self._decoding.max_new_tokens} exceeds the model's {limit}; shorten it or lower max_new_tokens"
                )

    def _generate(self, prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[tuple[str, bool]]:
        # Padding goes to the left, so that every row's next token follows its last one.
        with quiet():  # transformers advises to tokenize and pad in one call
            inputs = self._tokenizer.pad({"input_ids": list(prompts)}, padding_side="left", return_tensors="pt")
        inputs = inputs.to(self._model.device)
        how = self._decoding
        start = inputs["input_ids"].shape[1]
        chooser = Sampler(seeds, start, how.temperature, how.top_k, how.top_p) if how.temperature > 0 else Greedy()
        # Rows that end early are padded. transformers warns of that, although nothing reads the padding.
        with quiet(), torch.inference_mode():
            output: Tensor = self._model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=how.max_new_tokens,
                do_sample=False,
                num_beams=how.num_beams,
                length_penalty=how.length_penalty,
                repetition_penalty=how.repetition_penalty,
                suppress_tokens=self._suppressed or None,
                logits_processor=LogitsProcessorList([chooser]),
            )
        ends = set(self._model.generation_config.eos_token_id)
        rows = output[:, start:].tolist()
        return [self._read(row, ends) for row in rows]

    def _read(self, ids: list[int], ends: set[int]) -> tuple[str, bool]:
        stop = next((i for i, token in enumerate(ids) if token in ends), None)
        text = self._tokenizer.decode(ids[:stop], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return " ".join(text.split()), stop is None
