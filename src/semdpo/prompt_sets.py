"""Where prompts come from: a user's own files, the public sets in their own schemas, or the hub."""

from __future__ import annotations

import json
import logging
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from semdpo.errors import DataError
from semdpo.records import content_id
from semdpo.tables import TABLES, Table, read_table, read_text, resolve

HUB = "hub:"
COLUMNS = ("prompt", "Prompt")  # DiffusionDB's metadata.parquet; Lexica (Gustavosta/Stable-Diffusion-Prompts)

log = logging.getLogger("semdpo")


def read_prompts(name: str | Path, column: str | None = None, skip_empty: bool = False) -> list[str]:
    """The prompts of a source; exact duplicates are dropped, the first kept, and their number logged.

    Args:
        name: txt (one a line), jsonl, csv, parquet, COCO's captions (``captions_*.json``), ``tiny:FILE``, or
            ``hub:OWNER/NAME[:SPLIT]``.
        column: where the prompts are; None takes the first of ``COLUMNS`` that is there.
        skip_empty: leave out rows without text, and log their number, instead of refusing them.

    Raises:
        DataError: see ``read_table``; a prompt is empty or no text; the hub cannot be reached.
    """
    table = _table(str(name), column)
    column = column or _column(table)
    values = table.column(column, "; name one of them with prompts.column")
    if skip_empty:
        full = [k for k, value in enumerate(values) if value is not None and str(value).strip()]
        if len(full) < len(values):
            log.warning("%s: left out %d rows without text", table.file, len(values) - len(full))
        table = Table(table.file, {column: [values[k] for k in full]}, [table.rows[k] for k in full])
    prompts = table.texts(column)
    if not prompts:
        raise DataError(f"{table.file} has no prompts; give a file with at least one")
    distinct = list(dict.fromkeys(prompts))
    if len(distinct) < len(prompts):
        log.warning("%s: dropped %d exact duplicates of prompts", table.file, len(prompts) - len(distinct))
    return distinct


def hub_rows(name: str) -> Iterator[dict[str, Any]]:
    """Every row of a data set of the hub, with every column as it is stored.

    Args:
        name: ``OWNER/NAME[:SPLIT]``.

    Raises:
        DataError: the hub cannot be reached.
    """
    for part in _load(name).with_format("arrow").iter(batch_size=1000):
        yield from part.to_pylist()


def normalised(text: str) -> str:
    """What is left of a prompt when it is compared with another: letters, digits and marks in one case and form."""
    kept = (each if unicodedata.category(each)[0] in "LNM" else " " for each in unicodedata.normalize("NFKC", text))
    return " ".join("".join(kept).casefold().split()) or " ".join(text.split())


def draw(prompts: Sequence[str], count: int | None) -> list[str]:
    """So many prompts, in an order that depends on their words only; prompts that are alike count as one.

    Args:
        prompts: in any order.
        count: None takes all.
    """
    distinct: dict[str, str] = {}
    for text in sorted(prompts):
        distinct.setdefault(normalised(text), text)
    return [distinct[key] for key in sorted(distinct, key=content_id)[:count]]


def _table(name: str, column: str | None) -> Table:
    if name.startswith(HUB):
        return _from_hub(name.removeprefix(HUB), column)
    path = resolve(name)
    if path.suffix == ".txt":
        return _lines(path)
    if path.suffix == ".json":
        return _coco(path)
    if path.suffix in TABLES:
        return read_table(path, None if column is None else [column], COLUMNS)
    raise DataError(
        f"{path} has an unknown suffix; prompts come as .txt, .jsonl, .csv, .parquet, or COCO's captions as .json"
    )


def _column(table: Table) -> str:
    known = [name for name in COLUMNS if name in table.columns]
    if not known:
        table.column(COLUMNS[0], "; name one of them with prompts.column")
    return known[0]


def _lines(path: Path) -> Table:
    lines = read_text(path).removesuffix("\n").split("\n")
    if lines == [""]:
        raise DataError(f"{path} is empty; write one prompt on each line")
    lines = [line.removesuffix("\r") for line in lines]
    return Table(str(path), {COLUMNS[0]: lines}, [f"line {i}" for i in range(1, len(lines) + 1)])


def _coco(path: Path) -> Table:
    """COCO's ``captions_val2017.json``: {"annotations": [{"caption": …}]}; some captions end with a line end."""
    try:
        annotations = json.loads(read_text(path))["annotations"]
        captions = [each["caption"].strip() for each in annotations]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f'{path} is not COCO\'s file of captions ({{"annotations": [{{"caption": …}}]}}); give that, or .jsonl'
        ) from error
    return Table(str(path), {COLUMNS[0]: captions}, [f"annotation {i}" for i in range(1, len(captions) + 1)])


def _from_hub(name: str, column: str | None) -> Table:
    found = _load(name)
    wanted = [each for each in ((column,) if column else COLUMNS) if each in found.column_names]
    columns = {each: list(found[each]) for each in wanted} or {each: [] for each in found.column_names}
    return Table(f"{HUB}{name}", columns, [f"row {i}" for i in range(1, len(found) + 1)])


def _load(name: str) -> Any:
    repository, _, split = name.partition(":")
    try:
        from datasets import disable_progress_bars, load_dataset
    except ImportError as error:
        raise DataError(
            f"reading {HUB}{name} needs the library datasets; install it: pip install 'semdpo[hub]'"
        ) from error
    disable_progress_bars()
    try:
        return load_dataset(repository, split=split or "train")
    except (OSError, ValueError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"the data set {repository} could not be read from the hub ({lines[0][:200].rstrip(' .')}); check its "
            "name, its split and the connection, or download it and give the file"
        ) from error
