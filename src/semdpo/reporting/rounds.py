"""How drift, preference, length and cost change from round to round, with paired intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from semdpo.analysis.statistics import Difference, paired_difference
from semdpo.data.records import Pair
from semdpo.engine import store, timing
from semdpo.engine.counts import described
from semdpo.engine.stage import Run
from semdpo.recipe.rounds import LaterRound, name_in_round, trained_in
from semdpo.reporting.formats import decimals, duration, interval, number, signed
from semdpo.reporting.labels import USER, method_label
from semdpo.stages.rounds import names_in
from semdpo.texts import trimmed

if TYPE_CHECKING:
    from semdpo.reporting.compute import Tables
    from semdpo.reporting.data import ReportData

SFT = "sft"
OF_PAIRS = ("candidates", "render_budget", "label", "pairs", "drift")  # the stages that give a round its pairs


@dataclass(frozen=True, slots=True)
class RoundData:
    """What one round of one method was trained on, and what it cost.

    Attributes:
        method: the method's name.
        number: the round's number, counted from 1.
        pairs: number of training pairs.
        distance: mean distance of the chosen rewrites from their prompts, as the weights see it.
        rejected_distance: the same of the rejected rewrites; NaN where the number is one of the pair, as a margin is.
        own: number of pairs whose chosen rewrite is the user's prompt, unchanged.
        images: number of candidates' images.
        tokens: number of tokens of the candidates that are rewrites; duplicates and empty rewrites, which were sampled
            too, are not among them.
        seconds: what the round's stages took; in the first round, those up to the pairs serve all methods.
    """

    method: str
    number: int
    pairs: int
    distance: float
    rejected_distance: float
    own: int
    images: int
    tokens: int
    seconds: float

    @property
    def evaluated(self) -> str:
        """The name under which the round's rewriter is evaluated."""
        return name_in_round(self.method, self.number)


def collected(run: Run) -> list[RoundData]:
    """All rounds of the methods that have several, method by method; none where the recipe has one round.

    Args:
        run: the finished run.
    """
    later = run.recipe.later_rounds
    methods = list(dict.fromkeys(each.method for each in later))
    rounds = [(method, 1, None) for method in methods] + [(each.method, each.number, each) for each in later]
    rounds.sort(key=lambda each: (methods.index(each[0]), each[1]))
    return [_collected(run, method, number, each) for method, number, each in rounds]


def _collected(run: Run, method: str, number: int, each: LaterRound | None) -> RoundData:
    stages = _stages(run, each)
    counts = {name: store.counts(run.folder / stage) for name, stage in stages.items()}
    pairs, of_pairs = run.rows(stages["drift"], Pair), run.recipe.drift.source in ("margin", "scorer_agreement")
    return RoundData(
        method=method,
        number=number,
        pairs=len(pairs),
        distance=_mean([pair.distance for pair in pairs]),
        rejected_distance=_mean([] if of_pairs else [pair.rejected_distance for pair in pairs]),
        own=sum(" ".join(trimmed(pair.prompt).split()) == pair.chosen for pair in pairs),
        images=counts["candidates"]["rows"] - counts.get("render_budget", {}).get("images_left_out", 0),
        tokens=counts["candidates"].get("tokens", 0),
        seconds=sum(timing.seconds(run.folder / stage) for stage in [*stages.values(), trained_in(method, number)]),
    )


def _stages(run: Run, each: LaterRound | None) -> dict[str, str]:
    """The stages that give a round its pairs: name in the first round → name in this one."""
    names = {} if each is None else names_in(each)
    return {name: names.get(name, name) for name in OF_PAIRS if name != "render_budget" or run.recipe.render_budget}


def notes(run: Run) -> list[str]:
    """What every later round left out and truncated, in the words that the run prints.

    Args:
        run: the finished run.
    """
    counted = {
        each: [described(stage, store.counts(run.folder / stage)) for stage in _stages(run, each).values()]
        for each in run.recipe.later_rounds
    }
    return [f"Round {e.number}, {method_label(e.method)}: {'; '.join(said)}." for e, said in counted.items()]


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")


# ------------------------------------------------------------------------------------------------- numbers


def columns(data: ReportData) -> list[str]:
    """The columns of the evaluation that are followed from round to round."""
    return ["drift", *data.metrics, "tokens", *data.facts_columns]


def differences(
    data: ReportData, values: Mapping[str, pd.DataFrame], subject: str | None, baseline: str | None
) -> dict[tuple[str, str, str], Difference]:
    """Every later round − the first of its method, then in every round subject − baseline, paired by prompt.

    Args:
        data: the data of the report.
        values: column → values, [prompts, methods].
        subject: the method that the report is about.
        baseline: the method that it is compared with first.

    Returns:
        (one, other, column) → one − other.
    """
    later = [(each.evaluated, each.method) for each in data.rounds if each.number > 1]
    return {
        (one, other, name): paired_difference(values[name][one], values[name][other])
        for one, other in [*later, *_against_baseline(data, subject, baseline)]
        for name in columns(data)
    }


