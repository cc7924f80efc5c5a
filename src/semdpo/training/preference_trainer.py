"""``PreferenceTrainer``: trains a rewriter on preference pairs, with an interface like that of TRL's trainers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from semdpo import disk
from semdpo.data.records import Pair
from semdpo.engine import fingerprint, model_folders
from semdpo.errors import ConfigError, DataError
from semdpo.models.adapters import is_adapters, name_of_base
from semdpo.models.loading import quiet
from semdpo.models.registry import resolve
from semdpo.models.rewriter import load_causal
from semdpo.models.rewriter_settings import RewriterSettings, read_settings, write_settings
from semdpo.progress import Progress, silent
from semdpo.protocols import TextEncoder
from semdpo.recipe.base import TEMPLATE
from semdpo.recipe.objectives import ObjectiveSettings
from semdpo.training import user_pairs
from semdpo.training.batches import Example, draw_batches
from semdpo.training.config import PreferenceConfig
from semdpo.training.examples import check, examples_of, groups_of, settings_after
from semdpo.training.folder import budget, write_card
from semdpo.training.packing import Group
from semdpo.training.plan import Plan, longest_of
from semdpo.training.prepare import prepare
from semdpo.training.reference import cache_file
from semdpo.training.trainer import ExampleTrainer


class PreferenceTrainer(ExampleTrainer):
    """Trains a prompt rewriter on preference pairs, with any objective.

    It is a transformers ``Trainer``: ``train``, ``evaluate``, ``save_model``, callbacks, trackers, checkpoints, several
    processes and ``push_to_hub`` work as transformers documents. The starting model is the reference. Its
    log-probabilities are computed once, before training, and cached in the user's cache folder under a fingerprint of
    the model.

    Args:
        model: the starting model: a name, a folder (``tiny:gpt2`` is included), or a causal language model with float32
            weights.
        args: settings of the training; the default trains Sem-DPO as the paper does.
        train_dataset: training pairs: a ``datasets.Dataset``, a list of rows, or a file's path. The columns are prompt,
            chosen and rejected (texts, or conversations of one turn), and optionally distance, weight, chosen_score,
            rejected_score, chosen_fidelity and rejected_fidelity.
        eval_dataset: pairs that ``evaluate`` uses, in the same forms; or a mapping of names to such sets of pairs.
        processing_class: the tokenizer; None uses the model's own.
        peft_config: configuration of PEFT; given, adapters are trained instead of all weights.
        encoder: encoder that measures the drift of pairs without ``distance``: a name, a folder, or an object with
            ``encode``.
        compute_metrics: function of an ``EvalPrediction`` whose predictions are the rewards of chosen and rejected,
            [n, 2], and whose labels are the index of the chosen, 0, [n].
        callbacks: callbacks of transformers.
        optimizers: optimizer and learning-rate scheduler, as transformers takes them.
        cache: folder of the reference's log-probabilities; None is the user's cache folder.
        progress: called after every step.

    Raises:
        ConfigError: settings contradict each other.
        DataError: pairs lack a column that the objective needs, are too long, or cannot be read; the message names the
            rows.
        ModelError: a model cannot be loaded.

    Example:
        >>> from semdpo import PreferenceConfig, PreferenceTrainer
        >>> rows = [
        ...     {"prompt": f"a {colour} cat", "chosen": f"a {colour} cat, oil", "rejected": "a dog", "distance": 0.1}
        ...     for colour in ("red", "blue")
        ... ]
        >>> args = PreferenceConfig(output_dir="out", alpha=4, report_to="none", disable_tqdm=True, save_strategy="no")
        >>> trainer = PreferenceTrainer("tiny:gpt2", args=args, train_dataset=rows)
        >>> round(trainer.train().training_loss, 3) <= 0.694
        True
    """

    def __init__(
        self,
        model: str | Path | Any,
        args: PreferenceConfig | None = None,
        train_dataset: user_pairs.Source = None,
        eval_dataset: user_pairs.Source | Mapping[str, user_pairs.Source] | None = None,
        processing_class: Any = None,
        peft_config: Any = None,
        *,
        encoder: str | Path | TextEncoder | None = None,
        compute_metrics: Callable[[Any], dict[str, float]] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        cache: str | Path | None = None,
        progress: Progress = silent,
    ) -> None:
        args = PreferenceConfig() if args is None else args
        if not isinstance(args, PreferenceConfig):
            raise ConfigError(
                f"args must be a PreferenceConfig, not {type(args).__name__}; it takes the same arguments"
            )
        if train_dataset is None:
            raise DataError("there are no pairs to train on; give train_dataset")
        self._encoder, objective = encoder, args.settings
        pairs = self._read(train_dataset, "train_dataset", objective)
        start = _start(model, processing_class, args)
        policy, tokenizer = start.model, start.tokenizer
        policy.to(args.device)
        groups = groups_of(pairs, policy, tokenizer, start.kept.template, args.max_length)
        can_pack = prepare(policy, longest_of(objective, groups))
        self._examples_of = partial(_examples, start, args, can_pack, cache, progress)
        examples, held_out = self._examples_of(pairs, groups), self._held_out(eval_dataset, objective)
        if peft_config is not None:
            policy = _with_adapters(start, peft_config, args.seed)
        self._kept = replace(settings_after(pairs, start.kept), max_new_tokens=budget(groups, start.kept))
        size = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        epochs, steps = _length(args, len(examples), size)
        with quiet():
            super().__init__(
                policy,
                args,
                examples,
                objective=objective,
                beta=args.beta,
                batch_size=size,
                micro_batch_size=args.per_device_train_batch_size,
                epochs=epochs,
                steps=steps,
                warmup_ratio=None,
                order_seed=args.seed,
                can_pack=can_pack,
                progress=progress,
                callbacks=callbacks,
                held_out=held_out,
                processing_class=tokenizer,
                compute_metrics=compute_metrics,
                optimizers=optimizers,
            )

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The mean loss and reward accuracy of held-out pairs, and the metrics of ``compute_metrics``.

        Args:
            eval_dataset: pairs in one of the forms of ``train_dataset``, or a mapping of names to such sets of pairs;
                None uses the trainer's ``eval_dataset``.
            ignore_keys: not used; part of transformers' signature.
            metric_key_prefix: prefix of the metrics' names.
        """
        if eval_dataset is not None and not isinstance(eval_dataset, Plan | Mapping):
            eval_dataset = self._held_out(eval_dataset, self.objective)
        return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Saves the model, and the settings with which ``PromptOptimizer`` uses it as it was trained."""
        super()._save(output_dir, state_dict)
        if self.args.should_save:  # the first of several processes
            write_settings(Path(output_dir or self.args.output_dir), self._kept)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Writes the model card of a rewriter; ``push_to_hub`` calls it."""
        if self.is_world_process_zero():
            shown = ("beta", "learning_rate", "num_train_epochs", "per_device_train_batch_size", "seed", "bf16")
            objective = ", ".join(f"{name} {value}" for name, value in self.objective.model_dump().items())
            settings = {"objective": objective} | {name: getattr(self.args, name) for name in shown}
            write_card(Path(self.args.output_dir), self._kept, self.method, settings)

    def _read(self, source: user_pairs.Source, name: str, objective: ObjectiveSettings) -> list[Pair]:
        pairs = user_pairs.read(source, name)
        if objective.needs_distance:
            pairs = user_pairs.with_distance(pairs, self._encoder, name)
        check(pairs, objective)
        return pairs

    def _held_out(self, source: Any, objective: ObjectiveSettings) -> Any:
        if isinstance(source, Mapping):
            return {name: self._held_out(pairs, objective) for name, pairs in source.items()}
        return [] if source is None else self._examples_of(self._read(source, "eval_dataset", objective))


