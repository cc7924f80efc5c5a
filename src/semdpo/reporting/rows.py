"""The rows of the page's tables, with numbers formatted for readers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from semdpo.analysis.length_control import LengthControlled
from semdpo.analysis.semantics import effective_sample_size
from semdpo.data.records import Pair
from semdpo.recipe.variants import Variant
from semdpo.reporting.compute import NOT_SIGNIFICANT, SetTable, Tables, verdict
from semdpo.reporting.data import ReportData, weights
from semdpo.reporting.formats import decimals, interval, number, p_value, signed
from semdpo.reporting.labels import USER, in_a_sentence, method_label, metric_label
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
        return "how far the meaning moved"
    return "shows what was asked" if name in data.fidelity else "people would like it"


def mean_parts(data: ReportData, tables: Tables, columns: Sequence[str]) -> list[dict[str, object]]:
    """A table of means in parts: the compared methods, then those of every decoding and later round under a title."""
    widths = {name: [e.high - e.low for m in tables.evaluated for e in [tables.means[m, name]]] for name in columns}
    places = {name: decimals(max(widths[name]) / 2) for name in columns}
    members: dict[str, list[str]] = {"": tables.methods}
    for method in tables.variants:
        members.setdefault(_title(data.variants[method]), []).append(method)
    return [
        {
            "title": title,
            "rows": [
                {
                    "method": method,
                    "cells": [interval(tables.means[method, name], places[name]) for name in columns],
                    "average": number(tables.average[method], 2) if method in tables.average else "–",
                }
                for method in methods
            ],
        }
        for title, methods in members.items()
    ]


def _title(variant: Variant) -> str:
    """The title of the rows of a decoding, ``sampled: the same rewriters at temperature 1``, or of a later round."""
    how = variant.decoding
    if variant.round > 1:
        return f"{variant.name}: trained on with candidates of the rewriters of round {variant.round - 1}"
    if how is None:
        return f"{variant.name}: the same rewriters with another decoding"
    if how.num_beams > 1:
        return f"{variant.name}: the same rewriters with {how.num_beams} beams"
    if how.temperature == 0:
        return f"{variant.name}: the same rewriters, greedily"
    words = [f"temperature {how.temperature:g}", f"top_p {how.top_p:g}", *([f"top_k {how.top_k}"] if how.top_k else [])]
    return f"{variant.name}: the same rewriters at {', '.join(words)}"


def difference_table(data: ReportData, tables: Tables, other: str) -> dict[str, object]:
    """Subject − another method: one row per column."""
    rows = []
    for name in [*data.metrics, *data.extras]:
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
    """One table per set of prompts, where there are several sets or the paper printed numbers for one."""
    if len(tables.sets) == 1 and not has_paper_numbers(data, tables):
        return []
    whole = [tables.everything] if len(tables.sets) > 1 and _set_in_paper(data, tables, tables.everything) else []
    return [_set_table(data, tables, one_set) for one_set in [*tables.sets, *whole]]


def has_paper_numbers(data: ReportData, tables: Tables) -> bool:
    """Whether the paper printed a number for this model and one of these sets."""
    return any(_set_in_paper(data, tables, one_set) for one_set in tables.sets_and_all)


def _set_in_paper(data: ReportData, tables: Tables, one_set: SetTable) -> bool:
    cells = ((one_set.source, method, name) for method in tables.methods for name in data.metrics)
    return any(printed(data, *cell) is not None for cell in cells)


def _set_table(data: ReportData, tables: Tables, one_set: SetTable) -> dict[str, object]:
    """A set's scores, with the paper's number below the run's where the paper printed one."""
    columns = [*data.metrics, "drift"]
    places = {
        n: decimals(max(one_set.means[m, n].high - one_set.means[m, n].low for m in tables.methods) / 2)
        for n in columns
    }
    rows = []
    for method in tables.methods:
        cells = []
        for name in columns:
            in_paper = printed(data, one_set.source, method, name)
            value, bounds = interval(one_set.means[method, name], places[name])
            cells.append((value, bounds, "" if in_paper is None else f"paper {in_paper:g}"))
        average_in_paper = printed(data, one_set.source, method, "average")
        note = "" if average_in_paper is None else f"paper {average_in_paper:g}"
        rows.append({"method": method, "cells": cells, "average": (number(one_set.average[method], 2), note)})
    return {"source": one_set.source, "prompts": one_set.prompts, "rows": rows}


def shown(frame: pd.DataFrame) -> list[list[str]]:
    """A table's cells as text: the index first, numbers with four significant digits, a dash for a missing value."""
    keys = [name if isinstance(name, tuple) else (name,) for name in frame.index]
    cells = [["–" if pd.isna(value) else f"{value:.4g}" for value in row] for row in frame.to_numpy()]
    return [[*map(str, key), *row] for key, row in zip(keys, cells, strict=True)]


def bound(data: ReportData) -> dict[str, object] | None:
    """The numbers of Proposition 1 on the page; None where they were not measured."""
    filtered = filter_bound(data)
    if filtered is None:
        return None
    frame = filtered.frame
    violated = frame[frame["measured"] > frame["paper"] + 1e-9]
    return {
        "max_loss": f"{filtered.max_loss:.3g}",
        "alpha": f"{filtered.alpha:g}",
        "limit": f"{math.log(2) / filtered.alpha:.2f}" if filtered.alpha > 0 else None,
        "tightest": f"{(frame['measured'] / frame['ours']).max():.0%}",
        "violated": [f"{tau:g}" for tau in violated["tau"]],
    }


def drift_rows(data: ReportData, tables: Tables) -> list[dict[str, object]]:
    """Proposition 2's lengths: one row per method."""
    table = drift_table(data, tables.methods)
    if table is None:
        return []
    columns = ("total", "prompt_level", "generator_level", "generator_95", "slack")
    return [
        {"method": method, "cells": [number(float(row[name]), 3) for name in columns]}
        for method, row in table.iterrows()
    ]


def rewrites_and_tokens(data: ReportData) -> tuple[int, int]:
    """The number of rewrites in the evaluation, and of their tokens."""
    lengths = {(row.method, row.prompt_id): row.tokens for row in data.evaluation if row.method != "human"}
    return len(lengths), sum(lengths.values())


def weighing(data: ReportData) -> dict[str, object] | None:
    """The pairs' weights on the page: their mean, effective sample size, and the pairs at both ends."""
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
            ("The pairs with the lowest weights", [_pair(data.pairs[i], w[i]) for i in order[:few]]),
            ("The pairs with the highest weights", [_pair(data.pairs[i], w[i]) for i in order[::-1][:few]]),
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
    """The number of training pairs with a text longer than the encoder reads."""
    return sum(bool(pair.truncated) for pair in data.pairs)