def _against_baseline(data: ReportData, subject: str | None, baseline: str | None) -> list[tuple[str, str]]:
    """The rewriters of subject and baseline in each round that both have."""
    places = {(each.method, each.number): each.evaluated for each in data.rounds}
    both = [(place, places.get((str(baseline), n))) for (method, n), place in places.items() if method == subject]
    return [(one, other) for one, other in both if other is not None]


def frames(data: ReportData, tables: Tables) -> list[tuple[str, str, pd.DataFrame]]:
    """The tables that a report writes: (name, title, frame); none where the run has one round."""
    if not data.rounds:
        return []
    rows: list[dict[str, object]] = []
    for method, place, evaluated in [*((name, 0, name) for name in _starts(tables)), *map(_place, data.rounds)]:
        row: dict[str, object] = {"method": method, "round": place}
        for name in columns(data):
            e = tables.means[evaluated, name]
            row |= {name: e.mean, f"{name}_low": e.low, f"{name}_high": e.high}
        rows.append(row)
    trained = [
        {
            "method": each.method, "round": each.number, "pairs": each.pairs, "chosen_distance": each.distance,
            "rejected_distance": each.rejected_distance, "own_prompt_chosen": each.own, "images": each.images,
            "tokens": each.tokens, "seconds": each.seconds,
        }
        for each in data.rounds
    ]  # fmt: skip
    differences = [
        {"method": one, "minus": other, "metric": name, "difference": d.mean, "low": d.low, "high": d.high,
         "p_t": d.p_t, "prompts": d.prompts}
        for (one, other, name), d in tables.rounds.items()
    ]  # fmt: skip
    return [
        ("rounds", "Round by round, with 95% bootstrap confidence intervals",
         pd.DataFrame(rows).set_index(["method", "round"])),
        ("rounds_trained", "What each round was trained on, and its cost",
         pd.DataFrame(trained).set_index(["method", "round"])),
        ("rounds_differences", "Differences between rounds and, within a round, between methods, paired by prompt",
         pd.DataFrame(differences).set_index(["method", "minus", "metric"])),
    ]  # fmt: skip


def _starts(tables: Tables) -> list[str]:
    """What the rounds are compared with: the user's prompt, and the rewriter that the first round starts from."""
    return [name for name in (USER, SFT) if name in tables.methods]


def _place(each: RoundData) -> tuple[str, int, str]:
    return each.method, each.number, each.evaluated


# ------------------------------------------------------------------------------------------------- page


def page(data: ReportData, tables: Tables) -> dict[str, object] | None:
    """What the page shows of the rounds; None where the run has one."""
    if not data.rounds:
        return None
    names = columns(data)
    evaluated = [*_starts(tables), *(each.evaluated for each in data.rounds)]
    half = {n: max(tables.means[m, n].high - tables.means[m, n].low for m in evaluated) / 2 for n in names}

    def cells(method: str) -> list[tuple[str, str]]:
        return [interval(tables.means[method, name], decimals(half[name])) for name in names]

    return {
        "count": max(each.number for each in data.rounds),
        "columns": names,
        "rows": [
            *({"method": name, "number": "", "cells": cells(name)} for name in _starts(tables)),
            *({"method": r.method, "number": r.number, "cells": cells(r.evaluated)} for r in data.rounds),
        ],
        "changes": _changes(data, tables),
        "trained": [_trained(each) for each in data.rounds],
        "own": any(each.own for each in data.rounds),
        "images": sum(each.images for each in data.rounds if each.number > 1),
    }


def _changes(data: ReportData, tables: Tables) -> list[dict[str, object]]:
    """The last round − the first of each method, and subject − baseline in the last round, column by column."""
    last = {each.method: each.evaluated for each in data.rounds}
    against = _against_baseline(data, tables.subject, tables.baseline)
    shown = [(name, method) for method, name in last.items()] + against[-1:]
    return [
        {"one": one, "other": other, "cells": [signed(tables.rounds[one, other, name]) for name in columns(data)]}
        for one, other in shown
    ]


def _trained(each: RoundData) -> dict[str, object]:
    distances = [number(value, 3) if value == value else "–" for value in (each.distance, each.rejected_distance)]
    return {
        "method": each.method,
        "number": each.number,
        "pairs": each.pairs,
        "distances": distances,
        "own": each.own,
        "images": each.images,
        "tokens": f"{each.tokens:,}",
        "spent": duration(each.seconds),
    }
