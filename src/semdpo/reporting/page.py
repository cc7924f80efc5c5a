"""The page of a report: values made ready for people, then one HTML text from ``report.html.j2``."""

from __future__ import annotations

import base64
import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from semdpo.records import EvaluationRow, Pair
from semdpo.reporting.data import (
    EXTRAS,
    ReportData,
    Tables,
    method_label,
    metric_label,
    verdict,
    weights,
)
from semdpo.reporting.plots import colours
from semdpo.reporting.sweep import Sweep
from semdpo.selection import RULE
from semdpo.semantics import effective_sample_size
from semdpo.statistics import Difference, Estimate

ARTICLES = frozenset({"a", "an", "the"})
LISTED_PAIRS = 5
EXPLAINED = {
    "human": "what the user wrote, as it is",
    "sft": "a rewriter that learnt from examples of rewrites",
    "dpo": "tuned further on pairs of rewrites, towards the one whose picture a judge liked more",
    "sem_dpo": "the same, but a pair counts less the further its better rewrite drifted from the prompt",
    "kto": "tuned on the same rewrites one by one, each liked or not",
    "orpo": "tuned on the same pairs without a reference model",
    "beta_dpo": "DPO whose tie to the reference follows the batch",
    "additive": "DPO where a judge of faithfulness helps to decide which rewrite is the better one",
    "promptist": "a published rewriter (arXiv 2212.09611)",
    "beautiful_prompt": "a published rewriter (arXiv 2311.06752)",
}


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a rewrite: ``same`` as in the prompt, ``added``, or ``lost`` (in the prompt only)."""

    text: str
    kind: str


def word_marks(prompt: str, rewrite: str) -> list[Word]:
    """The words of a rewrite, those marked that the user did not write; then the user's words that were lost.

    Order, case, punctuation and articles do not count: they change no meaning that a reader looks for here.

    Args:
        prompt: what the user wrote.
        rewrite: what the rewriter made of it.

    Returns:
        All words of the rewrite in order, then each word of the prompt that the rewrite lacks, once.
    """
    asked = {_bare(word) for word in prompt.split()} | ARTICLES
    given = {_bare(word) for word in rewrite.split()} | ARTICLES
    words = [Word(word, "same" if not _bare(word) or _bare(word) in asked else "added") for word in rewrite.split()]
    lost = dict.fromkeys(_bare(word) for word in prompt.split() if _bare(word) and _bare(word) not in given)
    return [*words, *(Word(word, "lost") for word in lost)]


def runs(words: Sequence[Word]) -> list[Word]:
    """Neighbours of one kind joined, so that a phrase carries one mark."""
    groups = itertools.groupby(words, key=lambda word: word.kind)
    return [Word(" ".join(word.text for word in group), kind) for kind, group in groups]


def _bare(word: str) -> str:
    return "".join(letter for letter in word.casefold() if letter.isalnum())


def decimals(half_width: float) -> int:
    """Decimal places that tell values apart by a third of an interval's half width, at least 0 and at most 5."""
    if not half_width > 0:
        return 2
    return int(min(5, max(0, -math.floor(math.log10(half_width / 3)))))


