"""The unweighted loss of a trained rewriter on every training pair."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from semdpo.data.records import Pair, PairLoss
from semdpo.engine import fingerprint
from semdpo.errors import DataError
from semdpo.models.registry import resolve
from semdpo.models.rewriter import load_causal
from semdpo.objectives import dpo
from semdpo.progress import Progress
from semdpo.recipe.schema import TrainConfig
from semdpo.training.batches import encode
from semdpo.training.packing import Group
from semdpo.training.precision import autocast, resolve_precision
from semdpo.training.prepare import prepare
from semdpo.training.reference import cache_file, logps_of, read_cache

Losses = Callable[[Sequence[Pair], Progress], list[PairLoss]]


def losses_of(
    pairs: Iterable[Sequence[Pair]], policy: str, reference: str, beta: float, config: TrainConfig, cache: Path
) -> Losses:
    """Loads a trained rewriter and its reference, to compute the unweighted DPO loss ℓ = −log σ(Δ) of its pairs.

    The reference's log-probabilities are read from the cache that the training has written. Those that it lacks are
    computed, and not stored.

    Args:
        pairs: all training pairs in parts, of which one at a time is in memory; the longest of them decides how
            sequences are packed, so that every part is computed in the same way.
        policy: folder of the trained rewriter.
        reference: name or folder of the model that its training started from.
        beta: strength of the regularisation towards the reference.
        config: settings of the training, for template, precision and longest sequence.
        cache: folder of the reference's log-probabilities.

    Returns:
        A function of some of the pairs, with distances, and a ``Progress``, which is called after every batch. It
        gives one row per pair, in the order of the pairs, and raises ``DataError`` where a pair has no distance, or a
        loss is not finite.

    Raises:
        ModelError: a model cannot be loaded.
    """
    place = resolve(reference)
    _, tokenizer = load_causal(place.folder(), place.tokenizer_folder())
    encoded = partial(_encoded, tokenizer, config)
    longest = max((group.longest for part in pairs for group in encoded(part)), default=0)
    before, after = _Measured(reference, longest, config), _Measured(policy, longest, config)
    known = read_cache(
        cache_file(
            *(cache, reference, before.model, config.reads, config.max_length),
            *(before.precision, before.can_pack),
        )
    )

    def losses(part: Sequence[Pair], progress: Progress) -> list[PairLoss]:
        groups = encoded(part)
        logps = [after.logps(groups, {}, progress), before.logps(groups, known, progress)]
        (chosen, rejected), (ref_chosen, ref_rejected) = (torch.tensor(rows).unbind(1) for rows in logps)
        one = torch.ones(len(part))
        found = dpo(chosen, rejected, ref_chosen, ref_rejected, beta=beta, weight=one).losses
        return [_row(pair, loss) for pair, loss in zip(part, found.tolist(), strict=True)]

    return losses


def _encoded(tokenizer: Any, config: TrainConfig, pairs: Sequence[Pair]) -> list[Group]:
    texts = [(pair.chosen, pair.rejected) for pair in pairs]
    names = [f"pair {pair.pair_id}" for pair in pairs]
    return encode(tokenizer, config.reads, [pair.prompt for pair in pairs], texts, names)


def _row(pair: Pair, loss: float) -> PairLoss:
    if pair.distance is None or not math.isfinite(loss):
        raise DataError(f"pair {pair.pair_id} has distance {pair.distance} and loss {loss}; weigh and train again")
    return PairLoss(pair.pair_id, pair.distance, loss)


class _Measured:
    """A model that is loaded once, and measures log-probabilities of any number of sequences."""

    def __init__(self, name: str, longest: int, config: TrainConfig) -> None:
        place = resolve(name)
        with fingerprint.unchanged(name):
            self.model, _ = load_causal(place.folder(), place.tokenizer_folder())
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")
        self.can_pack = prepare(self.model, longest)
        self.precision = resolve_precision(config.precision)

    def logps(self, groups: Sequence[Group], known: dict[str, float], progress: Progress) -> list[tuple[float, ...]]:
        with autocast(self.precision, self.model):
            return logps_of(self.model, groups, self.can_pack, known, progress)
