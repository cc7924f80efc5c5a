"""What a report shows, and the tables that are computed from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from semdpo.errors import DataError
from semdpo.records import Curve, EvaluationRow, Pair
from semdpo.semantics import semantic_weight
from semdpo.statistics import (
    Difference,
    Estimate,
    HeadToHead,
    head_to_head,
    holm,
    mean_interval,
    min_max_average,
    paired_difference,
    prompt_means,
)

# What every method has besides the judges' scores; "drift" is the distance of prompt and rewrite.
EXTRAS = ("drift", "tokens")
ORDER = ("human", "sft", "dpo", "sem_dpo")
METHOD_LABELS = {
    "human": "User's prompt",
    "sft": "SFT",
    "dpo": "DPO",
    "sem_dpo": "Sem-DPO",
    "kto": "KTO",
    "orpo": "ORPO",
    "beta_dpo": "β-DPO",
    "additive": "Additive reward",
    "promptist": "Promptist",
    "beautiful_prompt": "BeautifulPrompt",
}
METRIC_LABELS = {
    "clip": "CLIP",
    "clip_b": "CLIP-B",
    "blip_itm": "BLIP-ITM",
    "jina": "Jina",
    "hps": "HPS",
    "pickscore": "PickScore",
    "image_reward": "ImageReward",
    "drift": "drift",
    "tokens": "tokens",
    "average": "average",
}


def _seen() -> dict[str, str]:
    return {
        "clip": "its text tower measured the drift that set the weights",
        "image_reward": "it labelled the training pairs",
    }


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything that a report shows.

    Attributes:
        title: heading of the page.
        evaluation: one row per picture; every method on the same prompts and image seeds.
        pairs: the weighed training pairs; may be empty.
        pair_counts: name → count (kept, ties, truncated …), shown as they are.
        curves: training curves; may be empty.
        stages: (name, seconds, rows) in the order in which they ran; may be empty.
        recipe: the recipe's YAML text.
        versions: name → version or hash.
        alpha: strength of the weights, W = exp(−alpha·distance).
        notes: remarks, shown as they are.
        fidelity: metrics that ask whether the picture shows what was asked.
        preference: metrics that ask whether people would like the picture.
        seen: metric → how its model took part in training, so that it is no independent judge.
        subject: the method that the page compares …
        baseline: … with this one first; the last two methods stand in where these were not evaluated.
    """

    title: str
    evaluation: Sequence[EvaluationRow]
    pairs: Sequence[Pair]
    pair_counts: dict[str, int]
    curves: Sequence[Curve]
    stages: Sequence[tuple[str, float, int]]
    recipe: str
    versions: dict[str, str]
    alpha: float
    notes: Sequence[str]
    fidelity: Sequence[str]
    preference: Sequence[str]
    seen: dict[str, str] = field(default_factory=_seen)
    subject: str = "sem_dpo"
    baseline: str = "dpo"

    @property
    def metrics(self) -> list[str]:
        """Fidelity metrics, then preference metrics."""
        return [*self.fidelity, *self.preference]

    @property
    def held_out(self) -> list[str]:
        """Metrics whose model took no part in training."""
        return [name for name in self.metrics if name not in self.seen]


@dataclass(frozen=True, slots=True)
class Tables:
    """The numbers of a report.

    Attributes:
        methods: names in order of display.
        prompts: number of prompts.
        seeds: pictures of one prompt and method (the largest number where it differs).
        values: metric, drift or tokens → [prompts, methods], mean over image seeds.
        means: (method, column) → mean and interval.
        average: method → the paper's average score.
        subject: the method that is compared, None when there is only one.
        baseline: the method it is compared with first.
        differences: (other method, column) → subject − other.
        duels: (other method, metric) → win, tie, loss of the subject.
    """

    methods: list[str]
    prompts: int
    seeds: int
    values: dict[str, pd.DataFrame]
    means: dict[tuple[str, str], Estimate]
    average: dict[str, float]
    subject: str | None
    baseline: str | None
    differences: dict[tuple[str, str], Difference]
    duels: dict[tuple[str, str], HeadToHead]

    @property
    def others(self) -> list[str]:
        """Methods that the subject is compared with, the baseline first."""
        rest = [name for name in self.methods if name not in (self.subject, self.baseline)]
        return [self.baseline, *reversed(rest)] if self.baseline else []


def method_label(name: str) -> str:
    """The name of a method as people write it."""
    return METHOD_LABELS.get(name, name)


def metric_label(name: str) -> str:
    """The name of a metric as people write it."""
    return METRIC_LABELS.get(name, name)


def verdict(difference: Estimate | Difference) -> str:
    """What an interval allows to say: ``higher``, ``lower`` or ``no difference could be seen``."""
    if difference.low > 0:
        return "higher"
    return "lower" if difference.high < 0 else "no difference could be seen"


