"""The paper's tables (arXiv 2507.20133) for a user's own run, next to the paper's numbers where it has any.

Every table is a data frame of numbers with display names as row and column labels; the columns ``paper: …`` have the
numbers that the paper printed for the same model, set and scorer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from semdpo.reporting import paper
from semdpo.reporting.compute import Tables
from semdpo.reporting.data import ReportData
from semdpo.reporting.labels import method_label, metric_label

METHODS = {
    "human": "Human Input",
    "sft": "SFT",
    "beautiful_prompt": "Beautiful Prompt",
    "promptist": "Promptist",
    "dpo": "DPO",
    "kto": "KTO",
    "beta_dpo": "β -DPO",
    "orpo": "ORPO",
    "sem_dpo": "Sem-DPO",
    "additive": "Additive Reward",
}
SCORERS = {
    "clip-vit-large-patch14": "clip",
    "hpsv2.1": "hpsv2.1",
    "pickscore": "pickscore",
    "jina-embeddings-v4": "jina_v4",
    "blip-itm-base-coco": "blip_itm",
}
SCORES = ("table5", "table6", "table7", "table3")
MEANS = ("table8", "table9")
PAPER_SETS = {"coco", "diffusiondb", "lexica"}  # of table 1, which does not say which rewriter its lengths are of


@dataclass(frozen=True, slots=True)
class PaperTable:
    """One table.

    Attributes:
        name: name of its files, without the suffix.
        title: its title, with the table's number in the paper.
        frame: its numbers; rows are methods (or set and method), columns have display names.
    """

    name: str
    title: str
    frame: pd.DataFrame


def paper_tables(data: ReportData, tables: Tables) -> list[PaperTable]:
    """Tables 1, 2, 3, 5–9 and 12, as far as the run has the data."""
    caveat = "; the paper does not say which rewriter it is" if of_the_paper(data) else ""
    shown = [
        PaperTable("table1_length", f"Length of the prompts in tokens (table 1{caveat})", _lengths(data, tables)),
        PaperTable("table2_median_length", f"Median length per set (table 2{caveat})", _medians(data, tables)),
    ]
    independent = [name for name in data.fidelity if name in data.held_out]
    if independent:
        chosen = [m for m in ("human", tables.baseline, tables.subject) if m in tables.methods] or tables.methods
        frame = _scores(data, tables, chosen, [*_first_seen(data), *independent], average=False)
        shown.append(PaperTable("table3_fidelity", "Fidelity by scorers not used in training (table 3)", frame))
    frame = _scores(data, tables, tables.methods, data.metrics, average=True)
    shown.append(PaperTable("table5_scores", "All scores per set (tables 5 to 9)", frame))
    if tables.subject and "additive" in {*tables.methods} - {tables.subject}:
        frame = _scores(data, tables, [tables.subject, "additive"], data.metrics, average=False)
        shown.append(PaperTable("table12_additive", "Against the additive reward (table 12)", frame))
    return shown


def printed(data: ReportData, source: str, method: str, metric: str) -> float | None:
    """The paper's number for a set, method and metric (or ``average``) with the run's model; None if it has none."""
    if data.published is None or method not in METHODS:
        return None
    column = "average" if metric == "average" else data.published.columns.get(metric, "")
    for values in _rows(data.published.model, source, METHODS[method]):
        if column in values:
            return float(values[column])
    return None


def _rows(model: str, source: str, method: str) -> Iterator[Mapping[str, Any]]:
    published = paper.tables()
    for name in SCORES:
        if published[name]["model"] == model:
            yield published[name]["scores"].get(source, {}).get(method, {})
    for name in MEANS:
        if published[name]["model"] == model and source == "all":
            yield published[name]["mean_over_sets"].get(method, {})
    additive = published["table12"]
    if additive["model"] == model:
        values = additive["scores"].get(source, {}).get(method)
        yield dict(zip(additive["columns"], values, strict=True)) if values else {}


def _first_seen(data: ReportData) -> list[str]:
    return [name for name in data.fidelity if name in data.seen][:1]


def of_the_paper(data: ReportData) -> bool:
    """Whether the paper has numbers for the run's rewriter."""
    models = {table["model"] for table in paper.tables().values() if isinstance(table, dict) and "model" in table}
    return data.published is not None and data.published.model in models


def _lengths(data: ReportData, tables: Tables) -> pd.DataFrame:
    tokens = tables.values["tokens"]
    its_sets = of_the_paper(data) and {one_set.source for one_set in tables.sets} == PAPER_SETS
    in_paper = paper.tables()["table1"]["tokens"] if its_sets else {}
    rows = {}
    for method in tables.methods:
        x = tokens[method].to_numpy()
        published = in_paper.get(METHODS.get(method, ""), {})
        measured = {"prompts": len(x), "mean": x.mean(), "sd": x.std(ddof=1) if len(x) > 1 else 0.0}
        measured |= {"median": np.median(x), "max": x.max()}
        rows[method_label(method)] = measured | {f"paper: {name}": published.get(name) for name in ("mean", "median")}
    return _framed(rows)


def _framed(rows: Mapping[Any, Mapping[str, float | None]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows).T.astype(float).dropna(axis="columns", how="all")
    frame.index.names = ["set", "method"] if frame.index.nlevels == 2 else ["method"]
    return frame


def _medians(data: ReportData, tables: Tables) -> pd.DataFrame:
    rows: dict[str, dict[str, float | None]] = {method_label(m): {} for m in tables.methods}
    in_paper = paper.tables()["table2"]["median_tokens"] if of_the_paper(data) else {}
    for one_set in tables.sets:
        published = in_paper.get(one_set.source)
        for method in tables.methods:
            row = rows[method_label(method)]
            row[one_set.source] = float(one_set.tokens[method].median())
            if published is not None:
                row[f"paper: {one_set.source}"] = published.get(METHODS.get(method, ""))
    return _framed(rows)


def _scores(data: ReportData, tables: Tables, methods: list[str], metrics: list[str], *, average: bool) -> pd.DataFrame:
    rows: dict[tuple[str, str], dict[str, float | None]] = {}
    for one_set in tables.sets_and_all:
        for method in methods:
            row: dict[str, float | None] = {}
            for name in [*metrics, *(["average"] if average else [])]:
                row[metric_label(name)] = (
                    one_set.average[method] if name == "average" else one_set.means[method, name].mean
                )
                row[f"paper: {metric_label(name)}"] = printed(data, one_set.source, method, name)
            rows[one_set.source, method_label(method)] = row
    return _framed(rows)
