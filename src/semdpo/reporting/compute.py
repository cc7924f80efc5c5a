"""Computes the numbers of a report from its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from semdpo.analysis.length_control import LengthControlled, length_controlled
from semdpo.analysis.statistics import (
    Difference,
    Estimate,
    HeadToHead,
    head_to_head,
    holm,
    mean_interval,
    mean_intervals,
    min_max_average,
    paired_difference,
    prompt_means,
)
from semdpo.analysis.wording import cliches, repetition
from semdpo.errors import DataError
from semdpo.reporting import facts, rounds
from semdpo.reporting.atoms import AtomTables, atom_tables
from semdpo.reporting.benchmarks import BenchmarkTable, benchmark_table
from semdpo.reporting.data import ReportData
from semdpo.reporting.labels import ORDER, USER


@dataclass(frozen=True, slots=True)
class SetTable:
    """The numbers of one set of prompts.

    Attributes:
        source: name of the set.
        prompts: number of prompts.
        means: (method, column) → mean and 95% confidence interval.
        average: method → the paper's average score.
        tokens: tokens of the rewrites, [prompts, methods], mean over image seeds.
    """

    source: str
    prompts: int
    means: dict[tuple[str, str], Estimate]
    average: dict[str, float]
    tokens: pd.DataFrame


@dataclass(frozen=True, slots=True)
class Tables:
    """The numbers of a report.

    Attributes:
        methods: names of the compared methods, in order of display.
        variants: names of the methods with another decoding, in the same order for each decoding; they are in
            ``values`` and ``means`` only.
        prompts: number of prompts.
        seeds: number of images per prompt and method (the largest number where it differs).
        values: column → values, [prompts, methods], mean over image seeds.
        means: (method, column) → mean and 95% confidence interval.
        average: method → the paper's average score; of several sets, computed from the mean over the sets.
        sets: the same numbers for every set of prompts.
        subject: the method that is compared with the others; None where there is only one method.
        baseline: the method that the subject is compared with first.
        differences: (other method, column) → subject − other, paired by prompt.
        corrected: (other method, metric) → p-value of the paired t-test, Holm-corrected over the metrics.
        duels: (other method, metric) → wins, ties and losses of the subject.
        equal_length: (other method, metric) → share won at equal length; None where it cannot be estimated.
        atoms: which facts of the prompts images show and rewrites state, of all evaluated methods; None without atoms.
        benchmarks: the numbers of each benchmark, of all evaluated methods.
        rounds: (one, other, column) → one − other, of the rounds of a method and of two methods in one round.
    """

    methods: list[str]
    variants: list[str]
    prompts: int
    seeds: int
    values: dict[str, pd.DataFrame]
    means: dict[tuple[str, str], Estimate]
    average: dict[str, float]
    sets: list[SetTable]
    subject: str | None
    baseline: str | None
    differences: dict[tuple[str, str], Difference]
    corrected: dict[tuple[str, str], float]
    duels: dict[tuple[str, str], HeadToHead]
    equal_length: dict[tuple[str, str], LengthControlled | None]
    atoms: AtomTables | None = None
    benchmarks: tuple[BenchmarkTable, ...] = ()
    rounds: dict[tuple[str, str, str], Difference] = field(default_factory=dict)

    @property
    def evaluated(self) -> list[str]:
        """All methods: those that are compared, then those with another decoding."""
        return [*self.methods, *self.variants]

    @property
    def everything(self) -> SetTable:
        """The numbers of all sets together as one set."""
        return SetTable("all", self.prompts, self.means, self.average, self.values["tokens"])

    @property
    def sets_and_all(self) -> list[SetTable]:
        """Every set and, where there are several, all sets together."""
        return [*self.sets, *([self.everything] if len(self.sets) > 1 else [])]

    @property
    def others(self) -> list[str]:
        """The methods that the subject is compared with: the user's own prompt, the baseline, then the rest."""
        rest = [name for name in self.methods if name not in (self.subject, self.baseline)]
        others = [self.baseline, *reversed(rest)] if self.baseline else []
        return sorted(others, key=lambda name: name != USER)


NOT_SIGNIFICANT = "no significant difference"


def verdict(difference: Estimate | Difference) -> str:
    """What a confidence interval shows: ``higher``, ``lower``, or, where it contains 0, ``NOT_SIGNIFICANT``."""
    if difference.low > 0:
        return "higher"
    return "lower" if difference.high < 0 else NOT_SIGNIFICANT


