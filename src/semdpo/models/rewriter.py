"""Rewriters: causal language models that read a prompt in a template or a chat, and write the rewrite after it."""

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
from semdpo.models.device import Compute, compute, moved
from semdpo.models.loading import TRIAL, check_positive, load_model, load_tokenizer, quiet, read_json, refuse_unfit
from semdpo.models.prompting import THINKING, end_token, prompt_ids
from semdpo.models.registry import has_tokenizer, resolve
from semdpo.models.sampling import Greedy, Likelihood, Sampler
from semdpo.models.tokens import plain_ids
from semdpo.protocols import Answer
from semdpo.recipe import defaults
from semdpo.recipe.base import Template
from semdpo.texts import shown

SETTINGS = "semdpo.json"


def load_template(folder: Path) -> Template:
    """The template that a rewriter was trained with: from its ``semdpo.json``, or the default without that file.

    Raises:
        ModelError: The file's template is neither ``chat`` nor a text with ``{prompt}`` in it, or its system message
            is no text.
    """
    if not (folder / SETTINGS).is_file():
        return Template()
    values = read_json(folder / SETTINGS)
    return checked_template(values.get("template"), values.get("system"), str(folder / SETTINGS))


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
    refuse_unfit(tokenizer(TRIAL)["input_ids"], model.get_input_embeddings(), folder)
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer of '{folder}' has no end token; set eos_token in tokenizer_config.json")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    ends = model.generation_config.eos_token_id
    ends = [] if ends is None else list(ends) if isinstance(ends, list | tuple) else [ends]
    if odd := [end for end in ends if not isinstance(end, int)]:
        raise ModelError(f"'{folder}' has {shown(odd[0])} as eos_token_id; write a token's number, or leave it out")
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
    return model if where is None else moved(model, where), tokenizer_folder


def load_rewriter(
    path: str | Path,
    template: Template | str | None = None,
    precision: str = "auto",
    **decoding: Any,
) -> CausalRewriter:
    """A rewriter from a transformers folder, on the GPU if there is one.

    Args:
        path: The model: ``tiny:NAME``, a folder or a published name.
        template: What the model reads around a prompt, a ``Template`` or its text; None is that of ``semdpo.json``.
        precision: The precision of the weights, as for ``compute``.
        decoding: The settings of ``Decoding``.

    Raises:
        ModelError: The name is unknown, the folder holds no language model, or a setting is out of range.
    """
    how = Decoding(**decoding)
    place = resolve(str(path))
    folder = place.folder()
    used = load_template(folder) if template is None else template
    if not isinstance(used, Template):
        used = checked_template(used, None, "the option template")
    model, tokenizer = load_causal(folder, place.tokenizer_folder(), compute(precision))
    return CausalRewriter(model, tokenizer, used, how)


def thinking_tokens(tokenizer: Any) -> list[int]:
    """The ids of the tokens with which a model begins to reason before it answers; none for most models."""
    vocabulary = tokenizer.get_vocab()
    return [vocabulary[THINKING]] if THINKING in vocabulary else []


