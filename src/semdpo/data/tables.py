"""Users' tables as columns: all files and data sets are read here, and every error names its row."""

from __future__ import annotations

import math
import re
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from semdpo.data.arrow_files import Columns, read_parquet, unreadable
from semdpo.data.readers import READERS, TABLES
from semdpo.disk import COPY_FIRST, address
from semdpo.errors import DataError, did_you_mean
from semdpo.texts import half_character, hidden, is_visible, shown, trimmed
from semdpo.tiny_world import shipped

DATA = shipped.DATA
HUB = "hub:"
LARGEST = 1e100  # the squares and sums of larger numbers may overflow
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NO_NUMBER = re.compile(r"[+-]?(inf|infinity|nan)", re.ASCII | re.IGNORECASE)
_BOOLEANS = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True)
class Table:
    """A table of a user's.

    Attributes:
        file: the file's name, for messages.
        columns: name → values, [n].
        rows: each row's name in messages, [n]: ``line 3``, ``row 3``.
    """

    file: str
    columns: Mapping[str, Sequence[Any]]
    rows: Sequence[str]

    def column(self, name: str, advice: str = "") -> Sequence[Any]:
        """A required column, [n].

        Args:
            name: the column's name.
            advice: what to do when the column is missing, for the message.

        Raises:
            DataError: the column is missing; the message lists the table's columns.
        """
        if name in self.columns:
            return self.columns[name]
        hint = did_you_mean(name, self.columns)
        near = f"; did you mean {hint.split('did you mean ')[1]}" if "did you mean" in hint else ""
        cure = near or advice or "; rename one"
        names = [shown(column) for column in self.columns]
        if not names:
            raise DataError(f"{self.file} has no columns; give a file with a column '{name}'")
        listed = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        raise DataError(f"{self.file} has no column '{name}', only {listed}{cure}")

    def texts(self, name: str, advice: str = "", *, empty: bool = False) -> list[str]:
        """A column of visible texts, without their outer blanks, [n].

        Args:
            name: the column's name.
            advice: what to do when the column is missing, for the message.
            empty: whether empty, invisible and missing texts are accepted, as "".

        Raises:
            DataError: the column is missing; or a value is not text, shows nothing or cannot be written as UTF-8; the
                message names the row.
        """
        rows = zip(self.rows, self.column(name, advice), strict=True)
        return ["" if empty and is_empty(cell) else _text(cell, f"{self.file}, {row}: '{name}'") for row, cell in rows]

    def numbers(self, name: str, *, booleans: bool = False) -> list[float | None]:
        """A column of finite numbers, [n]; None where a row has none, and everywhere if there is no such column.

        Args:
            name: the column's name.
            booleans: whether true and false are read as 1 and 0; otherwise they are refused.

        Raises:
            DataError: a value is not a number, not finite or too large; the message names the row.
        """
        numbers: list[float | None] = []
        for row, value in zip(self.rows, self.columns.get(name, [None] * len(self.rows)), strict=True):
            value = _BOOLEANS.get(str(value).strip().lower(), value) if booleans else value
            numbers.append(_number(value, f"{self.file}, {row}: '{name}'"))
        return numbers

    def whole_numbers(self, name: str, most: int) -> list[int]:
        """A required column of whole numbers from 0 to ``most``, [n], read with all their digits.

        Raises:
            DataError: a value is missing or another number; the message names the row.
        """
        values = zip(self.rows, self.column(name), strict=True)
        return [_whole(value, f"{self.file}, {row}: '{name}'", most) for row, value in values]


def layered(first: Mapping[str, Sequence[Any]], others: Mapping[str, Sequence[Any]]) -> Mapping[str, Sequence[Any]]:
    """Columns of which ``first`` hide those of the same name in ``others``, without reading them."""
    layers: list[Any] = [first, others]
    return ChainMap(*layers)


def is_empty(value: Any) -> bool:
    """Whether a value is missing, or a text that shows nothing."""
    return value is None or (isinstance(value, str) and not is_visible(value))


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{place} must be text, not {_kind(value)}; correct it")
    if half := half_character(value):
        raise DataError(
            f"{place} holds half a character ({half}), probably because the text was truncated within an emoji; "
            "replace it or remove the row"
        )
    if not is_visible(value):
        unseen = hidden(value)
        fault = f"shows nothing, because all its characters are invisible ({unseen[:80]})" if unseen else "is empty"
        raise DataError(f"{place} {fault}; fill it or remove the row")
    return trimmed(value)


def _kind(value: Any) -> str:
    return "missing" if value is None else type(value).__name__


def _number(value: Any, place: str) -> float | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise DataError(f"{place} must be a number, not {_kind(value)}; correct it")
    if isinstance(value, str) and not (_NUMBER.fullmatch(value.strip()) or _NO_NUMBER.fullmatch(value.strip())):
        cure = "write it with a decimal point" if re.fullmatch(r"\s*[+-]?\d+,\d+\s*", value) else "correct it"
        raise DataError(f"{place} must be a number, not {shown(value)}; {cure}")
    try:
        number = float(value)
    except (OverflowError, ValueError) as error:  # a whole number with hundreds of digits; a signaling Decimal
        raise DataError(f"{place} is {shown(value)}, which is too large to compute with; correct it") from error
    if not math.isfinite(number):
        raise DataError(f"{place} is {value}; remove the row or compute the value again")
    if abs(number) > LARGEST:
        raise DataError(f"{place} is {number:g}, which is too large to compute with; correct it")
    return number


