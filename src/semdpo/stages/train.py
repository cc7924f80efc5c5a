"""Stage 7: the rewriter learns preferences, by DPO or Sem-DPO."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semdpo.config import ObjectiveConfig, TrainConfig
from semdpo.errors import DataError
from semdpo.models.loading import quiet
from semdpo.models.names import resolve
from semdpo.models.rewriter import load_causal
from semdpo.progress import Progress
from semdpo.records import Curve, Pair
from semdpo.training.batches import encode, refuse_too_long
from semdpo.training.folder import renamed_at_the_end, save
from semdpo.training.reference import reference_logps
from semdpo.training.trainer import PairItem, PreferenceTrainer, arguments


def train(
    pairs: Sequence[Pair],
    model: str,
    objective: ObjectiveConfig,
    config: TrainConfig,
    output: Path,
    progress: Progress,
) -> list[Curve]:
    """Trains a rewriter on preference pairs; the starting model is the reference.

    The order of pairs depends on the seed only, so two objectives with one seed see the same batches, and Sem-DPO
    with α = 0 gives DPO's weights to the bit.

    Args:
        pairs: with distances where the objective is Sem-DPO.
        model: the rewriter to start from: ``tiny:NAME``, a folder or a published name.
        objective: what is minimised.
        config: how, for all objectives alike.
        output: the trained rewriter's folder, written whole or not at all.
        progress: told after every step.

    Returns:
        Curves from step 0 (before the first update) on: loss, reward_margin, reward_accuracy, chosen_logp_change,
        rejected_logp_change, mean_weight, effective_sample_size, learning_rate. Their method is the objective's name.

    Raises:
        DataError: there are no pairs, one lacks its distance, a sequence is too long, or a loss is not finite.
        ModelError: the model cannot be loaded.
        StoreError: the output cannot be written.
    """
    _check(pairs, objective)
    policy, tokenizer = load_causal(resolve(model).folder())
    items = _items(pairs, policy, tokenizer, config, progress)
    steps = config.epochs * math.ceil(len(items) / config.batch_size)
    with renamed_at_the_end(output) as folder:
        with quiet():
            args = arguments(
                folder,
                batch_size=config.batch_size,
                learning_rate=config.learning_rate,
                steps=steps,
                warmup_ratio=config.warmup_ratio,
                seed=config.seed,
            )
            trainer = PreferenceTrainer(
                policy,
                args,
                items,
                tokenizer.pad_token_id,
                objective.name,
                progress,
                objective=objective,
                beta=config.beta,
            )
            trainer.train()
        settings = {
            "objective": objective.name,
            **({"alpha": objective.alpha} if objective.name == "sem_dpo" else {}),
            "pairs": len(pairs),
            "steps": steps,
            **config.model_dump(exclude={"methods"}),
        }
        save(folder, policy, tokenizer, config.template, objective.name, settings)
    return trainer.curves


def _check(pairs: Sequence[Pair], objective: ObjectiveConfig) -> None:
    if not pairs:
        raise DataError("there are no pairs to train on; give more prompts or lower pairs.margin")
    if objective.name != "sem_dpo":
        return
    without = [each.pair_id for each in pairs if each.distance is None]
    if without:
        raise DataError(
            f"{len(without)} of {len(pairs)} pairs have no distance (such as {without[0]}); run `semdpo weigh` first"
        )
    wrong = [each for each in pairs if not -1e-6 <= (each.distance or 0.0) <= 2 + 1e-6]
    if wrong:
        raise DataError(
            f"pair {wrong[0].pair_id} has distance {wrong[0].distance}, which is no cosine distance; "
            "run `semdpo weigh` again"
        )


def _items(
    pairs: Sequence[Pair], model: Any, tokenizer: Any, config: TrainConfig, progress: Progress
) -> list[PairItem]:
    """The pairs' sequences and the reference's log-probabilities of them."""
    prompts = [each.prompt for each in pairs]
    chosen = encode(tokenizer, config.template, prompts, [each.chosen for each in pairs])
    rejected = encode(tokenizer, config.template, prompts, [each.rejected for each in pairs])
    names = [f"pair {each.pair_id}" for each in pairs]
    positions = getattr(model.config, "max_position_embeddings", None)
    refuse_too_long([*chosen, *rejected], [*names, *names], config.max_length, positions)
    logps = reference_logps(model, [*chosen, *rejected], tokenizer.pad_token_id, 2 * config.batch_size, progress)
    return [
        PairItem(pair.pair_id, a, b, reference_a, reference_b, pair.distance if pair.distance is not None else 0.0)
        for pair, a, b, reference_a, reference_b in zip(
            pairs, chosen, rejected, logps[: len(pairs)].tolist(), logps[len(pairs) :].tolist(), strict=True
        )
    ]
