"""Every table that a report writes as CSV and LaTeX: its numbers, the paper's tables, the theory, what was spent."""

from __future__ import annotations

import pandas as pd

from semdpo.reporting.alpha_sweep import Sweep, sweep_frame
from semdpo.reporting.compute import Tables, differences_frame, results_frame
from semdpo.reporting.data import ReportData, effective_frame
from semdpo.reporting.labels import method_label
from semdpo.reporting.propositions import drift_table, filter_bound
from semdpo.reporting.published import PaperTable, paper_tables

# Letters of our labels and captions that LaTeX wants spelled.
IN_LATEX = {"α": r"$\alpha$", "β": r"$\beta$", "τ": r"$\tau$", "ε": r"$\epsilon$", "−": "$-$", "≥": r"$\geq$"}
PAGE = 40  # rows of a table that LaTeX keeps on one page


def all_tables(data: ReportData, tables: Tables) -> list[PaperTable]:
    """Everything that a report writes as CSV and LaTeX: its own numbers, the paper's tables, the theory, the sweep."""
    results = results_frame(data, tables).set_index(["source", "method", "metric"])
    found = [PaperTable("results", "Means with their 95% intervals", results), *paper_tables(data, tables)]
    differences = differences_frame(data, tables)
    if len(differences):
        compared = differences.set_index(["method", "minus", "metric"])
        found.insert(1, PaperTable("differences", "Differences between methods, paired by prompt", compared))
    if (bound := filter_bound(data)) is not None:
        found.append(PaperTable("proposition1", "Both sides of proposition 1 over τ", bound.frame.set_index("tau")))
    if (parts := drift_table(data, tables.methods)) is not None:
        parts = parts.rename(index=method_label).rename_axis("method")
        found.append(PaperTable("proposition2", "The parts of drift (proposition 2)", parts))
    if data.sweep is not None:
        found.append(sweep_table(data.sweep))
    return [*found, *_accounts(data, tables)]


def sweep_table(sweep: Sweep) -> PaperTable:
    """A sweep over α as a table."""
    frame = sweep_frame(sweep).set_index("alpha")
    return PaperTable("figure5_sweep", "The sweep over α, on tuning prompts (figure 5)", frame)


def _accounts(data: ReportData, tables: Tables) -> list[PaperTable]:
    """What was spent, truncated and kept."""
    found = [PaperTable("counts", "Texts that were truncated or longer than a model reads", counts_frame(data, tables))]
    if data.weighted:
        kept = effective_frame(data).set_index("alpha")
        found.append(PaperTable("effective_sample_size", "Effective sample size of the pairs over α", kept))
    if data.stages:
        frame = pd.DataFrame(data.stages, columns=["stage", "seconds", "rows"]).set_index("stage")
        found.append(PaperTable("cost", "Seconds and rows of each stage", frame))
    return found


def counts_frame(data: ReportData, tables: Tables) -> pd.DataFrame:
    """Of each method: images, those with a text longer than a model reads, rewrites truncated at the token budget.

    Where the safety checker blackened any, also how many.
    """
    rows = {}
    checked = any(data.blackened.values())
    for method in tables.methods:
        own = [row for row in data.evaluation if row.method == method]
        truncated = {"too_long": sum(row.truncated for row in own), "truncated": data.truncated_rewrites.get(method, 0)}
        black = {"blackened": data.blackened.get(method, 0)} if checked else {}
        rows[method_label(method)] = {"images": len(own)} | truncated | black
    return pd.DataFrame(rows).T.rename_axis("method")


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def latex(table: PaperTable) -> str:
    """The table as LaTeX with booktabs' rules, over several pages where it is long; what is not known is a dash."""
    frame = table.frame
    styler = frame.style.format(_cell, na_rep="--", escape="latex").format_index(escape="latex", axis=0).format_index(
        escape="latex", axis=1
    )  # fmt: skip
    text = str(
        styler.to_latex(
            hrules=True,
            caption=table.title,
            label=f"tab:{table.name}",
            multirow_align="t",
            environment="longtable" if len(frame) > PAGE else None,
        )
    )
    for letter, command in IN_LATEX.items():
        text = text.replace(letter, command)
    return text
