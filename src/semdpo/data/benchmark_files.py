"""Reads the prompts of a published set from a user's file, folder or data set of the hub, in the form it has there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from semdpo.data.arrow_files import unreadable
from semdpo.data.benchmarks import BENCHMARKS, Benchmark
from semdpo.data.readers import TABLES, lines_of, read_text
from semdpo.data.tables import HUB, Table, is_empty, is_folder, read_table, resolve
from semdpo.errors import DataError
from semdpo.texts import shown

COLUMNS = ("prompt", "Prompt", "Prompts", "prompts", "text")
_VAL = "_val"  # how the names of T2I-CompBench's files end
_WORD = re.compile("[A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Entry:
    """A prompt of a benchmark, without outer blanks, and its category; empty where the file names none."""

    prompt: str
    category: str = ""


@dataclass(frozen=True, slots=True)
class Entries:
    """The prompts of a benchmark.

    Attributes:
        entries: the different prompts, in the file's order.
        duplicates: the number of exact repetitions that were left out: they would get the same images.
    """

    entries: list[Entry]
    duplicates: int


def read_benchmark(name: str, source: str) -> Entries:
    """Reads the prompts of a benchmark.

    Args:
        name: the benchmark's name.
        source: a file, a folder of text files where the set is published as one, or ``hub:OWNER/NAME[:SPLIT]``.

    Raises:
        DataError: the source is missing, not UTF-8, in another form than the set's, or has no prompts.
    """
    known = BENCHMARKS[name]
    found = _from_folder(known, Path(source)) if _is_folder(source) else _from_file(known, source)
    distinct = {entry.prompt: entry for entry in reversed(found)}  # the first of equal prompts
    kept = [entry for entry in found if distinct[entry.prompt] is entry]
    if not kept:
        raise DataError(f"{source} has no prompts; give {_cure(known)}")
    return Entries(kept, len(found) - len(kept))


def data_files(folder: Path) -> list[Path]:
    """The text files of a folder, by name: all that a benchmark may be read from.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        return sorted(path for path in folder.glob("*.txt") if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise unreadable(folder, error) from error


def _is_folder(source: str) -> bool:
    return not source.startswith(HUB) and is_folder(source)


def _from_folder(known: Benchmark, folder: Path) -> list[Entry]:
    if not known.folder:
        raise DataError(f"{folder} is a folder, and {known.title} is one file; give {_cure(known)}")
    files = [path for path in data_files(folder) if path.match(known.folder)]
    if not files:
        raise DataError(f"{folder} has no file {known.folder}; give {_cure(known)}")
    if known.name == "dpg-bench":  # one prompt in each file
        return [Entry(text, _origin(path.stem)) for path in files for text in [_whole(path)]]
    return [entry for path in files for entry in _lines(path)]


def _from_file(known: Benchmark, source: str) -> list[Entry]:
    suffix = "" if source.startswith(HUB) else resolve(source).suffix.lower()
    if suffix == ".txt":
        return list(_lines(resolve(source)))
    if suffix and suffix not in TABLES:
        raise DataError(f"{source} has an unknown suffix; give {_cure(known)}")
    table = read_table(source)
    column = next((name for name in COLUMNS if name in table.columns), None)
    if column is None:
        listed = ", ".join(shown(name) for name in list(table.columns)[:10]) or "none"
        raise DataError(
            f"{source} is not {known.title}: none of its columns ({listed}) is one of {', '.join(COLUMNS)}; "
            f"give {_cure(known)}"
        )
    return _of_rows(known, table, column)


def _of_rows(known: Benchmark, table: Table, column: str) -> list[Entry]:
    texts, categories = table.texts(column), _categories(known, table)
    if known.name == "dpg-bench" and "item_id" in table.columns:  # one row for each question about a prompt
        ids = [str(value) for value in table.columns["item_id"]]
        first = {identity: place for place, identity in reversed(list(enumerate(ids)))}
        places = sorted(first.values())
        return [Entry(texts[place], categories[place]) for place in places]
    return [Entry(text, category) for text, category in zip(texts, categories, strict=True)]


def _categories(known: Benchmark, table: Table) -> list[str]:
    column = next((name for name in known.category if name in table.columns), None)
    if column is None:
        return [""] * len(table.rows)
    values = ["" if is_empty(value) else str(value).strip() for value in table.columns[column]]
    if column == "item_id":
        return [_origin(value) for value in values]
    return [f"{value} atoms" if value else "" for value in values] if column == "atom_count" else values


def _origin(name: str) -> str:
    """Where a prompt of DPG-Bench was taken from, by its file's name: ``stanford`` of ``stanford12``."""
    word = _WORD.match(name)
    return word[0] if word else "numbered"


def _lines(path: Path) -> Iterator[Entry]:
    """One prompt on each line; blank lines are skipped. The category is the file's name, where it ends with _val."""
    lines = lines_of(read_text(path))
    places = [place for place, line in enumerate(lines) if not is_empty(line)]
    category = path.stem.removesuffix(_VAL) if path.stem.endswith(_VAL) else ""
    texts = _texts(path, [lines[place] for place in places], [f"line {place + 1}" for place in places])
    return (Entry(text, category) for text in texts)


def _whole(path: Path) -> str:
    """The one prompt of a file."""
    return _texts(path, [read_text(path)], ["the whole file"])[0]


def _texts(path: Path, texts: Sequence[str], rows: Sequence[str]) -> list[str]:
    return Table(str(path), {COLUMNS[0]: texts}, rows).texts(COLUMNS[0])


def _cure(known: Benchmark) -> str:
    return f"{known.form}, from {known.source}"