def compute_tables(data: ReportData) -> Tables:
    """All numbers of a report.

    Raises:
        DataError: there are no images or those of one prompt only, a metric is missing or not a number, or methods
            cannot be paired.
    """
    frame = _frame(data)
    if (prompts := int(frame["prompt_id"].nunique())) < 2:
        raise DataError(f"{prompts} prompt was evaluated, and an interval needs at least two; evaluate more prompts")
    methods, variants = _methods(data, [str(name) for name in frame["method"].unique()])
    evaluated = [*methods, *variants]
    columns = [*data.metrics, *data.extras]
    values = {name: prompt_means(frame, name)[evaluated] for name in columns}
    sets = [_set(str(source), part, methods, variants, data) for source, part in frame.groupby("source", sort=False)]
    subject, baseline = compared(data)
    others = [name for name in methods if name != subject] if subject else []
    differences = {
        (other, name): paired_difference(values[name][subject], values[name][other])
        for other in others
        for name in columns
    }
    pairs = [(other, name) for other in others for name in data.metrics]
    return Tables(
        methods=methods,
        variants=variants,
        prompts=prompts,
        seeds=int(frame.groupby(["method", "prompt_id"]).size().max()),
        values=values,
        means={(m, name): mean_interval(values[name][m]) for m in evaluated for name in columns},
        average=_average([{m: {n: s.means[m, n].mean for n in data.metrics} for m in methods} for s in sets]),
        sets=sets,
        subject=subject,
        baseline=baseline,
        differences=differences,
        corrected=_corrected(differences, others, data.metrics),
        duels={(other, name): head_to_head(values[name][subject], values[name][other]) for other, name in pairs},
        equal_length={
            (other, name): length_controlled(
                values[name][subject], values[name][other], values["tokens"][subject], values["tokens"][other]
            )
            for other, name in pairs
        },
        atoms=atom_tables(data.atoms, evaluated, subject, others) if data.atoms is not None else None,
        benchmarks=tuple(benchmark_table(each, data.metrics, evaluated) for each in data.benchmarks),
        rounds=rounds.differences(data, values, subject, baseline),
    )


def _methods(data: ReportData, present: Sequence[str]) -> tuple[list[str], list[str]]:
    """The methods that are compared, and those with another decoding, both in order of display."""
    variants = {name: variant for name, variant in data.variants.items() if {name, variant.method} <= set(present)}
    compared = [name for name in present if name not in variants]
    methods = sorted(compared, key=lambda name: (ORDER.index(name) if name in ORDER else 99, name))
    decodings = list(dict.fromkeys(variant.name for variant in variants.values()))
    places = {name: (decodings.index(v.name), methods.index(v.method)) for name, v in variants.items()}
    return methods, sorted(places, key=lambda name: places[name])


def _frame(data: ReportData) -> pd.DataFrame:
    if not data.evaluation:
        raise DataError("no image was evaluated, so there is nothing to report; run `semdpo evaluate` first")
    if not data.metrics:
        raise DataError("a report needs at least one metric; name them under report.fidelity in the recipe")
    clash = {*data.extras, "average"} & set(data.metrics)
    if clash:
        raise DataError(f"'{min(clash)}' is a column of every report; give the metric another name")
    for row in data.evaluation:
        missing = [name for name in data.metrics if name not in row.metrics]
        if missing:
            raise DataError(
                f"metric '{missing[0]}' is missing for method '{row.method}', prompt {row.prompt_id}; "
                "evaluate it again or leave the metric out of the report"
            )
    return pd.DataFrame(
        {
            "method": row.method,
            "prompt_id": row.prompt_id,
            "image_seed": row.image_seed,
            "source": row.source,
            "drift": row.distance,
            "drifted": float(row.distance >= data.drift_threshold),
            "tokens": row.tokens,
            "repetition": repetition(row.rewrite),
            "cliches": float(len(cliches(row.prompt, row.rewrite))),
            **(facts.columns(row.prompt, row.rewrite) if data.facts else {}),
            **{name: row.metrics[name] for name in data.metrics},
        }
        for row in data.evaluation
    )


def _set(
    source: str, frame: pd.DataFrame, methods: Sequence[str], variants: Sequence[str], data: ReportData
) -> SetTable:
    columns, evaluated = [*data.metrics, *data.extras], [*methods, *variants]
    values = {name: prompt_means(frame, name) for name in columns}
    missing = [m for m in evaluated if m not in values[columns[0]]]
    if missing:
        raise DataError(f"method '{missing[0]}' has no images of the set '{source}'; evaluate all methods on all sets")
    means: dict[tuple[str, str], Estimate] = {}
    for name, table in values.items():
        estimates = mean_intervals(table[evaluated].to_numpy())
        means |= {(m, name): estimate for m, estimate in zip(evaluated, estimates, strict=True)}
    average = _average([{m: {n: float(values[n][m].mean()) for n in data.metrics} for m in methods}])
    tokens = values["tokens"][list(methods)]
    return SetTable(source, len(tokens), means, average, tokens)


