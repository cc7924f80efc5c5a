"""The report: one page that opens from disk, and beside it its numbers and plots as files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from semdpo import disk
from semdpo.data.writers import encoded
from semdpo.disk import write_bytes
from semdpo.errors import StoreError
from semdpo.reporting.alpha_sweep import Sweep
from semdpo.reporting.compute import compute_tables, images_frame
from semdpo.reporting.data import ReportData, weights_frame
from semdpo.reporting.published import PaperTable
from semdpo.reporting.tables import all_tables, latex, sweep_table

__all__ = ["ReportData", "write_report", "write_sweep"]

OWN = ".files.json"  # in the report's folder: what the last report wrote there
OWN_SWEEP = ".files.alpha.json"


def write_report(data: ReportData, path: Path) -> None:
    """Write a report; equal data give equal bytes.

    Args:
        data: what is reported.
        path: of the HTML file. Beside it appear its numbers as CSV and LaTeX, its plots as PNG and SVG, and, when
            images were kept, ``strip.png``. What an older report wrote here is replaced or removed; other files
            stay. The page comes after all that it speaks of.

    Raises:
        DataError: nothing was evaluated, values are missing, methods cannot be paired, or pairs are not weighed.
        StoreError: a file cannot be written.
    """
    # Plotting takes a second to import; a wrong row should be told before.
    tables = compute_tables(data)
    shown = all_tables(data, tables)
    from semdpo.reporting.page import render_page
    from semdpo.reporting.plots import draw_all
    from semdpo.reporting.strip import strip
    from semdpo.reporting.style import to_png, to_svg

    figures = draw_all(data, tables)
    drawn = {name: to_svg(figure, name) for name, figure in figures.items()}
    page = render_page(data, tables, shown, drawn)
    files = {
        "evaluation.csv": _csv(images_frame(data)),
        **{name: content for each in shown for name, content in _table(each).items()},
        **{f"plots/{name}.png": to_png(figure) for name, figure in figures.items()},
        **{f"plots/{name}.svg": svg.encode() for name, svg in drawn.items()},
    }
    if data.curves:
        files["tables/curves.csv"] = _csv(pd.DataFrame(data.curves))
    if data.weighted:
        files["tables/weights.csv"] = _csv(weights_frame(data))
    if (images := strip(data, tables)) is not None:
        files["strip.png"] = images
    publish(path, page, files, OWN)


def publish(path: Path, page: str, files: Mapping[str, bytes], own: str) -> None:
    """Writes a page and what lies beside it, and removes what an older one wrote and this one does not.

    Args:
        path: of the page, which is written last.
        page: its HTML.
        files: by their names relative to the page's folder.
        own: name of the list of what was written here; nothing else is replaced or removed.

    Raises:
        StoreError: a file is there that no report wrote, or cannot be written.
    """
    folder, names = path.parent, {*files, path.name}
    before = _written(folder / own)
    if foreign := sorted(name for name in names - before if (folder / name).exists()):
        raise StoreError(f"{folder / foreign[0]} is there, and no report wrote it; move it or choose another folder")
    write_bytes(folder / own, json.dumps(sorted(names | before), indent=1).encode())
    for name in sorted(before - names):
        disk.remove_file(folder, name)
    for name, content in files.items():
        write_bytes(folder / name, content)
    write_bytes(path, page.encode())
    write_bytes(folder / own, json.dumps(sorted(names), indent=1).encode())


def _written(path: Path) -> set[str]:
    """What the list says; nothing where it is not there, or is none of ours."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return set()
    return {name for name in found if isinstance(name, str)} if isinstance(found, list) else set()


def _table(table: PaperTable) -> dict[str, bytes]:
    frame = table.frame.reset_index(names=list(table.frame.index.names))
    return {f"tables/{table.name}.csv": _csv(frame), f"tables/{table.name}.tex": latex(table).encode()}


def _csv(frame: pd.DataFrame) -> bytes:
    plain = frame.astype(object).where(frame.notna(), None)
    return encoded(".csv", {str(name): [_python(each) for each in plain[name]] for name in plain})


def _python(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value


def write_sweep(sweep: Sweep, path: Path) -> None:
    """Write the page of a sweep over α, and beside it its numbers as CSV and LaTeX and its plot as PNG and SVG.

    Args:
        sweep: its numbers.
        path: of the HTML file.

    Raises:
        StoreError: a file cannot be written.
    """
    from semdpo.reporting.page import render_sweep
    from semdpo.reporting.style import to_png, to_svg
    from semdpo.reporting.weight_plots import trade_off

    figure = trade_off(sweep)
    drawn = to_svg(figure, "sweep")
    files = _table(sweep_table(sweep)) | {"plots/sweep.png": to_png(figure), "plots/sweep.svg": drawn.encode()}
    publish(path, render_sweep(sweep, drawn), files, OWN_SWEEP)