def _whole(value: Any, place: str, most: int) -> int:
    number = _number(value, place)
    if number is None:
        raise DataError(f"{place} is missing; fill it or remove the row")
    try:
        exact = int(value)  # also reads "5", and keeps all digits of a 63-bit seed
    except ValueError:
        exact = int(number)
    if not 0 <= number <= most or exact > most or (number != int(number)):
        upper = f" and ≤ {most}" if number > most else ""
        raise DataError(f"{place} is {number:g}; it must be a whole number ≥ 0{upper}")
    return exact


def resolve(name: str) -> Path:
    """The path of a file that a user names: ``tiny:FILE`` is a file of the embedded world, anything else is a path.

    Raises:
        DataError: there is no such file, or it is a folder.
    """
    if name.startswith("tiny:"):
        path = DATA / name.removeprefix("tiny:")
        names = [file.name for file in DATA.glob("*.jsonl")]
        if path.name not in names or path.parent != DATA:
            raise DataError(f"the embedded world has no file '{path.name}'{did_you_mean(path.name, names)}")
        return path
    if (elsewhere := address(name)) is not None:
        raise DataError(f"{elsewhere} {COPY_FIRST}")
    path = Path(name)
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder; name a file in it")
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is a pipe or a device, whose rows cannot be counted; save them as a file")
        if not path.is_file():
            near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""
            hint = near if "did you mean" in near else "; check the path"
            raise DataError(f"there is no file {path}{hint}")
    except OSError as error:
        raise unreadable(path, error) from error
    return path


def is_folder(name: str | Path) -> bool:
    """Whether there is a folder of that name.

    Raises:
        DataError: the system refuses access, or the name is too long.
    """
    try:
        return Path(name).is_dir()
    except OSError as error:
        raise unreadable(Path(name), error) from error


def read_table(name: str | Path, only: Sequence[str] | None = None, either: Sequence[str] = ()) -> Table:
    """Reads a table: a file, a folder of such files or of ``save_to_disk``, or a data set of the hub.

    Args:
        name: a csv, tsv, jsonl, json or parquet file (the case of its suffix does not matter), ``tiny:FILE``, a folder,
            or ``hub:OWNER/NAME[:SPLIT]``.
        only: the columns to read of a parquet file, which may be large, as far as they exist. Where it is None, the
            first existing column of ``either`` is read; if none exists, all columns are.
        either: see ``only``.

    Raises:
        DataError: the table is missing, empty, not UTF-8, in a format other than its suffix says, or has an unknown
            suffix; or the folder's files have different columns.
    """
    if str(name).startswith(HUB):
        from semdpo.data.hub import hub_table

        content = hub_table(str(name).removeprefix(HUB))
        return not_empty(Table(str(name), content.columns, content.rows))
    if is_folder(name):
        suffix, parts = data_files(Path(name))
        contents = [(file, READERS[suffix](file)) for file in parts]
        return not_empty(_joined(Path(name), [(file, content) for file, content in contents if content.rows]))
    path = resolve(str(name))
    suffix = path.suffix.lower()
    if suffix not in TABLES:
        raise DataError(f"{path} must be a table; convert it to one of {', '.join(TABLES)}")
    content = read_parquet(path, only, either) if suffix == ".parquet" else READERS[suffix](path)
    return not_empty(Table(str(path), content.columns, content.rows))


def not_empty(table: Table) -> Table:
    """Refuses a table without rows.

    Raises:
        DataError: it has none.
    """
    if not table.rows:
        raise DataError(f"{table.file} is empty; give a file with at least one row")
    return table


def data_files(path: Path) -> tuple[str, list[Path]]:
    """The data files of a folder, in order, and the suffix that they have.

    Raises:
        DataError: there are none, or the folder cannot be read.
    """
    try:
        inside = sorted(path.iterdir())
    except OSError as error:
        raise unreadable(path, error) from error
    for suffix in (
        ".arrow",
        *(suffix for suffix in TABLES if suffix != ".json"),
    ):  # .json files hold notes about a data set
        parts = [file for file in inside if file.suffix.lower() == suffix and not file.name.startswith(("cache-", "."))]
        if parts:
            return suffix, parts
    splits = [entry.name for entry in inside if entry.is_dir()]
    hint = f"name one of its folders {', '.join(splits[:20])}" if splits else "name a folder with such files"
    raise DataError(f"the folder {path} holds no .arrow, .csv, .jsonl, .parquet or .tsv file; {hint}")


def _joined(path: Path, parts: Sequence[tuple[Path, Columns]]) -> Table:
    if len(parts) == 1:
        return Table(str(path), parts[0][1].columns, parts[0][1].rows)
    names = list(parts[0][1].columns) if parts else []
    for file, content in parts:
        if set(content.columns) != set(names):
            raise DataError(f"{file} has other columns than {parts[0][0].name}; give files of one data set")
    columns = {name: [value for _, content in parts for value in content.columns[name]] for name in names}
    return Table(str(path), columns, [f"{file.name} {row}" for file, content in parts for row in content.rows])
