"""``semdpo.train`` and ``semdpo train``: trains a rewriter on pairs and writes its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from semdpo import disk, locks
from semdpo.data.prompts import normalised
from semdpo.data.records import Curve, Pair
from semdpo.engine import fingerprint, model_folders, parquet, store
from semdpo.errors import StoreError
from semdpo.models.registry import resolve
from semdpo.progress import Progress, is_first_process, say, silent
from semdpo.protocols import TextEncoder
from semdpo.recipe import defaults, trackers
from semdpo.recipe.base import TEMPLATE
from semdpo.recipe.discovery import OneObjective
from semdpo.recipe.load import Key, options
from semdpo.recipe.objectives import ObjectiveSettings
from semdpo.recipe.schema import TrainConfig
from semdpo.training import checkpoints, user_pairs


@dataclass(frozen=True)
class Training:
    """The settings of a training.

    Attributes:
        model: the rewriter to start from.
        out: the folder to write; it must not exist.
        objective: settings of the objective.
        config: settings of the training.
        own_template: whether to use the model's own template instead of that in ``config``.
        held_out: name of the pairs to evaluate at the end, for messages; None where there are none.
        cache: folder of the reference's log-probabilities; None is the user's cache folder.
    """

    model: str
    out: Path
    objective: ObjectiveSettings
    config: TrainConfig
    own_template: bool
    held_out: str | None = None
    cache: Path | None = None


def train(
    pairs: user_pairs.Source,
    model: str | Path,
    output_dir: str | Path,
    *,
    objective: str = defaults.OBJECTIVE,
    alpha: float | str | None = None,
    objective_settings: Mapping[str, Any] | None = None,
    encoder: str | Path | TextEncoder | None = None,
    eval_pairs: user_pairs.Source | None = None,
    template: str | None = None,
    system: str | None = None,
    cache: str | Path | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> list[Curve]:
    """Trains a rewriter on preference pairs and writes its folder, completely or not at all.

    After an interruption, the same call resumes from the last checkpoint and writes the same bytes. Use
    ``PreferenceTrainer`` for transformers' callbacks, strategies and arguments.

    Args:
        pairs: training pairs: a file's path, a ``datasets.Dataset``, or rows with prompt, chosen and rejected, and
            optionally distance, weight and scores.
        model: the rewriter to start from: a folder, ``tiny:gpt2`` or a published name. It is also the reference.
        output_dir: folder to write; it must not exist.
        objective: ``sem_dpo``, ``dpo``, ``beta_dpo``, ``ipo``, ``kto``, ``orpo``, ``simpo``, ``additive`` or ``sft``.
        alpha: strength of ``sem_dpo``'s weight: a number ≥ 0, or ``auto``; None is 4.
        objective_settings: the objective's other settings, such as ``{"nll_coef": 0.1}``.
        encoder: encoder that measures the drift of pairs without distance, where the objective needs it: a name, a
            folder, or an object with ``encode``.
        eval_pairs: pairs that are evaluated after the training.
        template: template of the prompt, which contains ``{prompt}``; or ``chat``, the chat template of the model's
            tokenizer; None uses the model's own.
        system: system message of the chat; None is none.
        cache: folder of the reference's log-probabilities; None is the user's cache folder.
        progress: called after every step.
        settings: settings of ``TrainConfig``: beta, learning_rate, epochs, batch_size, micro_batch_size, max_length,
            warmup_ratio, seed, precision, checkpoint_steps, report_to, and lora such as ``{"rank": 16}``.

    Returns:
        The training's curves: one point per step and name (loss, reward_accuracy, reward_margin, mean_weight, …).

    Raises:
        ConfigError: a setting is unknown or out of range.
        DataError: a pair cannot be read or lacks a column that the objective needs; the message names the rows.
        ModelError: a model cannot be loaded.
        StoreError: the folder exists or cannot be written.

    Source:
        Sem-DPO (arXiv 2507.20133), section 3.

    Example:
        >>> import semdpo
        >>> rows = [
        ...     {"prompt": f"a {colour} cat", "chosen": f"a {colour} cat, oil", "rejected": "a dog", "distance": 0.1}
        ...     for colour in ("red", "blue")
        ... ]
        >>> curves = semdpo.train(rows, "tiny:gpt2", "my-rewriter", alpha=4)
        >>> round(curves[0].value, 2) if curves[0].name == "loss" else None
    """
    given = {"name": objective, **(objective_settings or {})} | ({} if alpha is None else {"alpha": alpha})
    chosen = options(OneObjective, {("objective",): "semdpo.train"}, objective=given).objective
    places: dict[Key, str] = {(name,): f"semdpo.train({name}=…)" for name in settings}
    config = options(
        TrainConfig,
        places,
        methods={"trained": chosen.model_dump()},
        template=template or TEMPLATE,
        system=system,
        **settings,
    )
    out = Path(output_dir)
    refuse_impossible(config, out)
    rows = _measured(user_pairs.read(pairs), chosen, encoder)
    held_out = [] if eval_pairs is None else _measured(user_pairs.read(eval_pairs, "eval_pairs"), chosen, encoder)
    training = Training(
        str(model),
        out,
        chosen,
        config,
        template is None and system is None,
        None if eval_pairs is None else "eval_pairs",
        None if cache is None else Path(cache),
    )
    return train_to_folder(rows, held_out, training, progress)


def _measured(pairs: list[Pair], objective: ObjectiveSettings, encoder: str | Path | TextEncoder | None) -> list[Pair]:
    return user_pairs.with_distance(pairs, encoder) if objective.needs_distance else pairs


def refuse_impossible(config: TrainConfig, out: Path) -> None:
    """Refuses, before any file is read, a missing tracker and an output that exists or cannot be written.

    Args:
        config: settings of the training.
        out: the folder to write.

    Raises:
        ConfigError: a tracker is not installed.
        StoreError: the output already exists, or cannot be written.
    """
    trackers.refuse_absent(config.report_to)
    disk.refuse_unwritable(out, folder=True)
    if out.exists():
        raise StoreError(f"{out} already exists; remove it or choose another folder")


def train_to_folder(
    pairs: Sequence[Pair], held_out: Sequence[Pair], training: Training, progress: Progress
) -> list[Curve]:
    """Trains on pairs and writes the rewriter's folder; after an interruption, the same call resumes.

    The reference's log-probabilities are cached for later trainings, under a key of the model's whole content.

    Args:
        pairs: training pairs, with distances where the objective needs them.
        held_out: pairs to evaluate at the end; may be empty.
        training: settings of the training.
        progress: called after every step.

    Returns:
        The training's curves.

    Raises:
        SemdpoError: a setting, the pairs or the model cannot be used, or the folder cannot be written.
    """
    refuse_impossible(training.config, training.out)
    _warn_of_leaks(pairs, held_out, training.held_out or "the held-out pairs")
    start = fingerprint.model(training.model)
    cache, config = _cache(training.cache, training.out), training.config
    if training.own_template:
        from semdpo.models.rewriter import load_template  # here, since it imports torch

        own = load_template(resolve(training.model).folder())
        config = config.model_copy(update={"template": own.text, "system": own.system})
    plan = store.Plan(
        {
            "objective": training.objective.model_dump(mode="json"),
            "train": config.model_dump(mode="json", exclude={"methods"}),
        },
        {"model": start, "pairs": _digest(pairs)} | ({"eval": _digest(held_out)} if held_out else {}),
    )

    def work(folder: Path) -> list[Curve]:
        from semdpo.training.preference import train as run  # here, since it imports torch

        with disk.explain_full_disk(folder):
            return run(pairs, training.model, training.objective, config, folder, cache, progress, held_out)

    if not is_first_process():
        return work(model_folders.partial(training.out))
    refusal = f"{training.out} is being trained by {{}}; wait until it ends, or choose another folder"
    with locks.alone(training.out, refusal):
        return _written(work, training.out, plan)


def _warn_of_leaks(pairs: Sequence[Pair], held_out: Sequence[Pair], name: str) -> None:
    """Prints a warning where held-out pairs have prompts of the training pairs, which makes the result too good."""
    trained = {normalised(pair.prompt) for pair in pairs}
    if seen := sum(normalised(pair.prompt) in trained for pair in held_out):
        say(
            f"{name}: {seen} of its {len(held_out)} pairs have a prompt of the training pairs, so they are not held out"
        )


def _digest(rows: Sequence[Pair]) -> str:
    return store.digest(store.canonical([astuple(row) for row in rows]))


def _written(work: Callable[[Path], list[Curve]], out: Path, plan: store.Plan) -> list[Curve]:
    """Trains, writes the whole folder, and returns the curves."""
    folder = model_folders.start(out, plan)
    try:
        curves = work(folder)
        disk.write_bytes(folder / model_folders.CURVES, parquet.encode(Curve, curves, {}))
        model_folders.finish(out, plan, {"rows": len(curves)})
    finally:
        disk.remove(folder)
        checkpoints.sweep(checkpoints.folder_of(folder))
    return curves


def where_it_goes_on(out: Path) -> str:
    """The message of an interrupted training: where the same command resumes."""
    from semdpo.training import checkpoints

    work = model_folders.partial(out)
    if any(checkpoints.folder_of(work).glob("checkpoint-*")):
        return "the same command resumes from here (its last checkpoint)"
    return "no checkpoint was reached, so the same command starts at the beginning"


def _cache(given: Path | None, out: Path) -> Path:
    """The folder of the reference's log-probabilities.

    Raises:
        StoreError: the folder that the user gave cannot be written.
    """
    folder = (disk.cache_folder() if given is None else given) / "reference"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        if given is not None:
            raise disk.unwritable(folder, error) from error
    fallback = out.with_name(f"{out.name}.reference")
    say(f"{folder} cannot be written; keeping the reference's log-probabilities in {fallback} (--cache names another)")
    return fallback
