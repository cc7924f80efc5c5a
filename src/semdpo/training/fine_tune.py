"""Supervised fine-tuning of a language model on examples of rewrites."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from semdpo.data.records import Curve
from semdpo.engine import model_folders
from semdpo.errors import DataError
from semdpo.models.loading import quiet
from semdpo.models.registry import resolve
from semdpo.models.rewriter import load_causal
from semdpo.models.rewriter_settings import RewriterSettings, read_settings
from semdpo.progress import Progress
from semdpo.recipe.objectives import SFTSettings
from semdpo.recipe.schema import SFTConfig
from semdpo.texts import is_visible
from semdpo.training.arguments import training_arguments
from semdpo.training.batches import Example, encode, refuse_too_long, updates_of_a_pass
from semdpo.training.folder import budget, renamed_at_the_end, save
from semdpo.training.precision import resolve_precision
from semdpo.training.trainer import ExampleTrainer


def fine_tune(pairs: Sequence[tuple[str, str]], config: SFTConfig, output: Path, progress: Progress) -> list[Curve]:
    """Trains on prompts, each in the template and followed by its rewrite and the end token; only these have a loss.

    Args:
        pairs: (prompt, rewrite) of every example.
        config: the starting model and the settings of the training.
        output: folder of the trained rewriter, written completely or not at all.
        progress: called after every step.

    Returns:
        The curves ``loss``, ``tokens``, ``completion_length`` and ``learning_rate``, from step 0 (before the first
        update) on.

    Raises:
        DataError: there are no pairs, a text is empty, a sequence is too long, or the loss is not finite.
        ModelError: the model cannot be loaded.
        StoreError: the output cannot be written.
    """
    if not pairs:
        raise DataError("there are no rewrites to learn from; give a file with columns prompt and rewrite")
    prompts, rewrites = [prompt for prompt, _ in pairs], [rewrite for _, rewrite in pairs]
    for row, (prompt, rewrite) in enumerate(pairs, start=1):
        if not is_visible(prompt) or not is_visible(rewrite):
            raise DataError(f"row {row} of the rewrites has an empty text; fill it in or remove it")
    place = resolve(config.model)
    model_folders.refuse_damaged(place.folder())
    model, tokenizer = load_causal(place.folder(), place.tokenizer_folder())
    names = [f"row {i}" for i in range(1, len(pairs) + 1)]
    groups = encode(tokenizer, config.reads, prompts, [(rewrite,) for rewrite in rewrites], names)
    refuse_too_long(groups, names, config.max_length, getattr(model.config, "max_position_embeddings", None))
    examples = [Example(name, group) for name, group in zip(names, groups, strict=True)]
    with renamed_at_the_end(output) as folder:
        with quiet():
            trainer = ExampleTrainer(
                model,
                training_arguments(
                    folder,
                    learning_rate=config.learning_rate,
                    seed=config.seed,
                    precision=resolve_precision(config.precision),
                ),
                examples,
                objective=SFTSettings(name="sft"),
                batch_size=config.batch_size,
                micro_batch_size=config.micro_batch_size,
                epochs=math.ceil(config.steps / updates_of_a_pass(len(examples), config.batch_size)),
                steps=config.steps,
                order_seed=config.seed,
                progress=progress,
            )
            trainer.train()
        settings = {
            "started from": config.model,
            "examples": len(pairs),
            **config.model_dump(exclude={"model", "file"}),
        }
        tokens = budget(groups, read_settings(place.folder()))
        rewriter_settings = RewriterSettings(config.template, tokens, system=config.system)
        save(folder, model, tokenizer, rewriter_settings, "SFT", settings)
    return trainer.curves
