"""After the prompts: the prompts of a benchmark, and which of them the run uses to make its rewriters.

The prompts do not depend on the run, and so neither do the images of the user's own prompts. Which of them are also
among the training prompts is kept beside them, for the report: nothing is left out of a benchmark. The evaluation on
them comes last (``stages/evaluate.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from semdpo.analysis.drift import refuse_unknown_words, unknown_share
from semdpo.data.atoms import read_atoms
from semdpo.data.benchmark_files import read_benchmark
from semdpo.data.benchmarks import BENCHMARKS
from semdpo.data.pairs import read_rewrites
from semdpo.data.prompts import choose_by_hash, choose_unused, normalised, read_prompts
from semdpo.data.records import Leak, Prompt
from semdpo.engine import store
from semdpo.engine.stage import Made, Run, Shard, TableStage
from semdpo.errors import DataError, StoreError
from semdpo.progress import Progress, say
from semdpo.recipe.benchmarks import BenchmarkConfig, Benchmarks, own_atoms, source_of
from semdpo.recipe.schema import Recipe

VERSION = 1  # of how the files are read
ROWS = 4096  # prompts per file


def folder_of(name: str) -> str:
    """The folder of a benchmark's stages, in the run's folder."""
    return f"benchmarks/{name}"


def stages(recipe: Recipe, name: str) -> list[TableStage]:
    """The stage that reads a benchmark's prompts, and the one that finds those that the run has used before."""
    folder, config = folder_of(name), recipe.benchmarks[name]
    source = {f"benchmarks.{name}.file": source_of(name, config)}
    settings = {"limit": config.limit, "version": VERSION}
    used: dict[str, str] = {"sft.file": recipe.sft.file}
    tuning = None if recipe.sweep is None else recipe.sweep.prompts
    if tuning is not None:
        used["sweep.prompts"] = tuning.file
    compared = {} if tuning is None else {"tuning": tuning.model_dump(mode="json")}
    return [
        TableStage(
            f"{folder}/prompts", "reading", settings, (), source, Prompt, partial(_prompts_work, name, config)
        ),
        TableStage(
            f"{folder}/leaks", "looking for training prompts", compared, ("prompts", f"{folder}/prompts"), used, Leak,
            partial(_leaks_work, name),
        ),
    ]  # fmt: skip


def _prompts_work(name: str, config: BenchmarkConfig, run: Run) -> list[Shard]:
    rows, counts = collect(name, source_of(name, config), config.limit)

    @cache
    def refuse_unknown() -> None:
        encoder, size = run.recipe.drift.encoder, run.recipe.drift.batch_size
        try:
            share = unknown_share([row.prompt for row in rows], run.models.encoder(encoder), size)
            refuse_unknown_words(share, encoder)
        except DataError as error:
            raise DataError(
                f"benchmark {name}: {error}; or remove its entry from 'benchmarks' in {run.folder / 'recipe.json'}"
            ) from error

    def make(start: int, _: Progress) -> Made:
        refuse_unknown()
        return rows[start : start + ROWS], counts if start == 0 else {}

    return [Shard(len(rows[start : start + ROWS]), partial(make, start)) for start in range(0, len(rows), ROWS)]


def collect(name: str, source: str, limit: int | None) -> tuple[list[Prompt], dict[str, int]]:
    """Reads the prompts of a benchmark; ``source`` of a prompt is its category, or else the benchmark's title.

    Args:
        name: the benchmark's name.
        source: its file, folder or data set of the hub.
        limit: how many prompts to choose by the hash of their words; None takes all. Of prompts that differ in case,
            punctuation or blanks only, a choice has one.

    Returns:
        The prompts, in the order of the file, and the counts ``in_file`` (different prompts) and ``duplicates``.

    Raises:
        DataError: see ``read_benchmark``.
    """
    found = read_benchmark(name, source)
    entries = found.entries
    if limit is not None and limit < len(entries):
        chosen = set(choose_by_hash([entry.prompt for entry in entries], limit))
        entries = [entry for entry in entries if entry.prompt in chosen]
    title = BENCHMARKS[name].title
    rows = [Prompt.of(entry.prompt, entry.category or title, "test") for entry in entries]
    return rows, {"in_file": len(found.entries), "duplicates": found.duplicates}


def _leaks_work(name: str, run: Run) -> list[Shard]:
    def make(_: Progress) -> Made:
        return leaks(run.rows(f"{folder_of(name)}/prompts", Prompt), used_before(run))

    return [Shard(1, make)]


