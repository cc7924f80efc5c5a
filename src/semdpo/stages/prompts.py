"""Stage 1: what users ask for, split into prompts to train on and held-out ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from semdpo.analysis.drift import refuse_unknown_words, unknown_share
from semdpo.data.prompts import draw, normalised, read_prompts
from semdpo.data.records import Prompt, content_id
from semdpo.engine.stage import Made, Run, Shard, TableStage
from semdpo.errors import DataError
from semdpo.progress import Progress
from semdpo.recipe.schema import PromptsConfig, PromptSetConfig, Recipe

NAME = "prompts"


def stage(recipe: Recipe) -> TableStage:
    """Reads the prompts, and asks whether the encoder knows their words before anything is rendered."""
    return TableStage(
        NAME, "reading", recipe.prompts.model_dump(mode="json"), (), _files(recipe.prompts), Prompt, _work
    )


def tuning_stage(name: str, config: PromptSetConfig) -> TableStage:
    """Reads prompts to choose settings by; the recipe's own prompts are passed over.

    Args:
        name: of the stage.
        config: the file, and how many.
    """

    def work(run: Run) -> list[Shard]:
        def make(_: Progress) -> Made:
            return collect_tuning(config, run.rows(NAME, Prompt), run.recipe.prompts.skip_empty)

        return [Shard(1, make)]

    outside = {"sweep.prompts": config.file}
    return TableStage(name, "reading", config.model_dump(mode="json"), (NAME,), outside, Prompt, work)


def of_split(run: Run, split: str, name: str = NAME) -> list[Prompt]:
    """A run's prompts of one split: ``train``, ``test`` or ``tune``."""
    return [prompt for prompt in run.rows(name, Prompt) if prompt.split == split]


def _files(config: PromptsConfig) -> dict[str, str]:
    named = {"prompts.file": config.file, "prompts.test_file": config.test_file}
    sets = {f"prompts.test_sets.{name}": each.file for name, each in config.test_sets.items()}
    return {key: name for key, name in named.items() if name is not None} | sets


def _work(run: Run) -> list[Shard]:
    def make(_: Progress) -> Made:
        rows, left_out = collect(run.recipe.prompts)
        encoder, size = run.recipe.drift.encoder, run.recipe.drift.batch_size
        refuse_unknown_words(unknown_share([row.prompt for row in rows], run.models.encoder(encoder), size), encoder)
        return rows, {split: sum(row.split == split for row in rows) for split in ("train", "test")} | left_out

    return [Shard(1, make)]


def collect(config: PromptsConfig) -> tuple[list[Prompt], dict[str, int]]:
    """Reads the prompts; training prompts come first, each part in its file's order, or that of its draw.

    Which prompts are held out or drawn depends on their words only, never on their order in a file. Prompts are
    compared by their letters and digits, without case, marks of punctuation and extra spaces.

    A file of held-out prompts that the user made must share none with the training prompts. Public sets do overlap,
    so what is drawn from ``test_sets`` is left out of the training prompts, and of the sets that come after.

    Returns:
        The prompts, and how many were left out: ``also_held_out`` of the training prompts, ``in_two_sets`` of the
        sets' prompts.

    Raises:
        DataError: a source is missing or of the wrong form, a part is empty or a set too small, or a held-out prompt
            of ``test_file`` is trained on.
    """
    train = read_prompts(config.file, config.column, config.skip_empty)
    counts: dict[str, int] = {}
    if config.test_sets:
        test, counts["in_two_sets"] = _sets(config)
        held = {normalised(each.prompt) for each in test}
        kept = [text for text in train if normalised(text) not in held]
        counts["also_held_out"] = len(train) - len(kept)
        train = kept
    elif config.test_file is None:
        train, held_out = _hold_out(train, config.test_share)
        test = [Prompt.of(text, _source(config.file), "test") for text in held_out[: config.test_limit]]
    else:
        file = config.test_file
        own = read_prompts(file, config.column, config.skip_empty, usual=True)[: config.test_limit]
        test = [Prompt.of(text, _source(file), "test") for text in own]
    train = draw(train, config.limit) if config.draw == "hash" else train[: config.limit]
    if not train or not test:
        raise DataError(f"{config.file} has too few prompts to hold some out; add prompts or set prompts.test_file")
    _refuse_leaks(train, [each.prompt for each in test], config)
    return [*(Prompt.of(text, _source(config.file), "train") for text in train), *test], counts


def collect_tuning(
    config: PromptSetConfig, used: Sequence[Prompt], skip_empty: bool
) -> tuple[list[Prompt], dict[str, int]]:
    """Prompts to choose settings by: drawn by the hash of their words from those that are used for nothing else.

    Args:
        config: the file, and how many.
        used: training and held-out prompts.
        skip_empty: leave out rows without text instead of refusing them.

    Returns:
        The prompts, of split ``tune``, and how many were ``used_elsewhere``.

    Raises:
        DataError: the file is missing or of the wrong form, or too few of its prompts are free.
    """
    taken = {normalised(each.prompt) for each in used}
    texts = draw(read_prompts(config.file, config.column, skip_empty), None)
    free = [text for text in texts if normalised(text) not in taken]
    chosen = free[: config.limit]
    if len(chosen) < max(2, config.limit or 0):
        raise DataError(
            f"{config.file} has {len(chosen)} prompts that are neither trained on nor held out; lower the limit of the "
            "tuning prompts, or give another file"
        )
    prompts = [Prompt.of(text, _source(config.file), "tune") for text in chosen]
    return prompts, {"used_elsewhere": len(texts) - len(free)}


def _sets(config: PromptsConfig) -> tuple[list[Prompt], int]:
    """The evaluation sets' prompts, and how many were passed over because an earlier set has them."""
    found: list[Prompt] = []
    taken: set[str] = set()
    passed = 0
    for name, each in config.test_sets.items():
        texts = draw(read_prompts(each.file, each.column, config.skip_empty), None)
        free = [text for text in texts if normalised(text) not in taken]
        chosen = free[: each.limit]
        if each.limit is not None and len(chosen) < each.limit:
            raise DataError(
                f"{each.file} has {len(chosen)} distinct prompts, and prompts.test_sets.{name} wants {each.limit}; "
                "lower its limit"
            )
        passed += len(texts) - len(free)
        taken |= {normalised(text) for text in chosen}
        found += [Prompt.of(text, name, "test") for text in chosen]
    return found, passed


def _source(file: str) -> str:
    return Path(file.removeprefix("tiny:")).stem


def _hold_out(prompts: list[str], share: float) -> tuple[list[str], list[str]]:
    """Prompts that are alike go to one side together."""
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
            f"{len(leaks)} of the held-out prompts are also trained on, the first is {leaks[0]!r}; "
            f"remove them from {config.file} or from {config.test_file}"
        )
