"""How the methods compare on benchmarks: the user's own prompt first, and every method's difference to it.

Published numbers are mostly those of rewritten prompts alone, which do not tell what the rewriting did. Here every mean
stands below that of the prompt as it was published, on the same prompts and image seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from semdpo.analysis.statistics import (
    Difference,
    Estimate,
    mean_interval,
    mean_intervals,
    paired_difference,
    prompt_means,
)
from semdpo.data.records import EvaluationRow
from semdpo.reporting import atoms
from semdpo.reporting.atoms import AtomData, AtomTables, atom_tables
from semdpo.reporting.formats import decimals, interval, signed
from semdpo.reporting.labels import USER

FEWEST = 2  # prompts that an interval needs
ALL, UNSEEN = "all prompts", "without leaked prompts"
USES = {"trained": "training prompts", "sft": "SFT examples", "tuning": "tuning prompts of the sweep"}


@dataclass(frozen=True, slots=True)
class BenchmarkData:
    """What a report shows of a benchmark.

    Attributes:
        name: its name in recipes.
        title: its name in tables.
        source: where it is published.
        licence: its licence.
        likeness: whether its prompts are the published ones, as a phrase.
        sha256: the hash of its prompts; see ``semdpo.data.benchmarks.content_hash``.
        rows: one row per image; ``source`` is the prompt's category.
        leaked: every use of prompts by the run → ids of the benchmark's prompts that were used so; see
            ``semdpo.data.records.Leak``.
        left_out: the number of combinations of prompt and image seed that are left out for all methods.
        duplicates: the number of repeated prompts in the file, which count once.
        atoms: the answers about the atoms that the benchmark brings; None where it brings none, or nobody answers.
    """

    name: str
    title: str
    source: str
    licence: str
    likeness: str
    sha256: str
    rows: Sequence[EvaluationRow]
    leaked: Mapping[str, Sequence[str]]
    left_out: int = 0
    duplicates: int = 0
    atoms: AtomData | None = None

    @property
    def leaked_prompts(self) -> set[str]:
        """The ids of the prompts that the run has used before in any way."""
        return {each for ids in self.leaked.values() for each in ids}


@dataclass(frozen=True, slots=True)
class Part:
    """The numbers of some prompts of a benchmark.

    Attributes:
        name: ``ALL``, ``UNSEEN`` or a category.
        is_category: whether it is a category.
        prompts: the number of its prompts.
        means: (method, column) → mean over prompts, with its interval.
        differences: (method, column) → the method − the user's own prompt, paired by prompt; empty for one prompt.
    """

    name: str
    is_category: bool
    prompts: int
    means: dict[tuple[str, str], Estimate]
    differences: dict[tuple[str, str], Estimate | Difference]


@dataclass(frozen=True, slots=True)
class BenchmarkTable:
    """The numbers of a benchmark.

    Attributes:
        data: what they were computed from; of the leaked prompts, those that have images.
        methods: all methods, the user's own prompt first.
        columns: the metrics, then drift.
        seeds: the number of images per prompt and method (the largest number where it differs).
        whole: all prompts.
        unseen: those that the run has not used before; None where it has used none, or left fewer than ``FEWEST``.
        categories: one part for each category, where there are several.
        atoms: which atoms the images show and the rewrites state, of all methods; None without.
    """

    data: BenchmarkData
    methods: list[str]
    columns: list[str]
    seeds: int
    whole: Part
    unseen: Part | None
    categories: list[Part]
    atoms: AtomTables | None = None

    @property
    def parts(self) -> list[Part]:
        """All parts, in the order of display."""
        return [self.whole, *([self.unseen] if self.unseen else []), *self.categories]


def benchmark_table(data: BenchmarkData, metrics: Sequence[str], methods: Sequence[str]) -> BenchmarkTable:
    """Computes the numbers of a benchmark.

    Args:
        data: its images and what is known of its prompts.
        metrics: the metrics.
        methods: the methods, in order of display; the user's own prompt comes first whatever the order.

    Raises:
        DataError: there are no images, or methods cannot be paired.
    """
    frame, columns = _frame(data.rows, metrics), [*metrics, "drift"]
    ordered = sorted(methods, key=lambda method: method != USER)
    values = {name: prompt_means(frame, name)[ordered] for name in columns}
    category = frame.drop_duplicates("prompt_id").set_index("prompt_id")["source"]
    names = list(category.unique())
    shown = set(category.index)  # a leaked prompt may be among those of which no image is left
    data = replace(data, leaked={use: [each for each in ids if each in shown] for use, ids in data.leaked.items()})
    unseen = [prompt for prompt in category.index if prompt not in data.leaked_prompts]
    return BenchmarkTable(
        data=data,
        methods=ordered,
        columns=columns,
        seeds=int(frame.groupby(["method", "prompt_id"]).size().max()),
        whole=_part(ALL, values, list(category.index)),
        unseen=_part(UNSEEN, values, unseen) if FEWEST <= len(unseen) < len(category) else None,
        categories=[_category(str(name), values, list(category.index[category == name])) for name in names]
        if len(names) > 1
        else [],
        atoms=None if data.atoms is None else atom_tables(data.atoms, ordered, None, []),
    )


def _frame(rows: Sequence[EvaluationRow], metrics: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "method": row.method,
            "prompt_id": row.prompt_id,
            "image_seed": row.image_seed,
            "source": row.source,
            "drift": row.distance,
            **{name: row.metrics[name] for name in metrics},
        }
        for row in rows
    )


def _part(name: str, values: Mapping[str, pd.DataFrame], prompts: Sequence[str]) -> Part:
    """Some prompts, with the intervals that the report's main tables have."""
    chosen = {column: table.loc[list(prompts)] for column, table in values.items()}
    if len(prompts) < FEWEST:
        return _category(name, values, prompts, is_category=False)
    means = {(str(m), column): mean_interval(table[m]) for column, table in chosen.items() for m in table}
    differences: dict[tuple[str, str], Estimate | Difference] = {
        (str(m), column): paired_difference(table[m], table[USER])
        for column, table in chosen.items()
        for m in table
        if USER in table and m != USER
    }
    return Part(name, False, len(prompts), means, differences)


