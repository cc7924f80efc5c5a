"""Reads prompts from users' files, from public sets as they are published, and from the hub."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from semdpo.data.readers import TABLES, lines_of, parse, read_text
from semdpo.data.records import content_id
from semdpo.data.tables import HUB, Table, is_empty, is_folder, read_table, resolve
from semdpo.errors import DataError

# Python's normalisation takes the square of the length of a row of combining marks; see UAX 15, stream-safe text.
_MARKS = re.compile(r"[^\w\s]{30}")
ANNOTATION = "annotation"  # how a row of COCO's captions is called in messages
COLUMNS = ("prompt", "Prompt")  # DiffusionDB's metadata.parquet; Lexica (Gustavosta/Stable-Diffusion-Prompts)

log = logging.getLogger("semdpo")


def read_prompts(
    name: str | Path, column: str | None = None, skip_empty: bool = False, usual: bool = False
) -> list[str]:
    """The prompts of a source. Of exact duplicates the first is kept; the number of the others is logged.

    Args:
        name: a txt (one prompt per line), jsonl, csv, tsv, json or parquet file, COCO's captions
            (``captions_*.json``), ``tiny:FILE``, ``hub:OWNER/NAME[:SPLIT]``, or a folder, as for ``read_table``.
        column: the column that holds the prompts; None takes the first existing one of ``COLUMNS``. It is ignored for
            txt files, COCO's captions and the tiny world's files, where the prompts have a fixed place.
        skip_empty: whether rows without text are left out, and their number logged; otherwise they are refused.
        usual: whether one of ``COLUMNS`` is taken where ``column`` does not exist.

    Raises:
        DataError: see ``read_table``; or a prompt is empty or not text, or the hub cannot be reached.
    """
    table = _table(str(name), column)
    column = _chosen(str(name), table, column, usual)
    values = table.column(column, "; name one of them with prompts.column")
    if skip_empty:
        full = [k for k, value in enumerate(values) if not is_empty(value)]
        if len(full) < len(values):
            log.warning("%s: left out %d rows without text", table.file, len(values) - len(full))
        table = Table(table.file, {column: [values[k] for k in full]}, [table.rows[k] for k in full])
    prompts = _texts(table, column)
    distinct = list(dict.fromkeys(prompts))
    if len(distinct) < len(prompts):
        log.warning("%s: left out %d exact duplicates of prompts", table.file, len(prompts) - len(distinct))
    return distinct


def read_every_prompt(name: str | Path, column: str | None = None) -> list[str]:
    """The prompts of all rows of a source, duplicates included; the arguments and errors are those of ``read_prompts``.

    A column is refused where the prompts have a fixed place.
    """
    table = _table(str(name), column)
    if column is not None and column not in table.columns and _has_one_place(str(name), table):
        raise DataError(f"{table.file} has no columns to choose from: its prompts have a fixed place; name no column")
    return _texts(table, _chosen(str(name), table, column))


def _chosen(name: str, table: Table, column: str | None, usual: bool = False) -> str:
    """The column of the prompts: the one that the user names, unless the source has only one place for them."""
    instead = _has_one_place(name, table) or (usual and _has_usual(table))
    return _column(table) if column is None or (column not in table.columns and instead) else column


def _texts(table: Table, column: str) -> list[str]:
    prompts = table.texts(column)
    if not prompts:
        raise DataError(f"{table.file} has no prompts; give a file with at least one")
    return prompts


def _has_usual(table: Table) -> bool:
    return any(name in table.columns for name in COLUMNS)


def normalised(text: str) -> str:
    """The form in which prompts are compared: letters, digits and combining marks, in one case and Unicode form."""
    composed = unicodedata.normalize("NFKC", _MARKS.sub(r"\g<0> ", text))
    letters = (char if unicodedata.category(char)[0] in "LNM" else " " for char in composed)
    return " ".join("".join(letters).casefold().split()) or " ".join(text.split())


def choose_by_hash(prompts: Sequence[str], count: int | None) -> list[str]:
    """Chooses prompts by the hash of their words; prompts that are equal when normalised count as one.

    Args:
        prompts: the prompts, in any order.
        count: how many to choose; None chooses all.

    Returns:
        The chosen prompts, in the order of their hashes.
    """
    distinct: dict[str, str] = {}
    for text in sorted(prompts):
        distinct.setdefault(normalised(text), text)
    return [distinct[key] for key in sorted(distinct, key=content_id)[:count]]


def choose_unused(prompts: Sequence[str], used: Iterable[str], count: int | None) -> tuple[list[str], int]:
    """Chooses prompts as ``choose_by_hash`` does, among those whose words no other prompt has that is used elsewhere.

    Args:
        prompts: the prompts, in any order.
        used: the prompts that are used elsewhere.
        count: how many to choose; None chooses all.

    Returns:
        The chosen prompts, and how many were left out because they are used elsewhere.
    """
    taken, texts = {normalised(text) for text in used}, choose_by_hash(prompts, None)
    free = [text for text in texts if normalised(text) not in taken]
    return free[:count], len(texts) - len(free)


def _table(name: str, column: str | None) -> Table:
    if name.startswith(HUB) or is_folder(name):
        return read_table(name)
    path = resolve(name)
    suffix = path.suffix.lower()
    if suffix == ".txt":
        return _lines(path)
    if suffix == ".json":
        return _json(path)
    if suffix in TABLES:
        return read_table(path, None if column is None else [column, *COLUMNS], COLUMNS)
    raise DataError(
        f"{path} has an unknown suffix; prompts come as .txt, .jsonl, .csv, .tsv, .parquet, .json, or COCO's captions"
    )


def _column(table: Table) -> str:
    usual = [name for name in COLUMNS if name in table.columns]
    if not usual:
        table.column(COLUMNS[0], "; name one of them with prompts.column")
    return usual[0]


def _has_one_place(name: str, table: Table) -> bool:
    """Whether a source has no columns of the user's; a JSON file may be COCO's captions, or a list of objects."""
    captions = any(row.startswith(ANNOTATION) for row in table.rows[:1])
    return name.startswith("tiny:") or Path(name).suffix.lower() == ".txt" or captions


def _lines(path: Path) -> Table:
    lines = lines_of(read_text(path))
    if not lines:
        raise DataError(f"{path} is empty; write one prompt on each line")
    return Table(str(path), {COLUMNS[0]: lines}, [f"line {i}" for i in range(1, len(lines) + 1)])


def _json(path: Path) -> Table:
    """A list of objects, or COCO's ``captions_val2017.json``: {"annotations": [{"caption": …}]}."""
    content = parse(read_text(path), str(path))
    if isinstance(content, list):
        return read_table(path)
    try:
        captions = [annotation["caption"] for annotation in content["annotations"]]
    except (KeyError, TypeError) as error:
        raise DataError(
            f'{path} is not COCO\'s file of captions ({{"annotations": [{{"caption": …}}]}}); give that, or .jsonl'
        ) from error
    return Table(str(path), {COLUMNS[0]: captions}, [f"{ANNOTATION} {i}" for i in range(1, len(captions) + 1)])