def number(value: float, places: int, *, sign: bool = False) -> str:
    """A number with a true minus sign; ``sign`` also writes the plus. A rounded zero carries no sign."""
    text = f"{value:+.{places}f}" if sign else f"{value:.{places}f}"
    if not any(digit in text for digit in "123456789"):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def p_value(p: float) -> str:
    """A p-value as journals print it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def render_page(data: ReportData, tables: Tables, plots: Mapping[str, str]) -> str:
    """The whole page.

    Args:
        data: what is reported.
        tables: its numbers.
        plots: name → ``<svg>`` text, which is trusted; everything else is escaped.

    Returns:
        HTML that loads nothing from anywhere.
    """
    return _template("report.html.j2").render(
        data=data,
        tables=tables,
        plots={name: Markup(svg) for name, svg in plots.items()},
        colours=colours(tables.methods),
        explained=[(m, EXPLAINED[m]) for m in tables.methods if m in EXPLAINED],
        tiles=_tiles(data, tables),
        gallery=_gallery(data, tables),
        mean_rows=_mean_rows(data, tables),
        difference_tables=[_difference_table(data, tables, other) for other in tables.others],
        weighing=_weighing(data),
        truncated=_truncated(data, tables),
        pictures=_pictures(data.stages),
        seconds=sum(stage[1] for stage in data.stages),
        recipe_hash=hashlib.sha256(data.recipe.encode()).hexdigest(),
        sources=list(dict.fromkeys(row.source for row in data.evaluation)),
    )


def render_sweep(sweep: Sweep, plot: str) -> str:
    """The page of a sweep over α: what each does, which one the rule picks, and why."""
    columns = [sweep.fidelity, sweep.preference, "drift"]
    places = {
        name: decimals(max(sweep.means[m, name].high - sweep.means[m, name].low for m in sweep.alphas) / 2)
        for name in columns
    }
    rows = [
        {
            "alpha": f"{alpha:g}",
            "chosen": method == sweep.choice.setting,
            "effective": f"{100 * sweep.effective[method]:.0f}%",
            "cells": [_interval(sweep.means[method, name], places[name]) for name in columns],
            "minus": _signed(sweep.choice.differences[method]),
            "above": sweep.choice.above_floor[method],
        }
        for method, alpha in sweep.alphas.items()
    ]
    return _template("sweep.html.j2").render(sweep=sweep, plot=Markup(plot), rows=rows, columns=columns, rule=RULE)


def _template(name: str) -> Template:
    environment = Environment(
        loader=PackageLoader("semdpo.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(method=method_label, metric=metric_label, runs=runs)
    return environment.get_template(name)


def _interval(e: Estimate, places: int) -> tuple[str, str]:
    return number(e.mean, places), f"[{number(e.low, places)}, {number(e.high, places)}]"


def _signed(d: Difference) -> tuple[str, str]:
    places = decimals((d.high - d.low) / 2)
    # An end that lies off zero must not read as zero: the words beside it depend on its sign.
    while places < 5 and any(end and not round(end, places) for end in (d.low, d.high)):
        places += 1
    low, high = (number(end, places, sign=True) for end in (d.low, d.high))
    return number(d.mean, places, sign=True), f"[{low}, {high}]"


def _tiles(data: ReportData, tables: Tables) -> list[dict[str, str]]:
    """Every independent judge and the drift, subject − baseline: what the first screen says in words."""
    if not tables.baseline:
        return []
    tiles = []
    for name in [*(data.held_out or data.metrics), "drift"]:
        d = tables.differences[tables.baseline, name]
        value, interval = _signed(d)
        tiles.append(
            {
                "name": name,
                "question": _question(data, name),
                "value": value,
                "interval": interval,
                "verdict": verdict(d),
            }
        )
    return tiles


def _question(data: ReportData, name: str) -> str:
    if name == "drift":
        return "how far the words moved"
    return "shows what was asked" if name in data.fidelity else "people would like it"


def _gallery(data: ReportData, tables: Tables) -> list[dict[str, object]]:
    """The kept pictures: each prompt's first seed that every method has, in the order of the evaluation."""
    kept: dict[tuple[str, int], dict[str, EvaluationRow]] = {}
    for row in data.evaluation:
        if row.image is not None:
            kept.setdefault((row.prompt_id, row.image_seed), {})[row.method] = row
    shown: dict[str, dict[str, object]] = {}
    for (prompt_id, seed), rows in kept.items():
        if prompt_id in shown or set(rows) != set(tables.methods):
            continue
        shown[prompt_id] = {
            "prompt": next(iter(rows.values())).prompt,
            "seed": seed,
            "cells": [_cell(data, tables, rows[method]) for method in tables.methods],
        }
    return list(shown.values())


def _cell(data: ReportData, tables: Tables, row: EvaluationRow) -> dict[str, object]:
    judges = [
        next((name for name in names if name in data.held_out), names[0])
        for names in (data.fidelity, data.preference)
        if names
    ]
    scores = []
    for name in judges:
        spread = float(tables.values[name].to_numpy().std())
        scores.append((name, number(row.metrics[name], decimals(spread))))
    assert row.image is not None  # _gallery passes only rows with pictures
    return {
        "method": row.method,
        "image": "data:image/webp;base64," + base64.b64encode(row.image).decode(),
        "words": word_marks(row.prompt, row.rewrite),
        "rewrite": row.rewrite,
        "scores": [("drift", number(row.distance, 2)), *scores],
        "truncated": row.truncated,
    }


def _mean_rows(data: ReportData, tables: Tables) -> list[dict[str, object]]:
    columns = [*data.metrics, *EXTRAS]
    widths = {name: [e.high - e.low for m in tables.methods for e in [tables.means[m, name]]] for name in columns}
    places = {name: decimals(max(widths[name]) / 2) for name in columns}
    return [
        {
            "method": method,
            "cells": [_interval(tables.means[method, name], places[name]) for name in columns],
            "average": number(tables.average[method], 2),
        }
        for method in tables.methods
    ]


def _difference_table(data: ReportData, tables: Tables, other: str) -> dict[str, object]:
    rows = []
    for name in [*data.metrics, *EXTRAS]:
        d, duel = tables.differences[other, name], tables.duels.get((other, name))
        value, interval = _signed(d)
        rows.append(
            {
                "name": name,
                "value": value,
                "interval": interval,
                "p_t": p_value(d.p_t),
                "p_wilcoxon": p_value(d.p_wilcoxon),
                "duel": f"{duel.wins} / {duel.ties} / {duel.losses}" if duel else "",
                "verdict": verdict(d),
            }
        )
    return {"other": other, "rows": rows}


def _weighing(data: ReportData) -> dict[str, object] | None:
    if not data.pairs:
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
        "truncated": sum(bool(pair.truncated) for pair in data.pairs),
    }


def _pair(pair: Pair, weight: float) -> dict[str, object]:
    return {
        "weight": f"{weight:.2f}",
        "distance": number(float(pair.distance or 0.0), 2),
        "prompt": pair.prompt,
        "words": word_marks(pair.prompt, pair.chosen),
    }


def _truncated(data: ReportData, tables: Tables) -> list[tuple[str, int, int]]:
    """(method, pictures whose text was longer than a model reads, pictures)."""
    counts = {method: [0, 0] for method in tables.methods}
    for row in data.evaluation:
        counts[row.method][0] += row.truncated
        counts[row.method][1] += 1
    return [(method, cut, total) for method, (cut, total) in counts.items()]


def _pictures(stages: Sequence[tuple[str, float, int]]) -> int:
    # Labelling and evaluating draw one picture per row.
    return sum(rows for name, _, rows in stages if name.startswith(("label", "evaluate")))
