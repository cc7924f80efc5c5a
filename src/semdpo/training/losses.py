"""The unweighted loss of a trained rewriter on every training pair."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
from semdpo.training.reference import cache_file, reference_logps


def pair_losses(
    pairs: Sequence[Pair],
    policy: str,
    reference: str,
    beta: float,
    config: TrainConfig,
    cache: Path,
    progress: Progress,
) -> list[PairLoss]:
    """The unweighted DPO loss ℓ = −log σ(Δ) of every pair under the trained policy.

    Args:
        pairs: the training pairs, with distances.
        policy: folder of the trained rewriter.
        reference: name or folder of the model that its training started from.
        beta: strength of the regularisation towards the reference.
        config: settings of the training, for template, precision and longest sequence.
        cache: folder of the reference's log-probabilities.
        progress: called after every batch.

    Returns:
        One row per pair, in the order of the pairs.

    Raises:
        DataError: a pair has no distance, or a loss is not finite.
        ModelError: a model cannot be loaded.
    """
    place = resolve(reference)
    _, tokenizer = load_causal(place.folder(), place.tokenizer_folder())
    texts = [(pair.chosen, pair.rejected) for pair in pairs]
    names = [f"pair {pair.pair_id}" for pair in pairs]
    groups = encode(tokenizer, config.template, [pair.prompt for pair in pairs], texts, names)
    before = _logps(reference, groups, config, cache, progress)
    after = _logps(policy, groups, config, None, progress)
    (chosen, rejected), (ref_chosen, ref_rejected) = (torch.tensor(rows).unbind(1) for rows in (after, before))
    losses = dpo(chosen, rejected, ref_chosen, ref_rejected, beta=beta, weight=torch.ones(len(pairs))).losses.tolist()
    rows = []
    for pair, loss in zip(pairs, losses, strict=True):
        if pair.distance is None or not torch.isfinite(torch.tensor(loss)):
            raise DataError(f"pair {pair.pair_id} has distance {pair.distance} and loss {loss}; weigh and train again")
        rows.append(PairLoss(pair.pair_id, pair.distance, loss))
    return rows


def _logps(
    name: str, groups: Sequence[Group], config: TrainConfig, cache: Path | None, progress: Progress
) -> list[tuple[float, ...]]:
    place = resolve(name)
    with fingerprint.unchanged(name):
        model, _ = load_causal(place.folder(), place.tokenizer_folder())
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    can_pack = prepare(model, max(group.longest for group in groups))
    precision = resolve_precision(config.precision)
    cached = None
    if cache is not None:
        cached = cache_file(cache, name, model, config.template, config.max_length, precision, can_pack)
    with autocast(precision, model):
        return reference_logps(model, groups, can_pack, cached, progress)
