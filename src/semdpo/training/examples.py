"""From preference pairs to training examples: tokens, and their log-probabilities under the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from semdpo.analysis.semantics import alpha_of_weights
from semdpo.data.records import Pair
from semdpo.errors import DataError
from semdpo.models.rewriter_settings import RewriterSettings
from semdpo.objectives.base import Data
from semdpo.progress import Progress
from semdpo.recipe.base import Template
from semdpo.recipe.objectives import ObjectiveSettings
from semdpo.training.batches import Example, encode, refuse_too_long
from semdpo.training.packing import Group
from semdpo.training.precision import autocast
from semdpo.training.reference import reference_logps


def check(pairs: Sequence[Pair], objective: ObjectiveSettings) -> None:
    """Refuses pairs that lack columns which an objective needs.

    Args:
        pairs: the training pairs.
        objective: settings of the objective.

    Raises:
        DataError: there are no pairs, a pair lacks a column, or a value is out of range.
    """
    if not pairs:
        raise DataError("there are no pairs to train on; give more prompts or lower pairs.margin")
    if objective.needs_distance:
        without = [pair.pair_id for pair in pairs if pair.distance is None]
        if without:
            raise DataError(
                f"{len(without)} of {len(pairs)} pairs have no distance (such as {without[0]}); "
                "run `semdpo weigh` first"
            )
        wrong = [pair for pair in pairs if not -1e-6 <= (pair.distance or 0.0) <= 2 + 1e-6]
        if wrong:
            raise DataError(
                f"pair {wrong[0].pair_id} has distance {wrong[0].distance}, which is not a cosine distance; "
                "run `semdpo weigh` again"
            )
        encoders = [(name, content) for name, content in encoders_of(pairs) if content]
        if len({content for _, content in encoders}) > 1:
            first, second = encoders[0][0], encoders[1][0]
            both = f"{first} and {second}" if first != second else f"two versions of {first}"
            raise DataError(f"the distances are from {both}, and cannot be compared; run `semdpo weigh` on all pairs")
        _refuse_semantic_weights(pairs)
    if objective.needs_fidelity:
        without = [pair.pair_id for pair in pairs if None in _scores(pair)]
        if without:
            raise DataError(
                f"{len(without)} of {len(pairs)} pairs lack chosen_score, rejected_score, chosen_fidelity or "
                f"rejected_fidelity (such as {without[0]}); set label.fidelity to a fidelity scorer, or add the columns"
            )
    negative = [pair for pair in pairs if pair.weight is not None and pair.weight < 0]
    if negative:
        raise DataError(f"pair {negative[0].pair_id} has weight {negative[0].weight}; weights must be ≥ 0")
    if not any(pair.weight is None or pair.weight > 0 for pair in pairs):
        raise DataError("every pair has weight 0, so training would have no effect; give some pairs a weight above 0")


def _refuse_semantic_weights(pairs: Sequence[Pair]) -> None:
    """Refuses weights that are exp(−α·distance), which an objective that weights by distance would apply a second time.

    Pairs without a weight do not matter: rows of another file may have been added.

    Raises:
        DataError: every given weight is exp(−α·distance), with one α.
    """
    weighted = [(pair.weight, pair.distance) for pair in pairs if pair.weight is not None and pair.distance is not None]
    if weighted and (alpha := alpha_of_weights(*zip(*weighted, strict=True))):
        raise DataError(
            f"the column weight is exp(-{alpha:.3g} * distance) already, and this objective would apply such a weight "
            "twice; train with the objective dpo, which uses the column (--objective dpo), or write the file again by "
            "`semdpo weigh` without --alpha"
        )


def encoders_of(pairs: Sequence[Pair]) -> list[tuple[str | None, str | None]]:
    """Name and fingerprint of every encoder that measured the pairs' distances; (None, None) is an unknown encoder."""
    by_content = {p.encoder_fingerprint: p.encoder for p in reversed(pairs) if p.distance is not None}
    return [(name, content) for content, name in reversed(by_content.items())]


def settings_after(pairs: Sequence[Pair], start: RewriterSettings) -> RewriterSettings:
    """The settings of a trained rewriter: with the encoder that measured all pairs, or else the starting model's.

    Args:
        pairs: the training pairs.
        start: settings of the starting model.
    """
    encoders = encoders_of(pairs)
    name, content = encoders[0] if len(encoders) == 1 and encoders[0][0] else (start.encoder, start.encoder_fingerprint)
    return replace(start, encoder=name, encoder_fingerprint=content)


def data_of_pairs(pairs: Sequence[Pair]) -> Data:
    """The columns of all pairs, from which an objective computes its constants."""
    return Data(
        [pair.distance or 0.0 for pair in pairs],
        [(pair.chosen_score or 0.0, pair.rejected_score or 0.0) for pair in pairs],
        [(pair.chosen_fidelity or 0.0, pair.rejected_fidelity or 0.0) for pair in pairs],
    )


def groups_of(pairs: Sequence[Pair], model: Any, tokenizer: Any, template: Template, max_length: int) -> list[Group]:
    """The tokens of the pairs, one group per pair.

    Args:
        pairs: the pairs, n.
        model: the model that will read them.
        tokenizer: the model's tokenizer.
        template: what the model reads around a prompt.
        max_length: largest number of tokens of prompt and rewrite together.

    Raises:
        DataError: a pair is longer, or a text cannot be read.
    """
    names, sides = _names(pairs), [(pair.chosen, pair.rejected) for pair in pairs]
    groups = encode(tokenizer, template, [pair.prompt for pair in pairs], sides, names)
    refuse_too_long(groups, names, max_length, getattr(model.config, "max_position_embeddings", None))
    return groups


def _names(pairs: Sequence[Pair]) -> list[str]:
    return [f"pair {pair.pair_id}" for pair in pairs]


def examples_of(
    pairs: Sequence[Pair],
    groups: Sequence[Group],
    model: Any,
    precision: str,
    can_pack: bool,
    cache: Path | None,
    progress: Progress,
) -> list[Example]:
    """The training examples of pairs, with their log-probabilities under the reference.

    Args:
        pairs: the pairs, n.
        groups: tokens of the pairs, n.
        model: the starting model, which is the reference; None leaves their log-probabilities out.
        precision: precision in which it computes.
        can_pack: whether ``prepare.prepare`` accepted the model for packing.
        cache: file of the reference's log-probabilities; None keeps none.
        progress: called after every batch.
    """
    logps: Sequence[tuple[float, ...]] = [()] * len(groups)
    if model is not None:
        with autocast(precision, model):
            logps = reference_logps(model, groups, can_pack, cache, progress)
    return [
        Example(
            name,
            group,
            reference,
            distance=pair.distance or 0.0,
            weight=pair.own_weight,
            scores=(pair.chosen_score or 0.0, pair.rejected_score or 0.0),
            fidelities=(pair.chosen_fidelity or 0.0, pair.rejected_fidelity or 0.0),
        )
        for name, group, reference, pair in zip(_names(pairs), groups, logps, pairs, strict=True)
    ]


def _scores(pair: Pair) -> tuple[float | None, ...]:
    return pair.chosen_score, pair.rejected_score, pair.chosen_fidelity, pair.rejected_fidelity
