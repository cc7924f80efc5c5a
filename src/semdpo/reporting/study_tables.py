"""The tables of a study as CSV and LaTeX: all results, and the paper's tables 4 and 11 for a user's own study."""

from __future__ import annotations

import pandas as pd

from semdpo.reporting.labels import USER, method_label, metric_label
from semdpo.reporting.published import PaperTable
from semdpo.study.analysis.results import PairResult, Results

SIMULATED = " (simulated raters)"


def study_tables(results: Results, *, simulated: bool) -> list[PaperTable]:
    """The tables that the analysis of a study writes; the titles of simulated raters' say so.

    Args:
        results: the statistics.
        simulated: whether the raters are simulated.
    """
    tables = [PaperTable("results", "All results of the study", results_frame(results))]
    for place, pair in enumerate(results.primary, 1):  # numbers, because a method's name may be no name of a file
        size = f"{len(pair.raters.rates)} raters, {len(pair.prompts.rates)} prompts"
        votes = f"Votes by method: {names(pair)}, {size} (form of the paper's table 11)"
        preferences = f"Preferences of raters and by prompt: {names(pair)}, {size} (form of the paper's table 4)"
        tables.append(PaperTable(f"votes_{place}", votes, votes_frame(pair)))
        tables.append(PaperTable(f"preferences_{place}", preferences, preferences_frame(pair)))
    if results.scorers:
        frame = scorers_frame(results)
        tables.append(PaperTable("scorers", "Agreement of automatic scorers with people", frame))
    for place, (question, fit) in enumerate(results.strengths.items(), 1):
        frame = pd.DataFrame(
            {"method": method_label(name), "strength": each.mean, "low": each.low, "high": each.high}
            for name, each in fit.items()
        ).set_index("method")
        tables.append(PaperTable(f"strengths_{place}", f"Bradley-Terry strengths, question {question}", frame))
    mark = SIMULATED if simulated else ""
    return [PaperTable(each.name, each.title + mark, each.frame) for each in tables]


def names(pair: PairResult) -> str:
    """Both methods' display names, such as ``Sem-DPO against DPO``."""
    return f"{method_label(pair.first)} against {method_label(pair.second)}"


def votes_frame(pair: PairResult) -> pd.DataFrame:
    """Votes per method, as the paper's table 11; the user's own prompt comes first."""
    count = pair.totals
    sides = sorted([(pair.first, count.first), (pair.second, count.second)], key=lambda side: side[0] != USER)
    rows = [*((method_label(name), votes) for name, votes in sides), *([("tie", count.ties)] if count.ties else [])]
    frame = pd.DataFrame(rows, columns=["method", "votes"]).set_index("method")
    frame["share"] = frame["votes"] / count.votes
    return frame


def preferences_frame(pair: PairResult) -> pd.DataFrame:
    """Raters and prompts that prefer the first method, with their rates, as the paper's table 4."""
    parts = {"raters": pair.raters, "prompts": pair.prompts}
    return pd.DataFrame(
        {
            "of": name,
            "number": len(part.rates),
            "prefer first": part.prefer_first,
            "prefer second": part.prefer_second,
            "lowest rate": part.lowest,
            "median rate": part.median,
            "highest rate": part.highest,
            "p (signed-rank)": part.p_wilcoxon,
            "p (sign)": part.p_sign,
        }
        for name, part in parts.items()
    ).set_index("of")


def results_frame(results: Results) -> pd.DataFrame:
    """``results.csv``: one row for every question, pair of methods and statistic; a missing number is empty."""
    rows: list[dict[str, object]] = []

    def add(where: tuple[str, str, str], statistic: str, value: object, *more: object) -> None:
        columns = ("question", "first", "second", "statistic", "value", "low", "high", "p")
        rows.append(dict(zip(columns, (*where, statistic, value, *more, *[None] * (3 - len(more))), strict=True)))

    for pair in results.pairs:
        where, count, both = (pair.question, pair.first, pair.second), pair.totals, pair.both
        for name, number in (("first", count.first), ("second", count.second), ("ties", count.ties)):
            add(where, f"votes: {name}", number)
        add(where, "share, raters and prompts", both.share, both.low, both.high, both.p)
        add(where, "share, bootstrap", pair.bootstrap.mean, pair.bootstrap.low, pair.bootstrap.high)
        if not isinstance(pair.mixed, str):
            add(where, "share, mixed model", pair.mixed.share, pair.mixed.low, pair.mixed.high, pair.mixed.p)
        add(where, "share of decided votes, Wilson", count.share, count.low, count.high, count.p)
        for name, part in (("raters", pair.raters), ("prompts", pair.prompts)):
            add(where, f"{name}: median rate, range, signed-rank p", part.median, part.lowest, part.highest,
                part.p_wilcoxon)  # fmt: skip
            add(where, f"{name}: sign test", None, None, None, part.p_sign)
        left = pair.sides.left
        add(where, "share of left choices", left.share, left.low, left.high, left.p)
        add(where, "share at balanced sides", pair.sides.adjusted)
    for (first, second), p in results.corrected.items():
        add((results.analysis.primary, first, second), "primary test, Holm's correction", None, None, None, p)
    for question, found in results.consistency.items():
        add((question, "", ""), "same answer on repeats", found.share, found.low, found.high)
    for question, alpha in results.alpha.items():
        add((question, "", ""), "Krippendorff's alpha", alpha)
    return pd.DataFrame(rows).set_index(["question", "first", "second", "statistic"])


def scorers_frame(results: Results) -> pd.DataFrame:
    """Agreement of every scorer with people's majorities; empty where people have none."""
    rows = []
    for scorer, found in results.scorers.items():
        row: dict[str, object] = {"scorer": metric_label(scorer)}
        if found is not None:
            row |= {"comparisons": found.compared, "undecided": found.undecided, "agree": found.agree}
            for name, each in (("AUC", found.auc), ("kappa", found.kappa)):
                row |= {name: each.mean, f"{name} low": each.low, f"{name} high": each.high}
        rows.append(row)
    return pd.DataFrame(rows).set_index("scorer")
