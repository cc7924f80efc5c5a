"""The rows of a page's tables: numbers made ready for people."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from semdpo.analysis.length_control import LengthControlled
from semdpo.analysis.semantics import effective_sample_size
from semdpo.data.records import Pair
from semdpo.reporting.compute import NOT_SIGNIFICANT, SetTable, Tables, verdict
from semdpo.reporting.data import ReportData, weights
from semdpo.reporting.formats import decimals, interval, number, p_value, signed
from semdpo.reporting.labels import EXTRAS, USER, in_a_sentence, method_label, metric_label
from semdpo.reporting.propositions import drift_table, filter_bound
from semdpo.reporting.published import printed
from semdpo.reporting.words import word_marks

LISTED_PAIRS = 5


def comparisons(data: ReportData, tables: Tables) -> list[dict[str, object]]:
    """What the first screen shows: the subject against the user's own prompt, then against the baseline.

    Both by the scorers that took no part in training, or by all scorers where every one took part. The user's own
    prompt has no drift, so drift is compared with the baseline only.
    """
    if not tables.baseline:
        return []
    scorers = data.held_out or data.metrics
    others = dict.fromkeys(name for name in (USER, tables.baseline) if name in tables.others)
    return [
        _comparison(data, tables, other, [*scorers, *([] if other == USER else ["drift"])], scorers) for other in others
    ]


def _comparison(
    data: ReportData, tables: Tables, other: str, names: Sequence[str], scorers: Sequence[str]
) -> dict[str, object]:
    """One tile for each name, and a sentence that sums up the scorers' verdicts."""
    tiles = []
    for name in names:
        difference = tables.differences[other, name]
        value, interval = signed(difference)
        tiles.append(
            {
                "name": name,
                "question": _question(data, name),
                "value": value,
                "interval": interval,
                "verdict": verdict(difference),
            }
        )
    return {"other": other, "tiles": tiles, "summary": _summary(tables, other, scorers)}


def _summary(tables: Tables, other: str, scorers: Sequence[str]) -> str:
    """Which scorers rate the subject higher, which lower, and which show no significant difference."""
    by_verdict: dict[str, list[str]] = {"higher": [], "lower": [], NOT_SIGNIFICANT: []}
    for name in scorers:
        by_verdict[verdict(tables.differences[other, name])].append(metric_label(name))
    parts = [f"{words} on {_listed(labels)}" for words, labels in by_verdict.items() if labels]
    return f"{method_label(str(tables.subject))} compared with {in_a_sentence(other)}: {'; '.join(parts)}."


