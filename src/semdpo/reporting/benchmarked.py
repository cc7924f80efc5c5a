"""Collects what a report shows of a benchmark from a run's folder."""

from __future__ import annotations

from semdpo.data.atoms import AtomAnswer
from semdpo.data.benchmarks import BENCHMARKS, content_hash, likeness
from semdpo.engine.stage import Run
from semdpo.recipe.benchmarks import own_atoms
from semdpo.reporting.atoms import FEWEST, AtomData
from semdpo.reporting.benchmarks import USES, BenchmarkData
from semdpo.reporting.evaluated import evaluation_rows
from semdpo.stages import atom_answers
from semdpo.stages.benchmarks import finished
from semdpo.stages.evaluate import Evaluation, on_benchmark


def benchmark_data(name: str, run: Run) -> BenchmarkData:
    """The images of a finished benchmark, and what is known of its prompts.

    Args:
        name: the benchmark's name.
        run: the finished run.

    Raises:
        DataError: no image is left to compare.
    """
    known, evaluation, found = BENCHMARKS[name], on_benchmark(run.recipe, name), finished(run, name)
    prompts = [row.prompt for row in found.prompts]
    rows, uses = evaluation_rows(evaluation, run), [use for use in USES if use in found.uses]
    whole = len(prompts) * len(evaluation.config.image_seeds)
    return BenchmarkData(
        name=name,
        title=known.title,
        source=known.source,
        licence=known.licence,
        likeness=str(likeness(name, prompts, limited=len(prompts) < found.counts["in_file"])),
        sha256=content_hash(prompts),
        rows=rows,
        leaked={use: [leak.prompt_id for leak in found.leaks if leak.used_as == use] for use in uses},
        left_out=whole - sum(row.method == "human" for row in rows),
        duplicates=found.counts["duplicates"],
        atoms=_atoms(name, run, evaluation, len(prompts)),
    )


def _atoms(name: str, run: Run, evaluation: Evaluation, prompts: int) -> AtomData | None:
    """The answers about the benchmark's own atoms; None where there are none."""
    config = own_atoms(name, run.recipe.benchmarks[name], run.recipe.atoms)
    if config is None:
        return None
    answers = {m: run.rows(atom_answers.name_of(m, evaluation.folder), AtomAnswer) for m in evaluation.models}
    having = len({answer.prompt_id for answer in answers["human"]})
    return AtomData(answers, config.maker, config.model, having, prompts - having) if having >= FEWEST else None
