"""The page of a report: formats the values, then fills the template ``report.html.j2``."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from semdpo.analysis.selection import RULE
from semdpo.data.records import EvaluationRow
from semdpo.reporting import atoms, benchmarks, facts, rounds, rows
from semdpo.reporting.alpha_sweep import Sweep
from semdpo.reporting.compute import Tables
from semdpo.reporting.data import ReportData
from semdpo.reporting.formats import decimals, duration, interval, number, signed
from semdpo.reporting.labels import EXTRAS, USER, in_a_sentence, method_label, metric_label
from semdpo.reporting.published import PaperTable
from semdpo.reporting.style import colours
from semdpo.reporting.tables import counts_frame
from semdpo.reporting.words import runs, word_marks

EXPLAINED = {
    "human": "the prompt as the user wrote it",
    "sft": "a rewriter fine-tuned on examples of rewrites",
    "dpo": "trained further on pairs of rewrites, towards the one whose image a scorer preferred",
    "dpo_liked": "DPO with the settings that this scorer likes most, whatever becomes of the meaning",
    "sem_dpo": "like DPO, but a pair counts less the further its preferred rewrite drifted from the prompt",
    "kto": "trained on the same rewrites one by one, each marked as good or bad",
    "orpo": "trained on the same pairs without a reference model",
    "beta_dpo": "DPO whose β adapts to each batch",
    "ipo": "trained on the same pairs until the preferred rewrite leads by a fixed margin",
    "simpo": "trained on the same pairs without a reference model, by log-probability per token",
    "additive": "DPO where a fidelity scorer helps to decide which rewrite is preferred",
    "promptist": "a published rewriter (arXiv 2212.09611)",
    "beautiful_prompt": "a published rewriter (arXiv 2311.06752)",
}


def render_page(
    data: ReportData, tables: Tables, shown: Sequence[PaperTable], plots: Mapping[str, str], study: str = ""
) -> str:
    """The whole page.

    Args:
        data: the data of the report.
        tables: the numbers computed from ``data``.
        shown: the tables that are written as files.
        plots: name → ``<svg>`` text, inserted as it is; all other text is escaped.
        study: the section of a study, HTML that is inserted as it is.

    Returns:
        HTML that loads no other file.
    """
    palette = colours(tables.methods)
    return template("report.html.j2", method=data.label).render(
        data=data,
        tables=tables,
        plots={name: Markup(svg) for name, svg in plots.items()},
        study=Markup(study),
        atoms=_atoms(data, tables),
        rounds=rounds.page(data, tables),
        benchmarks=benchmarks.page(tables.benchmarks),
        colours=palette | {name: palette[data.variants[name].method] for name in tables.variants},
        explained=[(m, EXPLAINED[m]) for m in tables.methods if m in EXPLAINED],
        comparisons=rows.comparisons(data, tables),
        gallery=_gallery(data, tables),
        scorer_parts=rows.mean_parts(data, tables, [*data.metrics, "drift", *data.facts_columns]),
        word_parts=rows.mean_parts(data, tables, [name for name in EXTRAS if name != "drift"]),
        set_tables=rows.set_tables(data, tables),
        has_paper_numbers=rows.has_paper_numbers(data, tables),
        paper_files=shown,
        bound=rows.bound(data),
        drift_rows=rows.drift_rows(data, tables),
        rewrites_and_tokens=rows.rewrites_and_tokens(data),
        opened=len({USER, tables.baseline}.intersection(tables.others)),
        difference_tables=[rows.difference_table(data, tables, other) for other in tables.others],
        weighing=rows.weighing(data),
        counts=counts_frame(data, tables).astype(int).to_dict("index"),
        truncated_pairs=rows.truncated_pairs(data),
        paper_tables=[(table, rows.shown(table.frame)) for table in shown if table.name.startswith("table")],
        seconds=sum(stage[1] for stage in data.stages),
        recipe_hash=hashlib.sha256(data.recipe.encode()).hexdigest(),
        sources=list(dict.fromkeys(row.source for row in data.evaluation)),
    )


def render_sweep(sweep: Sweep, plot: str) -> str:
    """The page of a sweep over α: the results of every value, the value that the rule picks, and why."""
    columns = [sweep.fidelity, sweep.preference, "drift"]
    places = {
        name: decimals(
            max(sweep.means[m, name].high - sweep.means[m, name].low for m in (sweep.floor, *sweep.alphas)) / 2
        )
        for name in columns
    }
    lines = [
        {
            "alpha": f"{alpha:g}",
            "chosen": method == sweep.choice.setting,
            "effective": f"{100 * sweep.effective[method]:.0f}%",
            "cells": [interval(sweep.means[method, name], places[name]) for name in columns],
            "minus": signed(sweep.choice.differences[method]),
            "above": sweep.choice.above_floor[method],
        }
        for method, alpha in sweep.alphas.items()
    ]
    floor = [interval(sweep.means[sweep.floor, name], places[name]) for name in columns]
    return template("sweep.html.j2").render(
        sweep=sweep, plot=Markup(plot), floor=floor, rows=lines, columns=columns, rule=RULE
    )


def template(name: str, **filters: Callable[..., str]) -> Template:
    """A template of this folder, with the filters of all pages and with further ones; it escapes all texts."""
    environment = Environment(
        loader=PackageLoader("semdpo.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(
        method=method_label,
        in_a_sentence=in_a_sentence,
        metric=metric_label,
        runs=runs,
        number=_two_places,
        duration=duration,
    )
    environment.filters.update(filters)
    return environment.get_template(name)


def _atoms(data: ReportData, tables: Tables) -> dict[str, object] | None:
    if data.atoms is None or tables.atoms is None:
        return None
    return atoms.page(data.atoms, tables.atoms, tables.evaluated, tables.others)


def _two_places(value: float) -> str:
    return number(value, 2)


def _gallery(data: ReportData, tables: Tables) -> list[dict[str, object]]:
    """The kept images, in evaluation order: for every prompt the first seed at which all shown methods have one."""
    methods = [m for m in tables.evaluated if m in data.shown_methods] if data.shown_methods else tables.methods
    kept: dict[tuple[str, int], dict[str, EvaluationRow]] = {}
    for row in data.evaluation:
        if row.image is not None and row.method in methods:
            kept.setdefault((row.prompt_id, row.image_seed), {})[row.method] = row
    shown: dict[str, dict[str, object]] = {}
    for (prompt_id, seed), by_method in kept.items():
        if prompt_id in shown or set(by_method) != set(methods):
            continue
        shown[prompt_id] = {
            "prompt": next(iter(by_method.values())).prompt,
            "seed": seed,
            "cells": [_cell(data, tables, by_method[method]) for method in methods],
        }
    return list(shown.values())


def _cell(data: ReportData, tables: Tables, row: EvaluationRow) -> dict[str, object]:
    scorers = [
        next((name for name in names if name in data.held_out), names[0])
        for names in (data.fidelity, data.preference)
        if names
    ]
    scores = []
    for name in scorers:
        spread = float(tables.values[name].to_numpy().std())
        scores.append((name, number(row.metrics[name], decimals(spread))))
    assert row.image is not None  # _gallery passes only rows with images
    return {
        "method": row.method,
        "image": "data:image/webp;base64," + base64.b64encode(row.image).decode(),
        "words": word_marks(row.prompt, row.rewrite),
        "marks": facts.marks(row) if data.facts else [],
        "rewrite": row.rewrite,
        "scores": [("drift", number(row.distance, 2)), *scores],
        "truncated": row.truncated,
    }
