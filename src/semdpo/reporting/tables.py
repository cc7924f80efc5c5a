"""All tables that a report writes as CSV and LaTeX: results, the paper's tables, the propositions, counts and cost."""

from __future__ import annotations

import pandas as pd

from semdpo.reporting import atoms, benchmarks, rounds
from semdpo.reporting.alpha_sweep import Sweep, sweep_frame
from semdpo.reporting.compute import Tables, differences_frame, results_frame
from semdpo.reporting.data import ReportData, effective_frame
from semdpo.reporting.labels import method_label
from semdpo.reporting.propositions import drift_table, filter_bound
from semdpo.reporting.published import PaperTable, paper_tables

# Characters of labels and captions that LaTeX writes as commands.
IN_LATEX = {"α": r"$\alpha$", "β": r"$\beta$", "τ": r"$\tau$", "ε": r"$\epsilon$", "−": "$-$", "≥": r"$\geq$"}
PAGE = 40  # rows of a table that LaTeX keeps on one page


def all_tables(data: ReportData, tables: Tables) -> list[PaperTable]:
    """All tables that a report writes as CSV and LaTeX."""
    results = results_frame(data, tables).set_index(["source", "method", "metric"])
    shown = [
        PaperTable("results", "Means with 95% bootstrap confidence intervals", results),
        *paper_tables(data, tables),
    ]
    differences = differences_frame(data, tables)
    if len(differences):
        compared = differences.set_index(["method", "minus", "metric"])
        shown.insert(1, PaperTable("differences", "Differences between methods, paired by prompt", compared))
    if (bound := filter_bound(data)) is not None:
        shown.append(PaperTable("proposition1", "Both sides of Proposition 1 over τ", bound.frame.set_index("tau")))
    if (parts := drift_table(data, tables.methods)) is not None:
        parts = parts.rename(index=method_label).rename_axis("method")
        shown.append(PaperTable("proposition2", "The parts of drift (Proposition 2)", parts))
    if tables.atoms is not None:
        shown += [PaperTable(*each) for each in atoms.frames(tables.atoms, tables.subject)]
    shown += [PaperTable(*each) for each in rounds.frames(data, tables)]
    shown += [PaperTable(*each) for each in benchmarks.frames(tables.benchmarks)]
    if data.sweep is not None:
        shown.append(sweep_table(data.sweep))
    return [*shown, *_accounts(data, tables)]


def sweep_table(sweep: Sweep) -> PaperTable:
    """A sweep over α as a table."""
    frame = sweep_frame(sweep).set_index("alpha")
    return PaperTable("figure5_sweep", "The sweep over α, on tuning prompts (figure 5)", frame)


def _accounts(data: ReportData, tables: Tables) -> list[PaperTable]:
    """The tables of counts and cost."""
    shown = [
        PaperTable("counts", "Texts that were truncated or are longer than a model reads", counts_frame(data, tables))
    ]
    if data.weighted:
        kept = effective_frame(data).set_index("alpha")
        shown.append(PaperTable("effective_sample_size", "Effective sample size of the pairs over α", kept))
    if data.stages:
        frame = pd.DataFrame(data.stages, columns=["stage", "seconds", "rows"]).set_index("stage")
        shown.append(PaperTable("cost", "Seconds and rows of each stage", frame))
    return shown


def counts_frame(data: ReportData, tables: Tables) -> pd.DataFrame:
    """Per method: images, images with a text longer than a model reads, rewrites truncated at the token budget.

    Where the safety checker blackened an image of any method, or one could not be rendered, also how many.
    """
    rows = {}
    missing = {"blackened": data.blackened, "unrendered": data.unrendered}
    for method in tables.evaluated:
        images = [row for row in data.evaluation if row.method == method]
        truncated = {
            "too_long": sum(row.truncated for row in images),
            "truncated": data.truncated_rewrites.get(method, 0),
        }
        lost = {name: counts.get(method, 0) for name, counts in missing.items() if any(counts.values())}
        rows[data.label(method)] = {"images": len(images)} | truncated | lost
    return pd.DataFrame(rows).T.rename_axis("method")


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def latex(table: PaperTable) -> str:
    """The table as LaTeX with booktabs rules; long tables span pages, and a missing value is a dash."""
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
    for character, command in IN_LATEX.items():
        text = text.replace(character, command)
    return text