@dataclass(frozen=True)
class _Start:
    """The starting model.

    Attributes:
        model: the model, with float32 weights.
        tokenizer: the model's tokenizer.
        kept: settings that the rewriter needs for use.
        name: name or folder of the model; None where a model object was given.
    """

    model: Any
    tokenizer: Any
    kept: RewriterSettings
    name: str | None


def _start(model: str | Path | Any, tokenizer: Any, args: PreferenceConfig) -> _Start:
    if not isinstance(model, str | Path):
        if tokenizer is None:
            raise ConfigError("the model is an object, so its tokenizer is not known; give processing_class")
        return _Start(model, tokenizer, RewriterSettings(args.template or TEMPLATE), None)
    place = resolve(str(model))
    model_folders.refuse_damaged(place.folder())
    with fingerprint.unchanged(str(model)):
        policy, own_tokenizer = load_causal(place.folder(), place.tokenizer_folder())
    kept = read_settings(place.folder())
    return _Start(
        policy, tokenizer or own_tokenizer, replace(kept, template=args.template or kept.template), str(model)
    )


def _examples(
    start: _Start,
    args: PreferenceConfig,
    can_pack: bool,
    cache: str | Path | None,
    progress: Progress,
    pairs: Sequence[Pair],
    groups: Sequence[Group] | None = None,
) -> list[Example]:
    """The training examples of pairs; the reference's log-probabilities are cached where the model has a name."""
    model, template, precision = start.model, start.kept.template, "bfloat16" if args.bf16 else "float32"
    tokens = groups or groups_of(pairs, model, start.tokenizer, template, args.max_length)
    cached = None
    if start.name is not None:
        folder = Path(cache) if cache is not None else disk.cache_folder() / "reference"
        cached = cache_file(folder, start.name, model, template, args.max_length, precision, can_pack)
    with args.main_process_first(desc="the reference's log-probabilities"):
        return examples_of(pairs, tokens, model, precision, can_pack, cached, progress)


def _with_adapters(start: _Start, peft_config: Any, seed: int) -> Any:
    from peft import get_peft_model

    place = None if start.name is None else resolve(start.name)
    if place is not None and is_adapters(place.folder()):
        raise ConfigError(
            f"'{start.name}' holds adapters already; leave peft_config out, which trains its whole model, or use "
            "semdpo.train with lora_rank, which saves a whole model"
        )
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        adapted = get_peft_model(start.model, peft_config)
    if place is not None:
        adapted.peft_config["default"].base_model_name_or_path = name_of_base(place)
    return adapted


def _length(args: PreferenceConfig, examples: int, size: int) -> tuple[int, int | None]:
    """The number of passes over the data, and of updates after which training ends; None ends with the last pass."""
    per_pass = len(draw_batches([1] * examples, size, 1, 0))
    if args.max_steps > 0:
        return math.ceil(args.max_steps / per_pass), args.max_steps
    whole = math.ceil(args.num_train_epochs)
    return whole, None if whole == args.num_train_epochs else math.ceil(args.num_train_epochs * per_pass)
