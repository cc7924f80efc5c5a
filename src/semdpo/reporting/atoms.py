"""Which facts of the prompts the images show and the rewrites still state, skill by skill, with paired intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from semdpo.analysis.atoms import arithmetic_mean, geometric_mean
from semdpo.analysis.statistics import Difference, Estimate, mean_intervals, paired_difference
from semdpo.data.atoms import SKILLS, AtomAnswer
from semdpo.reporting.formats import decimals, interval, signed

AM, GM, ALL = "Soft-TIFA AM", "Soft-TIFA GM", "all atoms"
SHOWN, STATED = "images show", "rewrites state"
LISTED = 8  # lost facts of a method that the page lists
FEWEST = 2  # prompts that a column needs, for an interval


@dataclass(frozen=True, slots=True)
class AtomData:
    """The answers that a report shows.

    Attributes:
        answers: method → the answers about its images; every method has the same prompts and image seeds.
        maker: who made the atoms, as in a recipe.
        model: the model that answered; None where no image was asked about.
        prompts: number of held-out prompts with atoms.
        without: number of held-out prompts without.
    """

    answers: Mapping[str, Sequence[AtomAnswer]]
    maker: str
    model: str | None
    prompts: int
    without: int


Column = tuple[str, str]  # SHOWN or STATED; a mean of all atoms, or a skill


@dataclass(frozen=True, slots=True)
class AtomTables:
    """The numbers about atoms.

    Attributes:
        columns: the columns, those of images first.
        means: (method, column) → mean over prompts and its 95% interval. A skill's mean is over its atoms, as in
            GenEval 2's analysis; a prompt's atoms stay together when prompts are resampled.
        differences: (other method, column) → subject − other, paired by prompt.
        atoms: column → number of atoms that it is about.
        lost: method → (question, rewrites that no longer state it, rewrites whose prompt states it), most lost first.
    """

    columns: list[Column]
    means: dict[tuple[str, Column], Estimate]
    differences: dict[tuple[str, Column], Difference]
    atoms: dict[Column, int]
    lost: dict[str, list[tuple[str, int, int]]]


def atom_tables(data: AtomData, methods: Sequence[str], subject: str | None, others: Sequence[str]) -> AtomTables:
    """Computes the numbers about atoms.

    Args:
        data: the answers.
        methods: the methods to show.
        subject: the method that is compared with the others; None compares none.
        others: the other methods.
    """
    frames = _frames(data, methods)
    values = _values(frames, with_images=data.model is not None)
    means, differences = dict[tuple[str, Column], Estimate](), dict[tuple[str, Column], Difference]()
    for column, table in values.items():
        estimates = mean_intervals(table[list(methods)].to_numpy())
        means |= {(method, column): estimate for method, estimate in zip(methods, estimates, strict=True)}
        if subject is not None:
            differences |= {(other, column): paired_difference(table[subject], table[other]) for other in others}
    first = next(iter(frames.values()))
    one_image = first.drop_duplicates(["prompt_id", "question"])
    counts = {column: _number(one_image, column) for column in values}
    return AtomTables(list(values), means, differences, counts, {method: _lost(frames[method]) for method in methods})


def _number(asked: pd.DataFrame, column: Column) -> int:
    """The number of atoms that a column is about; of texts, of those whose words are known."""
    what, atoms = column
    rows = asked if what == SHOWN else asked[asked["kept"].notna()]
    return int((rows["skill"] == atoms).sum()) if atoms in SKILLS else len(rows)


def _frames(data: AtomData, methods: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Each method's answers, without images of which a method's was blackened or could not be rendered."""
    frames = {method: pd.DataFrame(data.answers[method], columns=list(_NAMES)) for method in methods}
    if data.model is None:
        return frames
    black = {place for frame in frames.values() for place in _places(frame[frame["probability"].isna()])}
    return {method: frame[[place not in black for place in _places(frame)]] for method, frame in frames.items()}


def _places(frame: pd.DataFrame) -> list[tuple[str, int]]:
    return list(zip(frame["prompt_id"], frame["image_seed"], strict=True))


_NAMES = AtomAnswer.__dataclass_fields__


