"""Rewriters: causal language models that continue a template with the rewrite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.generation.logits_process import TemperatureLogitsWarper, TopPLogitsWarper

from semdpo.config import TEMPLATE
from semdpo.errors import DataError, ModelError
from semdpo.models.loading import check_positive, load_model, load_tokenizer, quiet, read_json
from semdpo.models.names import resolve
from semdpo.records import content_seed

SETTINGS = "semdpo.json"


def fill(template: str, prompt: str) -> str:
    """What the language model reads for a prompt; the rewrite follows after a space."""
    return template.replace("{prompt}", prompt.strip())


def load_template(folder: Path) -> str:
    """The template that a rewriter was trained with: that of its ``semdpo.json``, or the usual one.

    Raises:
        ModelError: the file is there, but names no template with ``{prompt}`` in it.
    """
    if not (folder / SETTINGS).is_file():
        return TEMPLATE
    return _checked(read_json(folder / SETTINGS).get("template"), str(folder / SETTINGS))


def load_causal(folder: Path) -> tuple[Any, Any]:
    """A causal language model in float32 and its tokenizer, which is sure to have an end and a padding token.

    Args:
        folder: a saved model with tokenizer.

    Raises:
        ModelError: the folder cannot be read, or the tokenizer has no end token, without which no rewrite ends.
    """
    model, tokenizer = load_model(AutoModelForCausalLM, folder), load_tokenizer(folder)
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer of '{folder}' has no end token; set eos_token in tokenizer_config.json")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    ends = model.generation_config.eos_token_id
    ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    # A fresh one: published folders bring sampling settings that would mix with ours.
    model.generation_config = GenerationConfig(
        eos_token_id=sorted({*ends, tokenizer.eos_token_id}),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    return model, tokenizer


def load_rewriter(
    path: str | Path,
    template: str | None = None,
    temperature: float = 1.0,
    top_p: float = 0.95,
    max_new_tokens: int = 40,
    batch_size: int = 64,
) -> CausalRewriter:
    """A rewriter from a folder of transformers' kind.

    Args:
        path: ``tiny:NAME``, a folder or a published name.
        template: with ``{prompt}`` in it; None takes that of the folder's ``semdpo.json``.
        temperature: 0 always takes the most probable token.
        top_p: sample from the most probable tokens that make up this share, in (0, 1].
        max_new_tokens: the rewrite's budget, ≥ 1.
        batch_size: prompts at a time, ≥ 1.

    Raises:
        ModelError: the name is unknown, the folder holds no language model, or an option is out of range.
    """
    check_positive("max_new_tokens", max_new_tokens)
    check_positive("batch_size", batch_size)
    if not temperature >= 0 or not 0 < top_p <= 1:
        raise ModelError(f"temperature must be ≥ 0 and top_p in (0, 1], not {temperature} and {top_p}")
    folder = resolve(str(path)).folder()
    used = load_template(folder) if template is None else _checked(template, "the option template")
    model, tokenizer = load_causal(folder)
    return CausalRewriter(model, tokenizer, used, temperature, top_p, max_new_tokens, batch_size)


def _checked(template: object, where: str) -> str:
    if not isinstance(template, str) or template.count("{prompt}") != 1:
        raise ModelError(f"{where} must contain {{prompt}} exactly once, not {template!r}")
    return template


class CausalRewriter:
    """Samples rewrites; a rewrite depends on its prompt, index and seed, not on what else is in the batch.

    Args:
        model: a causal language model whose generation config names end and padding tokens.
        tokenizer: its tokenizer.
        template: with ``{prompt}`` in it.
        temperature: 0 is greedy.
        top_p: share of probability that is sampled from.
        max_new_tokens: the rewrite's budget.
        batch_size: prompts at a time.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        template: str,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        batch_size: int,
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self.template = template
        self._temperature, self._top_p = temperature, top_p
        self._max_new_tokens, self._batch_size = max_new_tokens, batch_size

    def at_temperature(self, temperature: float) -> CausalRewriter:
        """The same rewriter with another temperature; the weights are shared."""
        return CausalRewriter(
            self._model,
            self._tokenizer,
            self.template,
            temperature,
            self._top_p,
            self._max_new_tokens,
            self._batch_size,
        )

    def rewrite(self, prompts: Sequence[str], n: int, seed: int) -> list[list[str]]:
        """``n`` rewrites of each prompt, each on one line without outer blanks.

        Args:
            prompts: texts.
            n: rewrites of each, ≥ 1.
            seed: another one draws other rewrites.

        Raises:
            DataError: a prompt is too long for the model.
        """
        return [[text for text, _ in row] for row in self.rewrite_flagged(prompts, n, seed)]

    def rewrite_flagged(self, prompts: Sequence[str], n: int, seed: int) -> list[list[tuple[str, bool]]]:
        """Like ``rewrite``; with each text goes whether it met the token budget before it had ended."""
        check_positive("n", n)
        self._check_lengths(prompts)
        found: list[list[tuple[str, bool]]] = []
        for start in range(0, len(prompts), self._batch_size):
            batch = prompts[start : start + self._batch_size]
            rows = self._generate(
                [fill(self.template, prompt) for prompt in batch for _ in range(n)],
                [content_seed("rewrite", prompt, str(index), str(seed)) for prompt in batch for index in range(n)],
            )
            found += [rows[i : i + n] for i in range(0, len(rows), n)]
        return found

    def tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, without special tokens."""
        return [len(ids) for ids in self._ids(texts, add_special_tokens=False)]

    def _ids(self, texts: Sequence[str], add_special_tokens: bool = True) -> list[list[int]]:
        if not texts:
            return []
        rows = self._tokenizer(list(texts), add_special_tokens=add_special_tokens, verbose=False)["input_ids"]
        return [list(ids) for ids in rows]

    def _check_lengths(self, prompts: Sequence[str]) -> None:
        limit = getattr(self._model.config, "max_position_embeddings", None)
        if limit is None:
            return
        for prompt, ids in zip(prompts, self._ids([fill(self.template, each) for each in prompts]), strict=True):
            if len(ids) + self._max_new_tokens > limit:
                raise DataError(
                    f"the prompt '{prompt[:60]}…' has {len(ids)} tokens with its template, and with max_new_tokens "
                    f"{self._max_new_tokens} exceeds the model's {limit}; shorten it or lower max_new_tokens"
                )

    def _generate(self, texts: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, bool]]:
        # Padding stands on the left, so that every row's next token follows its last.
        inputs = self._tokenizer(list(texts), padding=True, padding_side="left", return_tensors="pt")
        steps: list[LogitsProcessor] = []
        if self._temperature > 0:
            steps.append(TemperatureLogitsWarper(self._temperature))
            if self._top_p < 1:
                steps.append(TopPLogitsWarper(self._top_p))
            steps.append(_GumbelNoise(seeds))
        # Rows that end early are padded, of which transformers warns although nothing reads the padding.
        with quiet(), torch.inference_mode():
            output: Tensor = self._model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=self._max_new_tokens,
                do_sample=False,
                logits_processor=LogitsProcessorList(steps),
            )
        ends = set(self._model.generation_config.eos_token_id)
        rows = output[:, inputs["input_ids"].shape[1] :].tolist()
        return [self._read(row, ends) for row in rows]

    def _read(self, ids: list[int], ends: set[int]) -> tuple[str, bool]:
        stop = next((i for i, token in enumerate(ids) if token in ends), None)
        text = self._tokenizer.decode(ids[:stop], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return " ".join(text.split()), stop is None


class _GumbelNoise(LogitsProcessor):  # type: ignore[misc]
    """Turns the greedy choice into a sample: argmax(logits + Gumbel noise) is distributed as softmax(logits).

    Every row has a generator of its own, so that its sample does not depend on its neighbours.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, _input_ids: Tensor, scores: Tensor) -> Tensor:
        size = scores.shape[-1]
        noise = torch.stack([torch.empty(size).exponential_(generator=each) for each in self._generators])
        return scores.float() - noise.log()
