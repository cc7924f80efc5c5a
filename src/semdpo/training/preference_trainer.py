"""``PreferenceTrainer``: trains a rewriter on preference pairs, with an interface like that of TRL's trainers."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from semdpo import disk
from semdpo.data.records import Pair
from semdpo.errors import ConfigError, DataError
from semdpo.models.loading import quiet
from semdpo.models.rewriter_settings import write_settings
from semdpo.models.standalone import write_for_others
from semdpo.progress import Progress, silent
from semdpo.protocols import TextEncoder
from semdpo.recipe import defaults
from semdpo.recipe.objectives import ObjectiveSettings
from semdpo.training import user_pairs
from semdpo.training.batches import Example, updates_of_a_pass
from semdpo.training.config import PreferenceConfig
from semdpo.training.examples import check, examples_of, groups_of, settings_after
from semdpo.training.folder import budget, write_card
from semdpo.training.packing import Group
from semdpo.training.plan import Plan, longest_of
from semdpo.training.prepare import prepare
from semdpo.training.reference import cache_file
from semdpo.training.starting_model import loaded_again, move, start_of, with_adapters
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
        train_dataset: training pairs: a ``datasets.Dataset``, a pandas data frame, a list of rows, or a file's path.
            The columns are prompt, chosen and rejected (texts, or conversations of one turn), and optionally distance,
            weight, chosen_score, rejected_score, chosen_fidelity and rejected_fidelity.
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

    Source:
        Sem-DPO (arXiv 2507.20133), section 3. The interface follows TRL's ``DPOTrainer``.

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
        args = copy.copy(args)  # the trainer sets some of them, and another trainer may use the same
        args.refuse_bad_settings()
        _refuse_without_pairs(args, eval_dataset)
        self._encoder, self._progress, objective = encoder, progress, args.settings
        self._cache = Path(cache) if cache is not None else disk.cache_folder() / "reference"
        self._pairs: list[Pair] = []
        self._pairs = pairs = self._read(train_dataset, "train_dataset", objective)
        self._start = start = start_of(model, processing_class, args, peft_config)
        self._may_have_changed = False  # whether the starting model may have other weights than the reference
        policy, tokenizer = start.model, start.tokenizer
        move(policy, args)
        groups = groups_of(pairs, policy, tokenizer, start.kept.reads, args.max_length)
        self._longest = longest_of(objective, groups)
        can_pack = prepare(policy, self._longest)
        examples = self._examples(pairs, args, policy, can_pack, groups)
        held_out = self._held_out(eval_dataset, objective, args, can_pack)
        if peft_config is not None:
            policy = with_adapters(start, peft_config, args.seed)
        self._kept = replace(settings_after(pairs, start.kept), max_new_tokens=budget(groups, start.kept))
        size = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        epochs, steps = _length(args, len(examples), size)
        with quiet():
            super().__init__(
                policy,
                args,
                examples,
                objective=objective,
                beta=defaults.BETA if args.beta is None else args.beta,
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
            eval_dataset: pairs in one of the forms of ``train_dataset``, a mapping of names to such sets of pairs, or
                the name of one set of the trainer's ``eval_dataset``; None uses all of the trainer's ``eval_dataset``.
            ignore_keys: not used; part of transformers' signature.
            metric_key_prefix: prefix of the metrics' names.

        Raises:
            ConfigError: the model was given as an object and has been trained, so the reference's log-probabilities of
                new pairs cannot be computed.
            DataError: the pairs cannot be read, or there are none.
            ModelError: the starting model's files have changed since the trainer was made.
        """
        is_name = isinstance(eval_dataset, str) and isinstance(self.eval_dataset, Mapping)
        if not (is_name and eval_dataset in self.eval_dataset) and not isinstance(eval_dataset, Plan | Mapping | None):
            eval_dataset = self._plan_of(eval_dataset)
        return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    def _plan_of(self, source: user_pairs.Source) -> Plan:
        """The micro-batches of new pairs for an evaluation."""
        pairs = self._read(source, "eval_dataset", self.objective)
        model, can_pack = self._start.model, self.can_pack
        if self._may_have_changed:
            if not (self.objective.needs_reference or self.objective.needs_other_prompts):
                return self._planner.once(self._examples(pairs, self.args, None, can_pack), None)
            model = loaded_again(self._start, self.args)
            can_pack = prepare(model, self._longest)
        return self._planner.once(self._examples(pairs, self.args, model, can_pack), model)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **more: Any) -> Any:
        """Trains like transformers' Trainer.

        Args:
            resume_from_checkpoint: folder of a checkpoint to resume from, or True for the last one in ``output_dir``.
            args: further arguments of transformers' ``train``.
            more: further arguments of transformers' ``train``, by name.

        Raises:
            ConfigError: this trainer has trained already.
        """
        if self.state.global_step > 0 and not resume_from_checkpoint:
            raise ConfigError("this trainer has trained already; make a new one, or pass resume_from_checkpoint")
        self._may_have_changed = True
        return super().train(resume_from_checkpoint, *args, **more)

    def predict(self, *_: Any, **__: Any) -> Any:
        """Is refused: preference pairs have no predictions.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "preference pairs have no predictions; use evaluate for their loss and rewards, or "
            "semdpo.PromptOptimizer.from_pretrained on the saved model for rewrites"
        )

    def _load_from_checkpoint(self, *args: Any, **more: Any) -> None:
        self._may_have_changed = True
        super()._load_from_checkpoint(*args, **more)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Saves the model, and the settings with which ``PromptOptimizer`` uses it as it was trained."""
        super()._save(output_dir, state_dict)
        if self.args.should_save:  # the first of several processes
            folder = Path(output_dir or self.args.output_dir)
            write_settings(folder, self._kept)
            with quiet():
                ends = self._start.model.generation_config.eos_token_id
                write_for_others(folder, self._start.tokenizer, self._kept, ends)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Writes the model card of a rewriter; ``push_to_hub`` calls it."""
        if self.is_world_process_zero():
            shown = ("learning_rate", "num_train_epochs", "per_device_train_batch_size", "seed", "bf16")
            given = self.objective.model_dump(exclude_none=True)
            settings: dict[str, Any] = {"objective": ", ".join(f"{name} {value}" for name, value in given.items())}
            if self.objective.needs_reference:
                settings["beta"] = self.criterion.beta
            settings |= {name: getattr(self.args, name) for name in shown}
            write_card(Path(self.args.output_dir), self._kept, self.method, settings)

    def _read(self, source: user_pairs.Source, name: str, objective: ObjectiveSettings) -> list[Pair]:
        pairs = user_pairs.read(source, name)
        if objective.needs_distance:
            pairs = user_pairs.with_distance(pairs, self._encoder, name)
        check(pairs, objective)
        if self._pairs:  # distances of one encoder cannot be compared with those of another
            check([*self._pairs, *pairs], objective)
        return pairs

    def _held_out(self, source: Any, objective: ObjectiveSettings, args: PreferenceConfig, can_pack: bool) -> Any:
        if isinstance(source, Mapping):
            return {name: self._held_out(pairs, objective, args, can_pack) for name, pairs in source.items()}
        if source is None:
            return []
        return self._examples(self._read(source, "eval_dataset", objective), args, self._start.model, can_pack)

    def _examples(
        self,
        pairs: Sequence[Pair],
        args: PreferenceConfig,
        reference: Any,
        can_pack: bool,
        groups: Sequence[Group] | None = None,
    ) -> list[Example]:
        """The examples of pairs; the reference's log-probabilities are cached where the model has a name.

        Args:
            pairs: the pairs, n.
            args: settings of the training.
            reference: the starting model with its first weights; None computes no log-probabilities.
            can_pack: whether ``prepare.prepare`` accepted it for packing.
            groups: tokens of the pairs, n; None computes them.
        """
        start, precision = self._start, "bfloat16" if args.bf16 else "float32"
        template = start.kept.reads
        tokens = groups or groups_of(pairs, start.model, start.tokenizer, template, args.max_length)
        cached = None
        if start.name is not None and reference is not None:
            cached = cache_file(self._cache, start.name, reference, template, args.max_length, precision, can_pack)
        with args.main_process_first(desc="the reference's log-probabilities"):
            return examples_of(pairs, tokens, reference, precision, can_pack, cached, self._progress)


def _refuse_without_pairs(args: PreferenceConfig, eval_dataset: Any) -> None:
    """Refuses evaluations during training where there are no pairs for them."""
    wanted = [name for name in ("eval_strategy", "eval_on_start") if getattr(args, name) not in ("no", False)]
    if wanted and (eval_dataset is None or (isinstance(eval_dataset, Mapping) and not eval_dataset)):
        value = getattr(args, wanted[0])
        raise ConfigError(
            f"{wanted[0]} is {getattr(value, 'value', value)}, but there are no pairs to evaluate; give eval_dataset=, "
            f"or leave {wanted[0]} out"
        )


def _length(args: PreferenceConfig, examples: int, size: int) -> tuple[int, int | None]:
    """The number of passes over the data, and of updates after which training ends; None ends with the last pass."""
    per_pass = updates_of_a_pass(examples, size)
    if args.max_steps > 0:
        return math.ceil(args.max_steps / per_pass), args.max_steps
    whole = math.ceil(args.num_train_epochs)
    return whole, None if whole == args.num_train_epochs else math.ceil(args.num_train_epochs * per_pass)
