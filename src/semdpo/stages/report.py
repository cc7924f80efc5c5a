"""The report: one page that opens from disk, and beside it its numbers and plots as files."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from semdpo.errors import StoreError
from semdpo.reporting.data import ReportData, compute_tables, differences_frame, results_frame

if TYPE_CHECKING:
    from semdpo.reporting.sweep import Sweep

__all__ = ["ReportData", "write_report", "write_sweep"]


def write_report(data: ReportData, path: Path) -> None:
    """Write a report; equal data give equal bytes.

    Args:
        data: what is reported.
        path: of the HTML file. Beside it appear ``results.csv``, ``differences.csv``, ``plots/NAME.png`` and, when
            pictures were kept, ``strip.png``. Older files of these names are replaced; the page comes last.

    Raises:
        DataError: nothing was evaluated, values are missing, methods cannot be paired, or pairs are not weighed.
        StoreError: a file cannot be written.
    """
    # Plotting takes a second to import; a wrong row should be told before.
    tables = compute_tables(data)
    from semdpo.reporting.page import render_page
    from semdpo.reporting.plots import draw_all, to_png, to_svg
    from semdpo.reporting.strip import strip

    figures = draw_all(data, tables)
    page = render_page(data, tables, {name: to_svg(figure, name) for name, figure in figures.items()})
    files = {
        "results.csv": results_frame(data, tables).to_csv(index=False, lineterminator="\n").encode(),
        "differences.csv": differences_frame(data, tables).to_csv(index=False, lineterminator="\n").encode(),
        **{f"plots/{name}.png": to_png(figure) for name, figure in figures.items()},
    }
    pictures = strip(data, tables)
    if pictures is not None:
        files["strip.png"] = pictures
    for name, content in files.items():
        _write(path.parent / name, content)
    _write(path, page.encode())


def write_sweep(sweep: Sweep, path: Path) -> None:
    """Write the page of a sweep over α, and beside it ``sweep.csv`` and ``plots/sweep.png``.

    Args:
        sweep: its numbers.
        path: of the HTML file.

    Raises:
        StoreError: a file cannot be written.
    """
    from semdpo.reporting.page import render_sweep
    from semdpo.reporting.plots import to_png, to_svg
    from semdpo.reporting.sweep import sweep_frame, trade_off

    figure = trade_off(sweep)
    _write(path.parent / "sweep.csv", sweep_frame(sweep).to_csv(index=False, lineterminator="\n").encode())
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
