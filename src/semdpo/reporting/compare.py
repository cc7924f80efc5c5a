"""Two rewriters compared on the same prompts by their words alone: nothing is rendered."""

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
        name: of the rewriter.
        rewrites: the most probable rewrite of each prompt, n; "" where it wrote nothing.
        truncated: which of them met the token budget before they had ended, n.
        unread: which of them the encoder could not read to their end, n.
        values: of each measure one value a prompt, n; see ``Comparison.measures``.
    """

    name: str
    rewrites: list[str]
    truncated: list[bool]
    unread: list[bool]
    values: dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Measure:
    """Means over prompts with 95% intervals, and the paired difference b − a; None where it has no meaning."""

    a: Estimate
    b: Estimate
    difference: Difference | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two rewriters on the same prompts.

    Attributes:
        prompts: n of them.
        a: the first rewriter.
        b: the second.
        encoder: that measured the drift.
        reference: the model that gave the likelihoods; None: each rewriter gave those of the other's rewrites.
        measures: by name. ``drift``: cosine distance of prompt and rewrite. ``tokens``: of the rewrite, by the
            tokenizer of the reference, or else of a. ``words_added`` and ``words_dropped``: content words of the
            rewrite that are not in the prompt, and the reverse. ``likelihood``: log π(rewrite | prompt) divided by
            the rewrite's tokens, its end token counted, in nats.
    """

    prompts: list[str]
    a: Side
    b: Side
    encoder: str
    reference: str | None
    measures: dict[str, Measure]

    @property
    def same(self) -> int:
        """Prompts for which both wrote the same."""
        return sum(first == second for first, second in zip(self.a.rewrites, self.b.rewrites, strict=True))

    def examples(self, count: int) -> list[int]:
        """The places of the prompts whose drift differs most between the two, the largest difference first."""
        gaps = np.abs(np.subtract(self.a.values[DRIFT], self.b.values[DRIFT]))
        return [int(place) for place in np.argsort(-gaps, kind="stable")[:count]]


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
    """Compares the most probable rewrites of two rewriters.

    The likelihood is that under the reference. Without one, each rewriter says how probable the other's rewrites are;
    the difference of the two has a meaning only where both have the same tokens.

    Args:
        prompts: at least two, all different.
        a: name or folder of a rewriter.
        b: of the other; the difference is b − a.
        encoder: measures the drift; None takes the one that weighed the pairs which the rewriters learnt from, and
            ``tiny:clip`` where neither names one.
        reference: name or folder of a rewriter under which both are measured.
        max_new_tokens: budget of every rewrite; None takes the larger of the two rewriters' own.
        progress: told after every batch of prompts.

    Raises:
        ConfigError: a and b are one name, or they learnt from the distances of two encoders and none is named.
        DataError: there are fewer than two prompts, one is too long for a model, or the encoder does not know their
            words.
        ModelError: a model cannot be loaded.
        StoreError: this package wrote a rewriter, and a file of it is not as it was written.
    """
    if a == b:
        raise ConfigError(f"both rewriters are '{a}'; name two different ones")
    if len(prompts) < 2:
        raise DataError(f"there is {len(prompts)} prompt, and an interval needs at least two; give more")
    for name in (a, b, *([] if reference is None else [reference])):
        fingerprint.model(name)  # an unknown name is refused before hours are spent
        model_folders.refuse_damaged(resolve(name).folder())
    used = encoder or _own_encoder(a, b)
    eyes = load_text_encoder(used)
    refuse_unknown_words(unknown_share(prompts, eyes), used)
    budget = max_new_tokens or max(_budget(a), _budget(b))
    steps = [progress_of_step(progress, place, 4) for place in range(2)]
    written = [_rewritten(name, prompts, budget, step) for name, step in zip((a, b), steps, strict=True)]
    counter = load_rewriter(reference or a)
    vectors, _ = _embedded(prompts, eyes)
    first, second = (
        _side(name, prompts, rewrites, vectors, eyes, counter) for name, rewrites in zip((a, b), written, strict=True)
    )
    del counter  # before other models need its memory
    comparable = _add_likelihoods((first, second), prompts, reference, progress)
    measures = {name: _measure(first, second, name, comparable or name != LIKELIHOOD) for name in first.values}
    return Comparison(list(prompts), first, second, used, reference, measures)


def _own_encoder(a: str, b: str) -> str:
    names = {name: read_settings(resolve(name).folder()).encoder for name in (a, b)}
    known = sorted({encoder for encoder in names.values() if encoder is not None})
    if len(known) > 1:
        raise ConfigError(
            f"the drift that '{a}' learnt from is of {names[a]}, and that of '{b}' is of {names[b]}; name one of these "
            "encoders with --encoder"
        )
    return known[0] if known else defaults.ENCODER


def _budget(name: str) -> int:
    return read_settings(resolve(name).folder()).max_new_tokens or Decoding().max_new_tokens


def _rewritten(name: str, prompts: Sequence[str], budget: int, progress: Progress) -> list[tuple[str, bool]]:
    rewriter = load_rewriter(name, temperature=0.0, max_new_tokens=budget)
    found: list[tuple[str, bool]] = []
    for start in range(0, len(prompts), defaults.TEXTS_AT_A_TIME):
        part = prompts[start : start + defaults.TEXTS_AT_A_TIME]
        found += [row[0] for row in rewriter.rewrite_flagged(part, 1, seed=0)]
        progress(len(found), len(prompts), "rewriting")
    return found


def _embedded(texts: Sequence[str], encoder: TextEncoder) -> tuple[Float, list[bool]]:
    """Unit vectors, [n, dim], and which texts were not read to their end, n."""
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
    own, unread = _embedded(rewrites, encoder)
    values = {
        DRIFT: cosine_distance(vectors, own).tolist(),
        TOKENS: [float(count) for count in counter.tokens(rewrites)],
        ADDED: [_missing(rewrite, prompt) for prompt, rewrite in zip(prompts, rewrites, strict=True)],
        DROPPED: [_missing(prompt, rewrite) for prompt, rewrite in zip(prompts, rewrites, strict=True)],
    }
    return Side(name, rewrites, [flag for _, flag in written], unread, values)


def _missing(text: str, other: str) -> float:
    """Content words of a text that another does not have."""
    return float(len(set(content_words(text)) - set(content_words(other))))


def _add_likelihoods(sides: Sequence[Side], prompts: Sequence[str], reference: str | None, progress: Progress) -> bool:
    """Adds the likelihoods to both sides; returns whether they are of the same tokens, and can be compared."""
    vocabularies = []
    for place, side in enumerate(sides):
        reader = reference or sides[1 - place].name
        told = progress_of_step(progress, 2 + place, 4)
        side.values[LIKELIHOOD], vocabulary = _likelihoods(reader, prompts, side.rewrites, told)
        vocabularies.append(vocabulary)
    return bool(vocabularies[0] == vocabularies[1])


def _likelihoods(
    name: str, prompts: Sequence[str], rewrites: Sequence[str], progress: Progress
) -> tuple[list[float], dict[str, int]]:
    """Of each rewrite log π(y|x) per token, in float32, and the model's vocabulary."""
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
