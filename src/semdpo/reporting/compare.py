"""Compares two rewriters on the same prompts by their texts alone; no image is rendered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from semdpo.analysis.drift import refuse_unknown_words, unknown_share
from semdpo.analysis.semantics import cosine_distance
from semdpo.analysis.statistics import Difference, Estimate, mean_interval, paired_difference
from semdpo.analysis.wording import content_words
from semdpo.engine import fingerprint, model_folders
from semdpo.errors import ConfigError, DataError
from semdpo.models.registry import resolve
from semdpo.models.rewriter import CausalRewriter, Decoding, load_causal, load_rewriter, load_template
from semdpo.models.rewriter_settings import read_settings
from semdpo.models.text_encoder import load_text_encoder
from semdpo.progress import Progress, progress_of_step, silent
from semdpo.protocols import Float, TextEncoder
from semdpo.recipe import defaults
from semdpo.training.batches import encode, refuse_too_long
from semdpo.training.prepare import prepare
from semdpo.training.reference import reference_logps

DRIFT, TOKENS, ADDED, DROPPED, LIKELIHOOD = "drift", "tokens", "words_added", "words_dropped", "likelihood"


@dataclass(frozen=True, slots=True)
class Side:
    """One rewriter's rewrites of n prompts.

    Attributes:
        name: name of the rewriter.
        rewrites: the greedily decoded rewrite of every prompt, n; "" where the rewriter wrote nothing.
        truncated: whether the rewrite was truncated at the token budget, n.
        unread: whether the rewrite is longer than the encoder reads, n.
        values: measure → one value per prompt, n; see ``Comparison.measures``.
    """

    name: str
    rewrites: list[str]
    truncated: list[bool]
    unread: list[bool]
    values: dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Measure:
    """Means over prompts with 95% confidence intervals, and the paired difference b − a; None where not comparable."""

    a: Estimate
    b: Estimate
    difference: Difference | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two rewriters on the same prompts.

    Attributes:
        prompts: the prompts, n.
        a: the first rewriter.
        b: the second rewriter.
        encoder: name of the encoder that measured the drift.
        reference: name of the model that computed the likelihoods; None where each rewriter computed those of the
            other's rewrites.
        measures: the measures by name. ``drift``: cosine distance between prompt and rewrite. ``tokens``: tokens of
            the rewrite, by the tokenizer of the reference, or else of a. ``words_added`` and ``words_dropped``: number
            of content words of the rewrite that are not in the prompt, and the reverse. ``likelihood``:
            log π(rewrite | prompt) per token of the rewrite, including its end token, in nats.
    """

    prompts: list[str]
    a: Side
    b: Side
    encoder: str
    reference: str | None
    measures: dict[str, Measure]

    @property
    def same(self) -> int:
        """The number of prompts for which both rewriters wrote the same text."""
        return sum(first == second for first, second in zip(self.a.rewrites, self.b.rewrites, strict=True))

    def examples(self, count: int) -> list[int]:
        """The indices of the ``count`` prompts whose drift differs most between the two, largest difference first."""
        gaps = np.abs(np.subtract(self.a.values[DRIFT], self.b.values[DRIFT]))
        return [int(index) for index in np.argsort(-gaps, kind="stable")[:count]]