def checked_template(text: object, system: object, where: str) -> Template:
    """The template that two values describe.

    Args:
        text: The template's text, or ``chat``.
        system: The system message, or None.
        where: The place of the values, for messages.

    Raises:
        ModelError: The values are no template.
    """
    if not isinstance(text, str):
        raise ModelError(f"{where} must contain {{prompt}} exactly once, not {text!r}")
    if system is not None and not isinstance(system, str):
        raise ModelError(f"{where}: system must be a text, not {system!r}")
    try:
        return Template(text, system)
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
        template: What the model reads around a prompt.
        decoding: How tokens are chosen.
    """

    def __init__(self, model: Any, tokenizer: Any, template: Template | str, decoding: Decoding) -> None:
        self._model, self._tokenizer = model, tokenizer
        self.template = Template.of(template)
        self._decoding = decoding
        # A model that was trained to reason before it answers must not begin to reason.
        self._suppressed = thinking_tokens(tokenizer)
        ends = model.generation_config.eos_token_id
        self._ends = sorted({*([ends] if isinstance(ends, int) else ends), end_token(tokenizer, self.template)})

    @property
    def positions(self) -> int | None:
        """The number of tokens that the model has room for, prompt and rewrite together; None is no limit."""
        return getattr(self._model.config, "max_position_embeddings", None)

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
        return [[(answer.text, answer.truncated) for answer in row] for row in self._answers(prompts, n, seed)]

    def answers(self, prompts: Sequence[str], n: int, seed: int) -> list[list[Answer]]:
        """Like ``rewrite_flagged``, but each text comes with its likelihood too; beam search knows none."""
        return self._answers(prompts, n, seed, Likelihood if self._decoding.num_beams == 1 else None)

    def _answers(
        self, prompts: Sequence[str], n: int, seed: int, likelihood: type[Likelihood] | None = None
    ) -> list[list[Answer]]:
        check_positive("n", n)
        inputs = prompt_ids(self._tokenizer, self.template, prompts)
        self._check_lengths(prompts, inputs)
        answers: list[list[Answer]] = []
        for start in range(0, len(prompts), self._decoding.batch_size):
            batch = prompts[start : start + self._decoding.batch_size]
            rows = self._generate(
                [ids for ids in inputs[start : start + len(batch)] for _ in range(n)],
                [content_seed("rewrite", prompt, str(index), str(seed)) for prompt in batch for index in range(n)],
                likelihood,
            )
            answers += [rows[i : i + n] for i in range(0, len(rows), n)]
        return answers

    def tokens(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text, without special tokens."""
        return [len(ids) for ids in plain_ids(self._tokenizer, texts, add_special_tokens=False)]

    def _check_lengths(self, prompts: Sequence[str], inputs: Sequence[Sequence[int]]) -> None:
        limit = self.positions
        if limit is None:
            return
        for prompt, ids in zip(prompts, inputs, strict=True):
            if len(ids) + self._decoding.max_new_tokens > limit:
                raise DataError(
                    f"the prompt '{prompt[:60]}…' has {len(ids)} tokens with its template, and with max_new_tokens "
                    f"{self._decoding.max_new_tokens} exceeds the model's {limit}; shorten it or lower max_new_tokens"
                )

    def _generate(
        self, prompts: Sequence[list[int]], seeds: Sequence[int], likelihood: type[Likelihood] | None
    ) -> list[Answer]:
        # Padding goes to the left, so that every row's next token follows its last one.
        with quiet():  # transformers advises to tokenize and pad in one call
            inputs = self._tokenizer.pad({"input_ids": list(prompts)}, padding_side="left", return_tensors="pt")
        inputs = inputs.to(self._model.device)
        how = self._decoding
        start = inputs["input_ids"].shape[1]
        chooser = Sampler(seeds, start, how.temperature, how.top_k, how.top_p) if how.temperature > 0 else Greedy()
        watcher = None if likelihood is None else likelihood(start, self._ends)
        processors = [chooser] if watcher is None else [watcher, chooser]
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
                eos_token_id=self._ends,
                logits_processor=LogitsProcessorList(processors),
            )
        texts = [self._read(row) for row in output[:, start:].tolist()]
        if watcher is None:
            return [Answer(text, truncated) for text, truncated in texts]
        watcher.finish(output)
        means = (watcher.sums / watcher.lengths).tolist()
        return [Answer(text, truncated, likelihood=mean) for (text, truncated), mean in zip(texts, means, strict=True)]

    def _read(self, ids: list[int]) -> tuple[str, bool]:
        stop = next((i for i, token in enumerate(ids) if token in self._ends), None)
        text = self._tokenizer.decode(ids[:stop], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return " ".join(text.split()), stop is None