def _average(sets: Sequence[dict[str, dict[str, float]]]) -> dict[str, float]:
    """The average score of every method; means of several sets are averaged first, as in the paper's tables 8 and 9."""
    frames = [pd.DataFrame.from_dict(means, orient="index") for means in sets]
    means = sum(frames[1:], frames[0]) / len(frames)
    return {str(method): float(score) for method, score in min_max_average(means).items()}


def compared(data: ReportData) -> tuple[str | None, str | None]:
    """The subject, and the method that it is compared with first; None where there is only one method."""
    methods, _ = _methods(data, list(dict.fromkeys(row.method for row in data.evaluation)))
    if len(methods) < 2:
        return None, None
    subject = data.subject if data.subject in methods else methods[-1]
    rest = [name for name in methods if name != subject]
    return subject, data.baseline if data.baseline in rest else rest[-1]


def _corrected(
    differences: dict[tuple[str, str], Difference], others: Sequence[str], metrics: Sequence[str]
) -> dict[tuple[str, str], float]:
    corrected: dict[tuple[str, str], float] = {}
    for other in others:
        adjusted = holm([differences[other, name].p_t for name in metrics])
        corrected |= {(other, name): p for name, p in zip(metrics, adjusted, strict=True)}
    return corrected


def results_frame(data: ReportData, tables: Tables) -> pd.DataFrame:
    """``tables/results.csv``: one row per set, method and column; set ``all`` has all prompts."""
    rows: list[dict[str, object]] = []
    for one_set in [tables.everything, *(tables.sets if len(tables.sets) > 1 else [])]:
        for method in tables.evaluated:
            shared = {"source": one_set.source, "method": method, "prompts": one_set.prompts}
            for name in [*data.metrics, *data.extras]:
                e = one_set.means[method, name]
                rows.append(shared | {"metric": name, "mean": e.mean, "low": e.low, "high": e.high})
            if method in one_set.average:
                rows.append(shared | {"metric": "average", "mean": one_set.average[method]})
    return pd.DataFrame(rows)


def differences_frame(data: ReportData, tables: Tables) -> pd.DataFrame:
    """``tables/differences.csv``: subject − other for every column; ``p_holm`` is Holm-corrected over the metrics."""
    rows: list[dict[str, object]] = []
    for other in tables.others:
        for name in [*data.metrics, *data.extras]:
            d, duel = tables.differences[other, name], tables.duels.get((other, name))
            equal = tables.equal_length.get((other, name))
            rows.append(
                {
                    "method": tables.subject,
                    "minus": other,
                    "metric": name,
                    "difference": d.mean,
                    "low": d.low,
                    "high": d.high,
                    "detectable": d.detectable,
                    "p_t": d.p_t,
                    "p_wilcoxon": d.p_wilcoxon,
                    "p_holm": tables.corrected.get((other, name)),
                    "wins": duel.wins if duel else None,
                    "ties": duel.ties if duel else None,
                    "losses": duel.losses if duel else None,
                    "won": duel.share if duel else None,
                    "won_low": duel.low if duel else None,
                    "won_high": duel.high if duel else None,
                    "p_sign": duel.p_sign if duel else None,
                    "won_at_equal_length": equal.share if equal else None,
                    "won_at_equal_length_low": equal.low if equal else None,
                    "won_at_equal_length_high": equal.high if equal else None,
                    "prompts": d.prompts,
                }
            )
    whole = ["wins", "ties", "losses", "prompts"]
    names = [
        *("method", "minus", "metric", "difference", "low", "high", "detectable"),
        *("p_t", "p_wilcoxon", "p_holm"),
    ]
    names += ["wins", "ties", "losses", "won", "won_low", "won_high", "p_sign"]
    names += [f"won_at_equal_length{end}" for end in ("", "_low", "_high")] + ["prompts"]
    return pd.DataFrame(rows, columns=names).astype(dict.fromkeys(whole, "Int64"))


def images_frame(data: ReportData) -> pd.DataFrame:
    """``evaluation.csv``: one row per image."""
    return pd.DataFrame(
        {
            "method": row.method,
            "source": row.source,
            "prompt_id": row.prompt_id,
            "prompt": row.prompt,
            "image_seed": row.image_seed,
            "rewrite": row.rewrite,
            "tokens": row.tokens,
            "distance": row.distance,
            "truncated": row.truncated,
            **(facts.columns(row.prompt, row.rewrite) if data.facts else {}),
            **row.metrics,
            **({} if row.consistency is None else {"consistency": row.consistency}),
        }
        for row in data.evaluation
    )
