"""Preference training: trains a rewriter on pairs with any objective and writes its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from semdpo import disk, extras
from semdpo.data.records import Curve, Pair, content_id
from semdpo.engine import fingerprint, model_folders, store
from semdpo.errors import ConfigError
from semdpo.models.adapters import is_adapters, merge, name_of_base
from semdpo.models.loading import quiet
from semdpo.models.registry import Place, resolve
from semdpo.models.rewriter import load_causal
from semdpo.models.rewriter_settings import read_settings
from semdpo.objectives.base import Constants
from semdpo.progress import Progress, is_first_process, say
from semdpo.recipe.models import LoRAConfig
from semdpo.recipe.objectives import ObjectiveSettings
from semdpo.recipe.schema import TrainConfig
from semdpo.training import checkpoints
from semdpo.training.arguments import training_arguments
from semdpo.training.batches import Example
from semdpo.training.criterion import criterion_for
from semdpo.training.examples import check, data_of_pairs, examples_of, groups_of, settings_after
from semdpo.training.folder import budget, renamed_at_the_end, save
from semdpo.training.guard import refuse_too_few
from semdpo.training.plan import longest_of
from semdpo.training.precision import resolve_precision
from semdpo.training.prepare import prepare
from semdpo.training.reference import cache_file, described
from semdpo.training.trainer import ExampleTrainer


def train(
    pairs: Sequence[Pair],
    model: str,
    objective: ObjectiveSettings,
    config: TrainConfig,
    output: Path,
    cache: Path,
    progress: Progress,
    held_out: Sequence[Pair] = (),
) -> list[Curve]:
    """Trains a rewriter on preference pairs; the starting model is the reference.

    The order of pairs depends on the seed only, so two objectives with the same seed see the same batches, and Sem-DPO
    with α = 0 gives the same model as DPO, bit for bit. An interrupted training resumes from its last checkpoint; the
    checkpoints are next to the output.

    Args:
        pairs: training pairs, with distances for Sem-DPO, and with scores and fidelities for the additive objective.
        model: the rewriter to start from: ``tiny:NAME``, a folder or a published name.
        objective: settings of the objective.
        config: settings of the training, the same for all objectives.
        output: folder of the trained rewriter, written completely or not at all.
        cache: folder of the reference's log-probabilities, which all objectives, seeds and α share.
        progress: called after every step.
        held_out: pairs that are evaluated after the training; they need the same columns as ``pairs``.

    Returns:
        Curves from step 0 (before the first update) on: loss, reward_margin, reward_accuracy, chosen_logp_change,
        rejected_logp_change, mean_weight, effective_sample_size, tokens, completion_length, learning_rate, and those of
        the objective; at the last step eval_loss and eval_reward_accuracy of the held-out pairs. Their method is the
        objective's name.

    Raises:
        DataError: there are no pairs, a pair lacks a column that the objective needs, a sequence is too long, or a
            loss is not finite.
        ConfigError: adapters are to be trained, but PEFT is not installed.
        ModelError: the model cannot be loaded.
        StoreError: the output cannot be written.
    """
    constants = _checked(pairs, held_out, objective, config)
    place = resolve(model)
    policy, tokenizer = _loaded(model, place, config)
    precision = resolve_precision(config.precision)
    if config.precision == "auto":
        say(f"computing in {precision}, with weights in float32")
    groups, held_out_groups = (
        groups_of(part, policy, tokenizer, config.reads, config.max_length) for part in (pairs, held_out)
    )
    processes = PartialState(cpu=not torch.cuda.is_available())
    policy.to(processes.device)
    can_pack = prepare(policy, longest_of(objective, [*groups, *held_out_groups]))
    setting = (model, policy, config.reads, config.max_length, precision, can_pack)
    with processes.main_process_first():  # the other processes read its cache
        cached = cache_file(cache, *setting)
        examples = examples_of(pairs, groups, policy, precision, can_pack, cached, progress)
        # Separately, because rounding depends on the batch: held-out pairs must not change the training.
        evaluated = (
            examples_of(held_out, held_out_groups, policy, precision, can_pack, cached, progress) if held_out else []
        )
    identity = described(*setting) | _identity(pairs, examples, objective, constants, config)
    work = checkpoints.folder_of(output)
    with processes.main_process_first():
        last = checkpoints.opened(work, identity)
    if last is not None:
        say(f"resuming from {last.name}")
    if config.lora is not None:
        policy = _with_adapters(policy, config.lora, config.seed)
    trainer = _trainer(policy, examples, evaluated, objective, config, work, can_pack, progress)
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    if sharded and config.lora is not None and is_adapters(place.folder()):
        raise ConfigError(
            f"adapters on top of the adapters in '{model}' cannot be trained on a sharded model; train without "
            "train.lora, or without FSDP and DeepSpeed"
        )
    with _writing(output) as final:
        try:
            with quiet():
                trainer.train(resume_from_checkpoint=None if last is None else str(last))
        finally:
            checkpoints.sweep(work)
        if evaluated:
            trainer.evaluate()
        weights = trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded else None
        if final is not None:
            card = _card(config, identity)
            start = read_settings(place.folder())
            new_tokens = budget([example.group for example in examples], start)
            settings = replace(
                settings_after(pairs, start),
                template=config.template,
                system=config.system,
                max_new_tokens=new_tokens,
            )
            save(final, _finished(trainer.model, place, config), tokenizer, settings, objective.name, card, weights)
    if final is not None:
        disk.remove(work)
    return trainer.curves


def _checked(
    pairs: Sequence[Pair], held_out: Sequence[Pair], objective: ObjectiveSettings, config: TrainConfig
) -> Constants:
    """Refuses pairs and settings that do not suit the objective; returns its constants of the whole data set."""
    if config.lora is not None:
        extras.require(lora="train.lora")
    check(pairs, objective)
    if held_out:
        check([*pairs, *held_out], objective)
    refuse_too_few(objective, [pair.prompt for pair in pairs], config.batch_size)
    constants = criterion_for(objective, config.beta, data_of_pairs(pairs)).constants
    _report_constants(objective, constants)
    return constants


def _loaded(model: str, place: Place, config: TrainConfig) -> tuple[Any, Any]:
    """The starting model and its tokenizer; adapters are merged into their base."""
    model_folders.refuse_damaged(place.folder())
    with fingerprint.unchanged(model):
        policy, tokenizer = load_causal(place.folder(), place.tokenizer_folder())
    if is_adapters(place.folder()):
        whole = "; the trained rewriter is a whole model" if config.lora else ""
        say(f"'{model}' holds adapters; training starts from its base with their weights added{whole}")
    return policy, tokenizer


def _report_constants(objective: ObjectiveSettings, constants: Constants) -> None:
    """Reports the constants that were computed from the data instead of set by the user."""
    for name, value in constants.items():
        if getattr(objective, name, None) != value:
            say(f"{objective.name}: {name} is {value:.3g}, computed from the pairs")


def _identity(
    pairs: Sequence[Pair],
    examples: Sequence[Example],
    objective: ObjectiveSettings,
    constants: Constants,
    config: TrainConfig,
) -> dict[str, Any]:
    """Everything that a training depends on in addition to the starting model, as JSON values."""
    return {
        "pairs": [content_id(pair.pair_id, pair.prompt, pair.chosen, pair.rejected) for pair in pairs],
        "numbers": [[row.weight, row.distance, row.preference, row.fidelity] for row in examples],
        "objective": objective.model_dump(mode="json") | dict(constants),
        "config": config.model_dump(mode="json", exclude={"methods", "report_to"}),
        "versions": store.versions(),
    }


def _trainer(
    policy: Any,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    objective: ObjectiveSettings,
    config: TrainConfig,
    work: Path,
    can_pack: bool,
    progress: Progress,
) -> ExampleTrainer:
    with quiet():
        args = training_arguments(
            work,
            learning_rate=objective.learning_rate or config.learning_rate,
            seed=config.seed,
            precision=resolve_precision(config.precision),
            checkpoint_steps=config.checkpoint_steps,
            report_to=config.report_to,
        )
        return ExampleTrainer(
            policy,
            args,
            examples,
            objective=objective,
            beta=config.beta,
            batch_size=config.batch_size,
            micro_batch_size=config.micro_batch_size,
            epochs=config.epochs,
            warmup_ratio=config.warmup_ratio,
            order_seed=config.seed,
            can_pack=can_pack,
            progress=progress,
            held_out=held_out,
        )


def _with_adapters(model: Any, config: LoRAConfig, seed: int) -> Any:
    """The model with new adapters, which leave its output unchanged at first.

    Args:
        model: the model to be trained.
        config: settings of the adapters.
        seed: seed of their initial weights.
    """
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        task_type="CAUSAL_LM", r=config.rank, lora_alpha=config.alpha, target_modules=config.target_modules
    )
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(
                seed
            )  # PEFT uses the CPU's generator; those of other devices stay unchanged
            return get_peft_model(model, settings)
    except ValueError as error:
        raise ConfigError(f"train.lora does not fit {type(model).__name__}: {error}") from error


def _finished(model: Any, place: Place, config: TrainConfig) -> Any:
    """The model to save: a whole model where training started from adapters, or else the new adapters."""
    if config.lora is None:
        return model
    if is_adapters(place.folder()):
        return merge(model)
    model.peft_config["default"].base_model_name_or_path = name_of_base(place)
    return model


@contextmanager
def _writing(output: Path) -> Iterator[Path | None]:
    """The folder to write into; None in all processes except the first."""
    if is_first_process():
        with renamed_at_the_end(output) as folder:
            yield folder
    else:
        yield None


def _card(config: TrainConfig, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The rows of the model card about the training."""
    return {
        "objective": ", ".join(f"{key} {value}" for key, value in identity["objective"].items()),
        **config.model_dump(exclude={"methods", "report_to", "template", "system"}, exclude_none=True),
        "pairs": len(identity["pairs"]),
        "SHA-256 of the pairs": store.digest(store.canonical([identity["pairs"], identity["numbers"]])),
        "SHA-256 of the starting model": identity["model"],
        **{f"{name} version": version for name, version in identity["versions"].items()},
    }