def _listed(names: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _question(data: ReportData, name: str) -> str:
    if name == "drift":
        return "how far the words moved"
    return "shows what was asked" if name in data.fidelity else "people would like it"


def mean_rows(tables: Tables, columns: Sequence[str]) -> list[dict[str, object]]:
    """A row for each method; of the columns, mean and interval."""
    widths = {name: [e.high - e.low for m in tables.methods for e in [tables.means[m, name]]] for name in columns}
    places = {name: decimals(max(widths[name]) / 2) for name in columns}
    return [
        {
            "method": method,
            "cells": [interval(tables.means[method, name], places[name]) for name in columns],
            "average": number(tables.average[method], 2),
        }
        for method in tables.methods
    ]


def difference_table(data: ReportData, tables: Tables, other: str) -> dict[str, object]:
    """The subject minus another method, a row for each column."""
    rows = []
    for name in [*data.metrics, *EXTRAS]:
        d, duel = tables.differences[other, name], tables.duels.get((other, name))
        value, interval = signed(d)
        rows.append(
            {
                "name": name,
                "value": value,
                "interval": interval,
                "detectable": number(d.detectable, decimals((d.high - d.low) / 2)),
                "p_t": p_value(d.p_t),
                "p_holm": p_value(tables.corrected[other, name]) if duel else "",
                "duel": f"{duel.wins} / {duel.ties} / {duel.losses}" if duel else "",
                "equal": _share(tables.equal_length.get((other, name))) if duel else "",
                "verdict": verdict(d),
            }
        )
    return {"other": other, "rows": rows}


def _share(equal: LengthControlled | None) -> str:
    return f"{100 * equal.share:.0f}% [{100 * equal.low:.0f}, {100 * equal.high:.0f}]" if equal else "not estimable"


def set_tables(data: ReportData, tables: Tables) -> list[dict[str, object]]:
    """A table for each set of prompts, where there are several or the paper has numbers of one."""
    if len(tables.sets) == 1 and not beside(data, tables):
        return []
    whole = [tables.everything] if len(tables.sets) > 1 and _beside(data, tables, tables.everything) else []
    return [_set_table(data, tables, each) for each in [*tables.sets, *whole]]


def beside(data: ReportData, tables: Tables) -> bool:
    """Whether the paper printed anything for this model and these sets."""
    return any(_beside(data, tables, each) for each in tables.sets_and_all)


def _beside(data: ReportData, tables: Tables, found: SetTable) -> bool:
    cells = ((found.source, method, name) for method in tables.methods for name in data.metrics)
    return any(printed(data, *cell) is not None for cell in cells)


def _set_table(data: ReportData, tables: Tables, found: SetTable) -> dict[str, object]:
    """A set's scores; the paper's stand below the run's where it printed any."""
    columns = [*data.metrics, "drift"]
    places = {
        n: decimals(max(found.means[m, n].high - found.means[m, n].low for m in tables.methods) / 2) for n in columns
    }
    rows = []
    for method in tables.methods:
        cells = []
        for name in columns:
            theirs = printed(data, found.source, method, name)
            value, within = interval(found.means[method, name], places[name])
            cells.append((value, within, "" if theirs is None else f"paper {theirs:g}"))
        average = printed(data, found.source, method, "average")
        said = "" if average is None else f"paper {average:g}"
        rows.append({"method": method, "cells": cells, "average": (number(found.average[method], 2), said)})
    return {"source": found.source, "prompts": found.prompts, "rows": rows}


def shown(frame: pd.DataFrame) -> list[list[str]]:
    """A table's cells as people read them: its index first, four digits of a number, a dash for what is not known."""
    keys = [name if isinstance(name, tuple) else (name,) for name in frame.index]
    cells = [["–" if pd.isna(value) else f"{value:.4g}" for value in row] for row in frame.to_numpy()]
    return [[*map(str, key), *row] for key, row in zip(keys, cells, strict=True)]


def bound(data: ReportData) -> dict[str, object] | None:
    """What the page says of Proposition 1."""
    found = filter_bound(data)
    if found is None:
        return None
    violated = found.frame[found.frame["measured"] > found.frame["paper"] + 1e-9]
    return {
        "max_loss": f"{found.max_loss:.3g}",
        "alpha": f"{found.alpha:g}",
        "limit": f"{math.log(2) / found.alpha:.2f}" if found.alpha > 0 else None,
        "tightest": f"{(found.frame['measured'] / found.frame['ours']).max():.0%}",
        "violated": [f"{tau:g}" for tau in violated["tau"]],
    }


def drift_rows(data: ReportData, tables: Tables) -> list[dict[str, object]]:
    """Proposition 2's lengths, a row for each method."""
    table = drift_table(data, tables.methods)
    if table is None:
        return []
    columns = ("total", "prompt_level", "generator_level", "generator_95", "slack")
    return [
        {"method": method, "cells": [number(float(row[name]), 3) for name in columns]}
        for method, row in table.iterrows()
    ]


def written(data: ReportData) -> tuple[int, int]:
    """Rewrites of the evaluation, and their tokens."""
    lengths = {(row.method, row.prompt_id): row.tokens for row in data.evaluation if row.method != "human"}
    return len(lengths), sum(lengths.values())


def weighing(data: ReportData) -> dict[str, object] | None:
    """What the page says of the pairs' weights, with the least and most weighty of them."""
    if not data.weighted:
        return None
    w = weights(data)
    order = sorted(range(len(w)), key=lambda i: (w[i], data.pairs[i].pair_id))
    few = min(LISTED_PAIRS, len(order) // 2 or 1)
    return {
        "mean": f"{w.mean():.2f}",
        "effective": f"{effective_sample_size(w):.0f}",
        "pairs": len(w),
        "alpha": f"{data.alpha:g}",
        "lists": [
            ("The most silenced pairs", [_pair(data.pairs[i], w[i]) for i in order[:few]]),
            ("The most fully kept pairs", [_pair(data.pairs[i], w[i]) for i in order[::-1][:few]]),
        ],
    }


def _pair(pair: Pair, weight: float) -> dict[str, object]:
    return {
        "weight": f"{weight:.2f}",
        "distance": number(float(pair.distance or 0.0), 2),
        "prompt": pair.prompt,
        "words": word_marks(pair.prompt, pair.chosen),
    }


def truncated_pairs(data: ReportData) -> int:
    """Training pairs with a text longer than the encoder reads."""
    return sum(bool(pair.truncated) for pair in data.pairs)