def _values(frames: Mapping[str, pd.DataFrame], *, with_images: bool) -> dict[Column, pd.DataFrame]:
    """Column → values, [prompts, methods], of the columns that at least ``FEWEST`` prompts have."""
    found: dict[Column, dict[str, pd.Series]] = {}
    for method, frame in frames.items():
        told = frame[frame["kept"].notna()].assign(kept=lambda rows: rows["kept"].astype(float))
        if with_images:
            images = frame.groupby(["prompt_id", "image_seed"], sort=False)["probability"]
            for name, mean in ((AM, arithmetic_mean), (GM, geometric_mean)):
                found.setdefault((SHOWN, name), {})[method] = images.agg(mean).groupby("prompt_id", sort=False).mean()
            for skill in SKILLS:
                found.setdefault((SHOWN, skill), {})[method] = _of_skill(frame, skill, "probability")
        found.setdefault((STATED, ALL), {})[method] = told.groupby("prompt_id", sort=False)["kept"].mean()
        for skill in SKILLS:
            found.setdefault((STATED, skill), {})[method] = _of_skill(told, skill, "kept")
    tables = {column: pd.DataFrame(series) for column, series in found.items()}
    return {column: table for column, table in tables.items() if len(table) >= FEWEST}


def _of_skill(frame: pd.DataFrame, skill: str, value: str) -> pd.Series:
    """One value per prompt, whose mean over prompts is the mean R over the skill's atoms.

    Prompts have different numbers n of such atoms, with the sum s. R + (s − R·n)/mean(n) has the mean R, and varies
    over prompts as R does when prompts are resampled (a ratio estimator, linearized: Cochran 1977, chapter 6).
    """
    rows = frame[frame["skill"] == skill]
    if rows.empty:
        return pd.Series(dtype=float)
    of_prompt = rows.groupby(["prompt_id", "question"], sort=False)[value].mean().groupby("prompt_id", sort=False)
    sums, sizes = of_prompt.sum(), of_prompt.size()
    ratio = sums.sum() / sizes.sum()
    return ratio + (sums - ratio * sizes) / sizes.mean()


def _lost(frame: pd.DataFrame) -> list[tuple[str, int, int]]:
    """The questions that a method's rewrites lose, with how many lose them and how many could."""
    of_prompts = frame.drop_duplicates(["prompt_id", "question"])
    known = of_prompts[of_prompts["kept"].notna()]
    asked, lost = Counter(known["question"]), Counter(known.loc[known["kept"].eq(False), "question"])
    return [
        (question, count, asked[question])
        for question, count in sorted(lost.items(), key=lambda each: (-each[1], each[0]))
    ]


# ------------------------------------------------------------------------------------------------- files and page


def frames(tables: AtomTables, subject: str | None) -> list[tuple[str, str, pd.DataFrame]]:
    """The tables that a report writes: (name, title, frame); none where nothing is known of two prompts."""
    if not tables.columns:
        return []
    means = pd.DataFrame(
        {
            "method": m,
            "what": c[0],
            "atoms": c[1],
            "number": tables.atoms[c],
            "mean": e.mean,
            "low": e.low,
            "high": e.high,
        }
        for (m, c), e in tables.means.items()
    ).set_index(["method", "what", "atoms"])
    shown = [("atoms", "Facts that images show and rewrites state, with 95% bootstrap confidence intervals", means)]
    if tables.differences:
        rows = pd.DataFrame(
            {
                "method": subject, "minus": other, "what": c[0], "atoms": c[1], "difference": d.mean, "low": d.low,
                "high": d.high, "p_t": d.p_t, "prompts": d.prompts,
            }
            for (other, c), d in tables.differences.items()
        ).set_index(["method", "minus", "what", "atoms"])  # fmt: skip
        shown.append(("atoms_differences", "Differences in facts shown and stated, paired by prompt", rows))
    return shown


def page(data: AtomData, tables: AtomTables, methods: Sequence[str], others: Sequence[str]) -> dict[str, object]:
    """What the page shows of the atoms."""
    return {
        "maker": data.maker,
        "model": data.model,
        "prompts": data.prompts,
        "without": data.without,
        "parts": [
            _part(tables, what, methods) for what in (SHOWN, STATED) if any(c[0] == what for c in tables.columns)
        ],
        "differences": [_difference(tables, other) for other in others],
        "lost": [(m, tables.lost[m][:LISTED], len(tables.lost[m])) for m in methods if tables.lost[m]],
    }


def _part(tables: AtomTables, what: str, methods: Sequence[str]) -> dict[str, object]:
    columns = [column for column in tables.columns if column[0] == what]
    width = {c: max(tables.means[m, c].high - tables.means[m, c].low for m in methods) / 2 for c in columns}
    rows = [(m, [interval(tables.means[m, c], decimals(width[c])) for c in columns]) for m in methods]
    return {"what": what, "columns": [(c[1], tables.atoms[c]) for c in columns], "rows": rows}


def _difference(tables: AtomTables, other: str) -> dict[str, object]:
    cells = {c: signed(tables.differences[other, c]) for c in tables.columns}
    names = list(dict.fromkeys(c[1] for c in tables.columns))
    return {"other": other, "rows": [(name, cells.get((SHOWN, name)), cells.get((STATED, name))) for name in names]}
