"""From preference pairs to what is learnt: tokens, and the reference's log-probabilities of them."""

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
from semdpo.recipe.objectives import ObjectiveSettings
from semdpo.training.batches import Example, encode, refuse_too_long
from semdpo.training.packing import Group
from semdpo.training.precision import autocast
from semdpo.training.reference import reference_logps


def check(pairs: Sequence[Pair], objective: ObjectiveSettings) -> None:
    """Refuses pairs that lack what an objective needs.

    Raises:
        DataError: with the cure.
    """
    if not pairs:
        raise DataError("there are no pairs to train on; give more prompts or lower pairs.margin")
    if objective.needs_distance:
        without = [each.pair_id for each in pairs if each.distance is None]
        if without:
            raise DataError(
                f"{len(without)} of {len(pairs)} pairs have no distance (such as {without[0]}); "
                "run `semdpo weigh` first"
            )
        wrong = [each for each in pairs if not -1e-6 <= (each.distance or 0.0) <= 2 + 1e-6]
        if wrong:
            raise DataError(
                f"pair {wrong[0].pair_id} has distance {wrong[0].distance}, which is no cosine distance; "
                "run `semdpo weigh` again"
            )
        named = [each for each in encoders_of(pairs) if each[1]]
        if len({content for _, content in named}) > 1:
            both = (
                f"{named[0][0]} and {named[1][0]}" if named[0][0] != named[1][0] else f"two versions of {named[0][0]}"
            )
            raise DataError(f"the distances are from {both}, and cannot be compared; run `semdpo weigh` on all pairs")
        _refuse_semantic_weights(pairs)
    if objective.needs_fidelity:
        without = [each.pair_id for each in pairs if None in _scores(each)]
        if without:
            raise DataError(
                f"{len(without)} of {len(pairs)} pairs lack chosen_score, rejected_score, chosen_fidelity or "
                f"rejected_fidelity (such as {without[0]}); set label.fidelity to a fidelity scorer, or add the columns"
            )
    negative = [each for each in pairs if each.weight is not None and each.weight < 0]
    if negative:
        raise DataError(f"pair {negative[0].pair_id} has weight {negative[0].weight}; weights must be ≥ 0")
    if not any(each.weight is None or each.weight > 0 for each in pairs):
        raise DataError("every pair has weight 0, so that nothing would be learnt; give some of them a weight above 0")


def _refuse_semantic_weights(pairs: Sequence[Pair]) -> None:
    """Refuses weights that are exp(−α·distance) already: an objective that weights by distance would apply it twice.

    Raises:
        DataError: they are.
    """
    weighted = [(pair.weight, pair.distance) for pair in pairs if pair.weight is not None and pair.distance is not None]
    if len(weighted) < len(pairs):
        return
    if alpha := alpha_of_weights(*zip(*weighted, strict=True)):
        raise DataError(
            f"the column weight is exp(-{alpha:.3g} * distance) already, and this objective would apply such a weight "
            "twice; train with the objective dpo, which uses the column (--objective dpo), or write the file again by "
            "`semdpo weigh` without --alpha"
        )


def encoders_of(pairs: Sequence[Pair]) -> list[tuple[str | None, str | None]]:
    """Name and fingerprint of each encoder that measured the pairs' distances; (None, None) is one that is unknown."""
    by_content = {p.encoder_fingerprint: p.encoder for p in reversed(pairs) if p.distance is not None}
    return [(name, content) for content, name in reversed(by_content.items())]


def kept_after(pairs: Sequence[Pair], start: RewriterSettings) -> RewriterSettings:
    """What a trained rewriter keeps: the encoder that all its pairs' distances are from, or else the start's own."""
    found = encoders_of(pairs)
    name, content = found[0] if len(found) == 1 and found[0][0] else (start.encoder, start.encoder_fingerprint)
    return replace(start, encoder=name, encoder_fingerprint=content)


def data_of_pairs(pairs: Sequence[Pair]) -> Data:
    """What an objective may ask of all pairs together."""
    return Data(
        [each.distance or 0.0 for each in pairs],
        [(each.chosen_score or 0.0, each.rejected_score or 0.0) for each in pairs],
        [(each.chosen_fidelity or 0.0, each.rejected_fidelity or 0.0) for each in pairs],
    )


def groups_of(pairs: Sequence[Pair], model: Any, tokenizer: Any, template: str, max_length: int) -> list[Group]:
    """The pairs' tokens.

    Args:
        pairs: n of them.
        model: that will read them.
        tokenizer: its own.
        template: with ``{prompt}`` in it.
        max_length: tokens of prompt and rewrite.

    Raises:
        DataError: a pair is longer, or a text cannot be read.
    """
    names, sides = _names(pairs), [(each.chosen, each.rejected) for each in pairs]
    groups = encode(tokenizer, template, [each.prompt for each in pairs], sides, names)
    refuse_too_long(groups, names, max_length, getattr(model.config, "max_position_embeddings", None))
    return groups


def _names(pairs: Sequence[Pair]) -> list[str]:
    return [f"pair {each.pair_id}" for each in pairs]


def examples_of(
    pairs: Sequence[Pair],
    groups: Sequence[Group],
    model: Any,
    precision: str,
    can_pack: bool,
    cache: Path | None,
    progress: Progress,
) -> list[Example]:
    """The pairs, with the reference's log-probabilities of them.

    Args:
        pairs: n of them.
        groups: their tokens, n.
        model: as training starts; it is the reference.
        precision: in which it computes.
        can_pack: whether ``prepare.prepare`` accepted the model.
        cache: the file of the reference's log-probabilities; None keeps nothing.
        progress: told after every batch.
    """
    with autocast(precision, model):
        logps = reference_logps(model, groups, can_pack, cache, progress)
    return [
        Example(
            name,
            group,
            reference,
            distance=pair.distance or 0.0,
            weight=1.0 if pair.weight is None else pair.weight,
            scores=(pair.chosen_score or 0.0, pair.rejected_score or 0.0),
            fidelities=(pair.chosen_fidelity or 0.0, pair.rejected_fidelity or 0.0),
        )
        for name, group, reference, pair in zip(_names(pairs), groups, logps, pairs, strict=True)
    ]


def _scores(pair: Pair) -> tuple[float | None, ...]:
    return pair.chosen_score, pair.rejected_score, pair.chosen_fidelity, pair.rejected_fidelity