def compare(
    prompts: Sequence[str],
    a: str,
    b: str,
    *,
    encoder: str | None = None,
    reference: str | None = None,
    max_new_tokens: int | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Compares the greedily decoded rewrites of two rewriters.

    The reference computes the likelihoods of all rewrites. Without a reference, each rewriter computes those of the
    other's rewrites; their difference is meaningful only where both rewriters have the same vocabulary.

    Args:
        prompts: at least two different prompts, n.
        a: name or folder of the first rewriter.
        b: name or folder of the second rewriter; differences are b − a.
        encoder: name or folder of the encoder that measures drift; None uses the encoder that measured the distances
            of the rewriters' training pairs, or ``tiny:clip`` where neither rewriter records one.
        reference: name or folder of a rewriter that computes all likelihoods.
        max_new_tokens: token budget of every rewrite; None uses the larger of the two rewriters' budgets.
        progress: called after every batch of prompts.

    Raises:
        ConfigError: a and b are the same name, or their training pairs were measured by different encoders and
            ``encoder`` is None.
        DataError: there are fewer than two prompts, a prompt is longer than a model reads, or the encoder does not
            know the words of the prompts.
        ModelError: a model cannot be loaded.
        StoreError: a file of a rewriter that semdpo wrote has changed since.
    """
    if a == b:
        raise ConfigError(f"both rewriters are '{a}'; name two different ones")
    if len(prompts) < 2:
        raise DataError(f"there is {len(prompts)} prompt, and an interval needs at least two; give more prompts")
    for name in (a, b, *([] if reference is None else [reference])):
        fingerprint.model(name)  # an unknown name is refused before hours are spent
        model_folders.refuse_damaged(resolve(name).folder())
    encoder_name = encoder or _encoder_of_the_pairs(a, b)
    text_encoder = load_text_encoder(encoder_name)
    refuse_unknown_words(unknown_share(prompts, text_encoder), encoder_name)
    budget = max_new_tokens or max(_budget(a), _budget(b))
    written = [
        _rewritten(name, prompts, budget, progress_of_step(progress, part, 4)) for part, name in enumerate((a, b))
    ]
    counter = load_rewriter(reference or a)
    vectors, _ = _embedded(prompts, text_encoder)
    first, second = (
        _side(name, prompts, rewrites, vectors, text_encoder, counter)
        for name, rewrites in zip((a, b), written, strict=True)
    )
    del counter  # before other models need its memory
    comparable = _add_likelihoods((first, second), prompts, reference, progress)
    measures = {name: _measure(first, second, name, comparable or name != LIKELIHOOD) for name in first.values}
    return Comparison(list(prompts), first, second, encoder_name, reference, measures)


def _encoder_of_the_pairs(a: str, b: str) -> str:
    names = {name: read_settings(resolve(name).folder()).encoder for name in (a, b)}
    recorded = sorted({encoder for encoder in names.values() if encoder is not None})
    if len(recorded) > 1:
        raise ConfigError(
            f"the training pairs of '{a}' were measured by {names[a]}, and those of '{b}' by {names[b]}; name one of "
            "these encoders with --encoder"
        )
    return recorded[0] if recorded else defaults.ENCODER


def _budget(name: str) -> int:
    return read_settings(resolve(name).folder()).max_new_tokens or Decoding().max_new_tokens


def _rewritten(name: str, prompts: Sequence[str], budget: int, progress: Progress) -> list[tuple[str, bool]]:
    rewriter = load_rewriter(name, temperature=0.0, max_new_tokens=budget)
    rewrites: list[tuple[str, bool]] = []
    for start in range(0, len(prompts), defaults.TEXTS_AT_A_TIME):
        part = prompts[start : start + defaults.TEXTS_AT_A_TIME]
        rewrites += [row[0] for row in rewriter.rewrite_flagged(part, 1, seed=0)]
        progress(len(rewrites), len(prompts), "rewriting")
    return rewrites


def _embedded(texts: Sequence[str], encoder: TextEncoder) -> tuple[Float, list[bool]]:
    """Unit vectors of texts, [n, dim], and whether each text is longer than the encoder reads, n."""
    size = defaults.TEXTS_AT_A_TIME
    parts = [encoder.encode(texts[start : start + size]) for start in range(0, len(texts), size)]
    return np.concatenate([part.vectors for part in parts]), [bool(flag) for part in parts for flag in part.truncated]


def _side(
    name: str,
    prompts: Sequence[str],
    written: Sequence[tuple[str, bool]],
    vectors: Float,
    encoder: TextEncoder,
    counter: CausalRewriter,
) -> Side:
    rewrites = [text for text, _ in written]
    rewrite_vectors, unread = _embedded(rewrites, encoder)
    values = {
        DRIFT: cosine_distance(vectors, rewrite_vectors).tolist(),
        TOKENS: [float(count) for count in counter.tokens(rewrites)],
        ADDED: [_missing(rewrite, prompt) for prompt, rewrite in zip(prompts, rewrites, strict=True)],
        DROPPED: [_missing(prompt, rewrite) for prompt, rewrite in zip(prompts, rewrites, strict=True)],
    }
    return Side(name, rewrites, [flag for _, flag in written], unread, values)


def _missing(text: str, other: str) -> float:
    """The number of a text's content words that another text does not have."""
    return float(len(set(content_words(text)) - set(content_words(other))))


def _add_likelihoods(sides: Sequence[Side], prompts: Sequence[str], reference: str | None, progress: Progress) -> bool:
    """Adds the likelihoods to both sides; returns whether they are comparable (equal vocabularies)."""
    vocabularies = []
    for index, side in enumerate(sides):
        model = reference or sides[1 - index].name
        part = progress_of_step(progress, 2 + index, 4)
        side.values[LIKELIHOOD], vocabulary = _likelihoods(model, prompts, side.rewrites, part)
        vocabularies.append(vocabulary)
    return bool(vocabularies[0] == vocabularies[1])


def _likelihoods(
    name: str, prompts: Sequence[str], rewrites: Sequence[str], progress: Progress
) -> tuple[list[float], dict[str, int]]:
    """log π(y|x) per token of every rewrite, computed in float32, and the model's vocabulary."""
    place = resolve(name)
    model, tokenizer = load_causal(place.folder(), place.tokenizer_folder())
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    names = [f"the rewrite of '{prompt[:60]}'" for prompt in prompts]
    groups = encode(tokenizer, load_template(place.folder()), prompts, [[rewrite] for rewrite in rewrites], names)
    longest = max(group.longest for group in groups)
    refuse_too_long(groups, names, longest, getattr(model.config, "max_position_embeddings", None))
    logps = reference_logps(model, groups, prepare(model, longest), progress=progress)
    counts = [len(group.completions[0]) for group in groups]
    return [logp / count for (logp,), count in zip(logps, counts, strict=True)], tokenizer.get_vocab()


def _measure(first: Side, second: Side, name: str, comparable: bool) -> Measure:
    a, b = first.values[name], second.values[name]
    return Measure(mean_interval(a), mean_interval(b), paired_difference(b, a) if comparable else None)
