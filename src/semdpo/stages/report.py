"""The report: one page that opens from disk, and beside it its numbers and plots as files."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pandas as pd

from semdpo.errors import StoreError
from semdpo.reporting.data import ReportData
from semdpo.reporting.numbers import compute_tables, pictures_frame
from semdpo.reporting.published import all_tables, latex
from semdpo.reporting.sweep import Sweep, sweep_frame

__all__ = ["ReportData", "write_report", "write_sweep"]


def write_report(data: ReportData, path: Path) -> None:
    """Write a report; equal data give equal bytes.

    Args:
        data: what is reported.
        path: of the HTML file. Beside it appear its numbers as CSV and LaTeX, its plots as PNG and SVG, and, when
            pictures were kept, ``strip.png``. Older files of these names are replaced; the page comes last.

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
        **{f"tables/{each.name}.csv": _csv(each.frame.reset_index(names=each.frame.index.names)) for each in shown},
        **{f"tables/{each.name}.tex": latex(each).encode() for each in shown},
        **{f"plots/{name}.png": to_png(figure) for name, figure in figures.items()},
        **{f"plots/{name}.svg": svg.encode() for name, svg in drawn.items()},
    }
    if (pictures := strip(data, tables)) is not None:
        files["strip.png"] = pictures
    for name, content in files.items():
        _write(path.parent / name, content)
    _write(path, page.encode())


def _csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False, lineterminator="\n").encode()


def write_sweep(sweep: Sweep, path: Path) -> None:
    """Write the page of a sweep over α, and beside it ``sweep.csv`` and ``plots/sweep.png``.

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
    _write(path.parent / "sweep.csv", _csv(sweep_frame(sweep)))
    _write(path.parent / "plots/sweep.png", to_png(figure))
    _write(path, render_sweep(sweep, to_svg(figure, "sweep")).encode())


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
