"""Writes the report: one page that opens from disk, and its numbers and plots as files in the same folder."""

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

REPORT_FILES = ".files.json"  # in the report's folder: the names of the files that the last report wrote there
SWEEP_FILES = ".files.alpha.json"


def write_report(data: ReportData, path: Path) -> None:
    """Write a report; equal data give equal bytes.

    Args:
        data: the data of the report.
        path: path of the HTML file. Its folder also gets the numbers as CSV and LaTeX, the plots as PNG and SVG,
            ``strip.png`` where images were kept, and a study's results in ``study``. Files that an older report wrote
            there are replaced or removed; other files stay. The page is written last.

    Raises:
        DataError: no image was evaluated, values are missing, methods cannot be paired, or pairs have no distance.
        StoreError: a file cannot be written.
    """
    # The plotting libraries take a second to import, so wrong rows are reported first.
    tables = compute_tables(data)
    shown = all_tables(data, tables)
    from semdpo.reporting.page import render_page
    from semdpo.reporting.plots import draw_all
    from semdpo.reporting.strip import strip
    from semdpo.reporting.style import to_svg_and_png

    plots = {name: to_svg_and_png(figure, name) for name, figure in draw_all(data, tables).items()}
    section, of_study = _study(data)
    page = render_page(data, tables, shown, {name: svg for name, (svg, _) in plots.items()}, section)
    files = {
        "evaluation.csv": _csv(images_frame(data)),
        **{name: content for table in shown for name, content in table_files(table).items()},
        **{f"plots/{name}.png": png for name, (_, png) in plots.items()},
        **{f"plots/{name}.svg": svg.encode() for name, (svg, _) in plots.items()},
    }
    if data.curves:
        files["tables/curves.csv"] = _csv(pd.DataFrame(data.curves))
    if data.weighted:
        files["tables/weights.csv"] = _csv(weights_frame(data))
    if (images := strip(data, tables)) is not None:
        files["strip.png"] = images
    publish(path, page, files | of_study, REPORT_FILES)


def _study(data: ReportData) -> tuple[str, dict[str, bytes]]:
    """The section and the files of the study with simulated raters; nothing where none was asked for."""
    if data.study is None:
        return "", {}
    from semdpo.reporting.simulated_study import published  # only such a report needs the extra [study]

    return published(data.study)


def publish(path: Path, page: str, files: Mapping[str, bytes], list_name: str) -> None:
    """Writes a page and its files, and removes the files that an older page wrote and this one does not.

    Args:
        path: path of the page, which is written last.
        page: the page's HTML.
        files: path relative to the page's folder → content.
        list_name: name of the file that lists what was written; only listed files are replaced or removed.

    Raises:
        StoreError: a file that no report wrote already exists, or a file cannot be written.
    """
    folder, names = path.parent, {*files, path.name}
    before = _written(folder / list_name)
    if foreign := sorted(name for name in names - before if (folder / name).exists()):
        raise StoreError(
            f"{folder / foreign[0]} already exists, and no report wrote it; move it or choose another folder"
        )
    write_bytes(folder / list_name, json.dumps(sorted(names | before), indent=1).encode())
    for name in sorted(before - names):
        disk.remove_file(folder, name)
    for name, content in files.items():
        write_bytes(folder / name, content)
    write_bytes(path, page.encode())
    write_bytes(folder / list_name, json.dumps(sorted(names), indent=1).encode())


def _written(path: Path) -> set[str]:
    """The file names in a list that ``publish`` wrote; empty where there is no such list."""
    try:
        names = json.loads(disk.read(path).decode())
    except (OSError, ValueError, RecursionError):
        return set()
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()


def table_files(table: PaperTable) -> dict[str, bytes]:
    """A table's files, CSV and LaTeX: path relative to the page's folder → content."""
    frame = table.frame.reset_index(names=list(table.frame.index.names))
    return {f"tables/{table.name}.csv": _csv(frame), f"tables/{table.name}.tex": latex(table).encode()}


def _csv(frame: pd.DataFrame) -> bytes:
    plain = frame.astype(object).where(frame.notna(), None)
    return encoded(".csv", {str(name): [_python(value) for value in plain[name]] for name in plain})


def _python(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value


def write_sweep(sweep: Sweep, path: Path) -> None:
    """Write the page of a sweep over α, its numbers as CSV and LaTeX, and its plot as PNG and SVG.

    Args:
        sweep: the numbers of the sweep.
        path: path of the HTML file.

    Raises:
        StoreError: a file cannot be written.
    """
    from semdpo.reporting.page import render_sweep
    from semdpo.reporting.style import to_svg_and_png
    from semdpo.reporting.weight_plots import trade_off

    figure = trade_off(sweep)
    svg, png = to_svg_and_png(figure, "sweep")
    files = table_files(sweep_table(sweep)) | {"plots/sweep.png": png, "plots/sweep.svg": svg.encode()}
    publish(path, render_sweep(sweep, svg), files, SWEEP_FILES)
