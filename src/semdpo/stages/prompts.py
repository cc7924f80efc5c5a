"""Stage 1: users' prompts, split into prompts to train on and held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

from semdpo.analysis.drift import refuse_unknown_words, unknown_share
from semdpo.data.prompts import choose_by_hash, choose_unused, normalised, read_prompts
from semdpo.data.records import Prompt, content_id
from semdpo.engine.stage import Made, Run, Shard, TableStage
from semdpo.errors import DataError
from semdpo.progress import Progress
from semdpo.recipe.prompts import PromptsConfig, PromptSetConfig
from semdpo.recipe.schema import Recipe

NAME = "prompts"
FEWEST = 2  # held-out prompts that an interval needs
ROWS = 4096  # prompts per file, so that the stages that follow read a few of many without the others


def stage(recipe: Recipe) -> TableStage:
    """The stage that reads the prompts, and refuses those whose words the encoder does not know."""
    return TableStage(
        NAME, "reading", recipe.prompts.model_dump(mode="json"), (), _files(recipe.prompts), Prompt, _work
    )


def tuning_stage(name: str, config: PromptSetConfig) -> TableStage:
    """The stage that reads the tuning prompts, by which settings are chosen; the recipe's other prompts are left out.

    Args:
        name: the stage's name.
        config: the file, and the number of prompts.
    """

    def work(run: Run) -> list[Shard]:
        def make(_: Progress) -> Made:
            return collect_tuning(config, run.rows(NAME, Prompt), run.recipe.prompts.skip_empty)

        return [Shard(1, make)]

    outside = {"sweep.prompts": config.file}
    return TableStage(name, "reading", config.model_dump(mode="json"), (NAME,), outside, Prompt, work)


def _files(config: PromptsConfig) -> dict[str, str]:
    files = {"prompts.file": config.file, "prompts.test_file": config.test_file}
    sets = {f"prompts.test_sets.{name}": test_set.file for name, test_set in config.test_sets.items()}
    return {key: name for key, name in files.items() if name is not None} | sets


def _work(run: Run) -> list[Shard]:
    rows, left_out = collect(run.recipe.prompts)
    _refuse_one_held_out(rows)

    @cache
    def refuse_unknown() -> None:
        encoder, size = run.recipe.drift.encoder, run.recipe.drift.batch_size
        refuse_unknown_words(unknown_share([row.prompt for row in rows], run.models.encoder(encoder), size), encoder)

    def make(start: int, _: Progress) -> Made:
        refuse_unknown()
        part = rows[start : start + ROWS]
        counts = {split: sum(row.split == split for row in part) for split in ("train", "test")}
        return part, counts | (left_out if start == 0 else {})

    return [Shard(len(rows[start : start + ROWS]), partial(make, start)) for start in range(0, len(rows), ROWS)]


def _refuse_one_held_out(prompts: Sequence[Prompt]) -> None:
    """Refuses a run whose report would have no intervals, before hours of work."""
    if sum(prompt.split == "test" for prompt in prompts) < FEWEST:
        raise DataError(
            f"only one prompt is held out, and a comparison of methods needs {FEWEST}; raise prompts.test_limit or "
            "prompts.test_share, or give more prompts"
        )


def collect(config: PromptsConfig) -> tuple[list[Prompt], dict[str, int]]:
    """Reads the training prompts and the held-out prompts.

    Which prompts are held out or chosen by hash depends on their words only, never on their order in a file. Two
    prompts count as equal if their letters and digits are equal; case, punctuation and extra spaces are ignored.

    A user's file of held-out prompts must not share a prompt with the training prompts. Public sets do overlap: the
    prompts that are chosen from ``test_sets`` are left out of the training prompts, and of the sets that follow.

    Args:
        config: the files, and how many prompts to take.

    Returns:
        The prompts, training prompts first, and how many were left out: ``also_held_out`` of the training prompts,
        ``in_two_sets`` of the sets' prompts.

    Raises:
        DataError: a source is missing or in the wrong format, has too few prompts, or a held-out prompt of
            ``test_file`` is also trained on.
    """
    train = read_prompts(config.file, config.column, config.skip_empty)
    counts: dict[str, int] = {}
    if config.test_sets:
        test, counts["in_two_sets"] = _sets(config)
        held = {normalised(row.prompt) for row in test}
        free = [text for text in train if normalised(text) not in held]
        counts["also_held_out"] = len(train) - len(free)
        train = free
    elif config.test_file is None:
        train, held_out = _hold_out(train, config.test_share)
        test = [Prompt.of(text, _source(config.file), "test") for text in held_out[: config.test_limit]]
    else:
        file = config.test_file
        held_out = read_prompts(file, config.column, config.skip_empty, usual=True)[: config.test_limit]
        test = [Prompt.of(text, _source(file), "test") for text in held_out]
    train = choose_by_hash(train, config.limit) if config.draw == "hash" else train[: config.limit]
    if not train or not test:
        raise DataError(f"{config.file} has too few prompts to hold some out; add prompts or set prompts.test_file")
    _refuse_leaks(train, [row.prompt for row in test], config)
    return [*(Prompt.of(text, _source(config.file), "train") for text in train), *test], counts


def collect_tuning(
    config: PromptSetConfig, used: Sequence[Prompt], skip_empty: bool
) -> tuple[list[Prompt], dict[str, int]]:
    """Tuning prompts: chosen by the hash of their words from those that are neither trained on nor held out.

    Args:
        config: the file, and the number of prompts.
        used: the training and held-out prompts.
        skip_empty: whether rows without text are left out; otherwise they are refused.

    Returns:
        The prompts, of split ``tune``, and how many were left out: ``used_elsewhere``.

    Raises:
        DataError: the file is missing or in the wrong format, or has too few prompts that are not used elsewhere.
    """
    texts = read_prompts(config.file, config.column, skip_empty)
    chosen, left_out = choose_unused(texts, [row.prompt for row in used], config.limit)
    if len(chosen) < max(2, config.limit or 0):
        raise DataError(
            f"{config.file} has {len(chosen)} prompts that are neither trained on nor held out; lower the limit of the "
            "tuning prompts, or give another file"
        )
    prompts = [Prompt.of(text, _source(config.file), "tune") for text in chosen]
    return prompts, {"used_elsewhere": left_out}


def _sets(config: PromptsConfig) -> tuple[list[Prompt], int]:
    """The prompts of all test sets, and how many were left out because an earlier set has them."""
    prompts: list[Prompt] = []
    taken: set[str] = set()
    left_out = 0
    for name, test_set in config.test_sets.items():
        texts = choose_by_hash(read_prompts(test_set.file, test_set.column, config.skip_empty), None)
        free = [text for text in texts if normalised(text) not in taken]
        chosen = free[: test_set.limit]
        if test_set.limit is not None and len(chosen) < test_set.limit:
            raise DataError(
                f"{test_set.file} has {len(chosen)} distinct prompts that no earlier set has, but "
                f"prompts.test_sets.{name} asks for {test_set.limit}; lower its limit"
            )
        left_out += len(texts) - len(free)
        taken |= {normalised(text) for text in chosen}
        prompts += [Prompt.of(text, name, "test") for text in chosen]
    return prompts, left_out


def _source(file: str) -> str:
    return Path(file.removeprefix("tiny:")).stem


def _hold_out(prompts: list[str], share: float) -> tuple[list[str], list[str]]:
    """The training prompts and the held-out prompts; prompts that count as equal stay together."""
    keys = sorted({normalised(text) for text in prompts}, key=content_id)
    held = set(keys[: round(len(keys) * share)])
    sides: tuple[list[str], list[str]] = [], []
    for text in prompts:
        sides[normalised(text) in held].append(text)
    return sides


def _refuse_leaks(train: list[str], test: list[str], config: PromptsConfig) -> None:
    seen = {normalised(text) for text in train}
    leaks = [text for text in test if normalised(text) in seen]
    if leaks:
        raise DataError(
            f"{len(leaks)} held-out prompts are also trained on, the first is {leaks[0]!r}; "
            f"remove them from {config.file} or from {config.test_file}"
        )
