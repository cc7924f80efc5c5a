"""The report: one page that opens from disk, and beside it its numbers and plots as files."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from semdpo.errors import StoreError
from semdpo.reporting.data import ReportData, weights_frame
from semdpo.reporting.numbers import compute_tables, pictures_frame
from semdpo.reporting.published import PaperTable
from semdpo.reporting.sweep import Sweep
from semdpo.reporting.tables import all_tables, latex, sweep_table
from semdpo.writers import encoded

__all__ = ["ReportData", "write_report", "write_sweep"]

OWN = ".files.json"  # in the report's folder: what the last report wrote there


def write_report(data: ReportData, path: Path) -> None:
    """Write a report; equal data give equal bytes.

    Args:
        data: what is reported.
        path: of the HTML file. Beside it appear its numbers as CSV and LaTeX, its plots as PNG and SVG, and, when
            pictures were kept, ``strip.png``. What an older report wrote here is replaced or removed; other files
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
        "evaluation.csv": _csv(pictures_frame(data)),
        **{name: content for each in shown for name, content in _table(each).items()},
        **{f"plots/{name}.png": to_png(figure) for name, figure in figures.items()},
        **{f"plots/{name}.svg": svg.encode() for name, svg in drawn.items()},
    }
    if data.curves:
        files["tables/curves.csv"] = _csv(pd.DataFrame(data.curves))
    if data.weighted:
        files["tables/weights.csv"] = _csv(weights_frame(data))
    if (pictures := strip(data, tables)) is not None:
        files["strip.png"] = pictures
    _remove_others(path.parent, {*files, path.name})
    for name, content in files.items():
        _write(path.parent / name, content)
    _write(path, page.encode())
    _write(path.parent / OWN, json.dumps(sorted({*files, path.name}), indent=1).encode())


def _remove_others(folder: Path, kept: set[str]) -> None:
    """Removes what an older report wrote here and this one does not; whatever else lies here stays."""
    if (folder / OWN).is_file():
        for name in set(json.loads((folder / OWN).read_text())) - kept:
            (folder / name).unlink(missing_ok=True)


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
    for name, content in files.items():
        _write(path.parent / name, content)
    _write(path, render_sweep(sweep, drawn).encode())


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StoreError(f"cannot write {path} ({error.strerror}); free some space or choose another folder") from error