def used_before(run: Run) -> dict[str, list[str]]:
    """The prompts that a run uses to make its rewriters, by their use; see ``Leak``.

    Raises:
        DataError: a file cannot be read.
    """
    recipe, known = run.recipe, run.rows("prompts", Prompt)
    used = {
        "trained": [row.prompt for row in known if row.split == "train"],
        "sft": [prompt for prompt, _ in read_rewrites(recipe.sft.file)],
    }
    if recipe.sweep is not None:
        tuning = recipe.sweep.prompts
        texts = read_prompts(tuning.file, tuning.column, recipe.prompts.skip_empty)
        used["tuning"], _ = choose_unused(texts, [row.prompt for row in known], tuning.limit)
    return used


def leaks(prompts: Sequence[Prompt], used: Mapping[str, Sequence[str]]) -> Made:
    """The prompts of an evaluation whose words a prompt of the run has, whatever their case, punctuation and blanks.

    Args:
        prompts: the prompts of a benchmark, or those that the run holds out.
        used: use → the run's prompts.

    Returns:
        One row for each prompt and use, and the counts: ``prompts``, each use, and ``leaked``, prompts with any use.
    """
    words = {prompt.prompt_id: normalised(prompt.prompt) for prompt in prompts}
    rows: list[Leak] = []
    for use, texts in used.items():
        seen = {normalised(text) for text in texts}
        rows += [Leak(row.prompt_id, row.prompt, use) for row in prompts if words[row.prompt_id] in seen]
    counts = {use: sum(row.used_as == use for row in rows) for use in used}
    return rows, {"prompts": len(prompts), "leaked": len({row.prompt_id for row in rows})} | counts


@dataclass(frozen=True)
class Benchmarked:
    """A finished benchmark, as the report reads it.

    Attributes:
        prompts: the evaluated prompts.
        leaks: which of them the run has used before.
        counts: what the stage of the prompts counted.
        uses: the uses of the run's prompts that were compared.
    """

    prompts: list[Prompt]
    leaks: list[Leak]
    counts: dict[str, int]
    uses: list[str]


def finished(run: Run, name: str) -> Benchmarked:
    """The prompts and leaks of a finished benchmark."""
    folder = folder_of(name)
    counts, uses = (store.counts(run.folder / folder / stage) for stage in ("prompts", "leaks"))
    return Benchmarked(run.rows(f"{folder}/prompts", Prompt), run.rows(f"{folder}/leaks", Leak), counts, list(uses))


def refuse_unreadable(recipe: Recipe) -> None:
    """Refuses benchmarks whose prompts cannot be read, before a run notes them, removes anything or works for hours.

    Args:
        recipe: the recipe.

    Raises:
        DataError: see ``read_benchmark``.
    """
    for name, config in recipe.benchmarks.items():
        collect(name, source_of(name, config), config.limit)
        if (atoms := own_atoms(name, config, recipe.atoms)) is not None:
            read_atoms(str(atoms.file))


def with_kept(recipe: Recipe, folder: Path) -> Recipe:
    """A recipe with the benchmarks that a run's folder already has, according to its ``recipe.json``.

    Otherwise a later run with a recipe that does not name them would drop them from the report without a word.

    Args:
        recipe: the recipe; where it names a benchmark, its settings count.
        folder: the run's folder, which need not exist.

    Raises:
        StoreError: the benchmarks in ``recipe.json`` cannot be read.
    """
    path = folder / "recipe.json"
    try:
        content = store.read_json(path)
    except StoreError:  # a damaged one is written again
        return recipe
    if not {"prompts", "sft", "benchmarks"} <= content.keys():  # without benchmarks, or a file of another program
        return recipe
    try:
        kept: dict[str, BenchmarkConfig] = TypeAdapter(Benchmarks).validate_python(content["benchmarks"])
    except ValidationError as error:
        raise StoreError(
            f"the benchmarks in {path} cannot be read; correct or remove its entry 'benchmarks', and run again"
        ) from error
    added = {name: config for name, config in kept.items() if name not in recipe.benchmarks}
    if not added:
        return recipe
    say(f"benchmarks of this run that the recipe does not name are kept: {', '.join(added)}")
    return recipe.model_copy(update={"benchmarks": {**recipe.benchmarks, **added}})