def compute_tables(data: ReportData) -> Tables:
    """All numbers of a report.

    Raises:
        DataError: there are no pictures, a metric is absent or not a number, or methods cannot be paired.
    """
    frame = _frame(data)
    present = [str(name) for name in frame["method"].unique()]
    methods = sorted(present, key=lambda name: (ORDER.index(name) if name in ORDER else 99, name))
    columns = [*data.metrics, *EXTRAS]
    values = {name: prompt_means(frame, name)[methods] for name in columns}
    subject, baseline = _compared(data, methods)
    others = [name for name in methods if name != subject] if subject else []
    return Tables(
        methods=methods,
        prompts=int(frame["prompt_id"].nunique()),
        seeds=int(frame.groupby(["method", "prompt_id"]).size().max()),
        values=values,
        means={(m, name): mean_interval(values[name][m]) for m in methods for name in columns},
        average=_average(frame, data.metrics),
        subject=subject,
        baseline=baseline,
        differences={
            (other, name): paired_difference(values[name][subject], values[name][other])
            for other in others
            for name in columns
        },
        duels={
            (other, name): head_to_head(values[name][subject], values[name][other])
            for other in others
            for name in data.metrics
        },
    )


def _frame(data: ReportData) -> pd.DataFrame:
    if not data.evaluation:
        raise DataError("there is nothing to report: no picture was evaluated; run `semdpo evaluate` first")
    if not data.metrics:
        raise DataError("a report needs at least one metric; name them under report.fidelity in the recipe")
    clash = {*EXTRAS, "average"} & set(data.metrics)
    if clash:
        raise DataError(f"'{min(clash)}' is a column of every report; give the metric another name")
    for row in data.evaluation:
        lost = [name for name in data.metrics if name not in row.metrics]
        if lost:
            raise DataError(
                f"metric '{lost[0]}' is missing for method '{row.method}', prompt {row.prompt_id}; "
                "evaluate it again or leave the metric out of the report"
            )
    return pd.DataFrame(
        {
            "method": row.method,
            "prompt_id": row.prompt_id,
            "image_seed": row.image_seed,
            "source": row.source,
            "drift": row.distance,
            "tokens": row.tokens,
            **{name: row.metrics[name] for name in data.metrics},
        }
        for row in data.evaluation
    )


def _compared(data: ReportData, methods: list[str]) -> tuple[str | None, str | None]:
    if len(methods) < 2:
        return None, None
    subject = data.subject if data.subject in methods else methods[-1]
    rest = [name for name in methods if name != subject]
    return subject, data.baseline if data.baseline in rest else rest[-1]


def _average(frame: pd.DataFrame, metrics: list[str]) -> dict[str, float]:
    # The paper scales within one set of prompts; several sets count equally.
    scores = [
        min_max_average(pd.DataFrame({name: prompt_means(part, name).mean() for name in metrics}))
        for _, part in frame.groupby("source", sort=False)
    ]
    mean = pd.concat(scores, axis=1).mean(axis=1)
    return {str(name): float(value) for name, value in mean.items()}


def results_frame(data: ReportData, tables: Tables) -> pd.DataFrame:
    """``results.csv``: one row per method and column; the average score has no interval."""
    rows: list[dict[str, object]] = []
    for method in tables.methods:
        for name in [*data.metrics, *EXTRAS]:
            e = tables.means[method, name]
            rows.append({"method": method, "metric": name, "mean": e.mean, "low": e.low, "high": e.high})
        rows.append({"method": method, "metric": "average", "mean": tables.average[method]})
    return pd.DataFrame(rows).assign(prompts=tables.prompts)


def differences_frame(data: ReportData, tables: Tables) -> pd.DataFrame:
    """``differences.csv``: subject − other for each column; ``p_holm`` corrects the t-test over the metrics."""
    rows: list[dict[str, object]] = []
    for other in tables.others:
        p_holm = holm([tables.differences[other, name].p_t for name in data.metrics])
        corrected = dict(zip(data.metrics, p_holm, strict=True))
        for name in [*data.metrics, *EXTRAS]:
            d, duel = tables.differences[other, name], tables.duels.get((other, name))
            rows.append(
                {
                    "method": tables.subject,
                    "minus": other,
                    "metric": name,
                    "difference": d.mean,
                    "low": d.low,
                    "high": d.high,
                    "p_t": d.p_t,
                    "p_wilcoxon": d.p_wilcoxon,
                    "p_holm": corrected.get(name),
                    "wins": duel.wins if duel else None,
                    "ties": duel.ties if duel else None,
                    "losses": duel.losses if duel else None,
                    "prompts": d.prompts,
                }
            )
    numbers = ["difference", "low", "high", "p_t", "p_wilcoxon", "p_holm"]
    columns = ["method", "minus", "metric", *numbers, "wins", "ties", "losses", "prompts"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(("wins", "ties", "losses"), "Int64"))


def weights(data: ReportData) -> NDArray[np.float64]:
    """W of every pair, [pairs].

    Raises:
        DataError: a pair has no distance yet, or one outside [0, 2].
    """
    distances = [pair.distance for pair in data.pairs if pair.distance is not None]
    if len(distances) < len(data.pairs):
        raise DataError(
            f"{len(data.pairs) - len(distances)} pairs have no semantic distance; run `semdpo weigh` on them first"
        )
    try:
        return semantic_weight(distances, data.alpha)
    except ValueError as error:
        raise DataError(str(error)) from error