def _category(
    name: str, values: Mapping[str, pd.DataFrame], prompts: Sequence[str], *, is_category: bool = True
) -> Part:
    """The prompts of a category, with percentile intervals, all from the same resamples of prompts."""
    means, differences = dict[tuple[str, str], Estimate](), dict[tuple[str, str], Estimate | Difference]()
    for column, whole in values.items():
        table = whole.loc[list(prompts)]
        methods = [str(method) for method in table]
        means |= {(m, column): e for m, e in zip(methods, mean_intervals(table.to_numpy()), strict=True)}
        if USER in methods and len(methods) > 1 and len(prompts) >= FEWEST:
            others = [method for method in methods if method != USER]
            gaps = table[others].to_numpy() - table[[USER]].to_numpy()
            differences |= {(m, column): e for m, e in zip(others, mean_intervals(gaps), strict=True)}
    return Part(name, is_category, len(prompts), means, differences)


# ------------------------------------------------------------------------------------------------- files and page


def frames(tables: Sequence[BenchmarkTable]) -> list[tuple[str, str, pd.DataFrame]]:
    """The tables that a report writes: (name, title, frame), one for each benchmark, and one for its atoms."""
    shown: list[tuple[str, str, pd.DataFrame]] = []
    for table in tables:
        name, title = f"benchmark_{table.data.name}", f"{table.data.title}: {table.data.likeness}"
        frame = pd.DataFrame(_rows(table)).set_index(["prompts", "method", "metric"])
        shown.append((name, f"{title}; differences to the user's prompt, paired by prompt", frame))
        if table.atoms is not None:
            of_atoms = atoms.frames(table.atoms, None)
            shown += [(f"{name}_{each}", f"{title}. {heading}", frame) for each, heading, frame in of_atoms]
    return shown


def _rows(table: BenchmarkTable) -> Iterator[dict[str, object]]:
    for part in table.parts:
        for method in table.methods:
            for column in table.columns:
                mean, gap = part.means[method, column], part.differences.get((method, column))
                yield {
                    "prompts": f"category {part.name}" if part.is_category else part.name,
                    "method": method,
                    "metric": column,
                    "number": part.prompts,
                    "mean": mean.mean,
                    "low": mean.low,
                    "high": mean.high,
                    "minus_user": None if gap is None else gap.mean,
                    "minus_user_low": None if gap is None else gap.low,
                    "minus_user_high": None if gap is None else gap.high,
                    "p_t": gap.p_t if isinstance(gap, Difference) else None,
                }


def page(tables: Sequence[BenchmarkTable]) -> list[dict[str, object]]:
    """What the page shows of each benchmark."""
    return [
        {
            "title": table.data.title,
            "data": table.data,
            "columns": table.columns,
            "seeds": table.seeds,
            "leaks": [(len(ids), USES[use]) for use, ids in table.data.leaked.items() if ids],
            "leaked": len(table.data.leaked_prompts),
            "compared": " and ".join(f"the {USES[use]}" for use in table.data.leaked),
            "parts": [_shown(table, part) for part in table.parts if not part.is_category],
            "categories": [_shown(table, part) for part in table.categories],
            "atoms": None
            if table.atoms is None or table.data.atoms is None
            else atoms.page(table.data.atoms, table.atoms, table.methods, []),
        }
        for table in tables
    ]


def _shown(table: BenchmarkTable, part: Part) -> dict[str, object]:
    widths = {c: max(part.means[m, c].high - part.means[m, c].low for m in table.methods) / 2 for c in table.columns}
    places = {column: decimals(width) for column, width in widths.items()}
    rows = [
        {
            "method": method,
            "cells": [
                (*_mean(part, method, column, places[column]), _gap(part, method, column)) for column in table.columns
            ],
        }
        for method in table.methods
    ]
    return {"name": part.name, "prompts": part.prompts, "rows": rows}


def _mean(part: Part, method: str, column: str, places: int) -> tuple[str, str]:
    value, bounds = interval(part.means[method, column], places)
    return value, bounds if part.prompts >= FEWEST else ""


def _gap(part: Part, method: str, column: str) -> str:
    """The difference to the user's prompt with its interval; empty where there is none, and for drift."""
    gap = part.differences.get((method, column))
    return "" if gap is None or column == "drift" else " ".join(signed(gap))
