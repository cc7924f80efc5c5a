"""A user's tables as columns: every file and data set is read here, and every error names its row."""

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
from semdpo.errors import DataError, did_you_mean
from semdpo.texts import half_character, hidden, is_visible, shown, trimmed
from semdpo.tiny_world import shipped

DATA = shipped.DATA
HUB = "hub:"
LARGEST = 1e100  # squares and sums of larger numbers overflow
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NO_NUMBER = re.compile(r"[+-]?(inf|infinity|nan)", re.ASCII | re.IGNORECASE)
_BOOLEANS = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True)
class Table:
    """A file's columns, all of one length, and what to call a row (``line 3``, ``row 3``) in an error."""

    file: str
    columns: Mapping[str, Sequence[Any]]
    rows: Sequence[str]

    def column(self, name: str, advice: str = "") -> Sequence[Any]:
        """A column that must be there.

        Raises:
            DataError: it is not; the message lists those that are.
        """
        if name in self.columns:
            return self.columns[name]
        hint = did_you_mean(name, self.columns)
        near = f"; did you mean {hint.split('did you mean ')[1]}" if "did you mean" in hint else ""
        cure = near or advice or "; rename one"
        names = [shown(each) for each in self.columns]
        if not names:
            raise DataError(f"{self.file} has no columns at all; give a file with a column '{name}'")
        listed = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        raise DataError(f"{self.file} has no column '{name}', only {listed}{cure}")

    def texts(self, name: str, advice: str = "", *, empty: bool = False) -> list[str]:
        """A column of texts that a person can see, without their outer blanks.

        Args:
            name: of the column.
            advice: what to do when there is none.
            empty: take empty, invisible and missing texts too, as "".

        Raises:
            DataError: there is no such column; or a row is no text, shows nothing or cannot be written as UTF-8; the
                row is named.
        """
        rows = zip(self.rows, self.column(name, advice), strict=True)
        return ["" if empty and is_empty(each) else _text(each, f"{self.file}, {row}: '{name}'") for row, each in rows]

    def numbers(self, name: str, *, booleans: bool = False) -> list[float | None]:
        """A column of finite numbers, None where a row has none; all None when there is no such column.

        Args:
            name: of the column.
            booleans: take true as 1 and false as 0, instead of refusing them.

        Raises:
            DataError: a value is no number, not finite or enormous; the row is named.
        """
        found: list[float | None] = []
        for row, value in zip(self.rows, self.columns.get(name, [None] * len(self.rows)), strict=True):
            value = _BOOLEANS.get(str(value).strip().lower(), value) if booleans else value
            found.append(_number(value, f"{self.file}, {row}: '{name}'"))
        return found

    def whole_numbers(self, name: str, most: int) -> list[int]:
        """A column of whole numbers from 0 to ``most``, exactly as they are written.

        Raises:
            DataError: a row has none, or another number; the row is named.
        """
        values = zip(self.rows, self.column(name), strict=True)
        return [_whole(value, f"{self.file}, {row}: '{name}'", most) for row, value in values]


def layered(first: Mapping[str, Sequence[Any]], others: Mapping[str, Sequence[Any]]) -> Mapping[str, Sequence[Any]]:
    """Columns that hide others of the same name; those are not read for it."""
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
            f"{place} holds half of a character ({half}), as a text that was truncated within an emoji does; replace "
            "it or remove the row"
        )
    if not is_visible(value):
        unseen = hidden(value)
        what = f"shows nothing, for it is made of invisible characters ({unseen[:80]})" if unseen else "is empty"
        raise DataError(f"{place} {what}; fill it or remove the row")
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
    except (OverflowError, ValueError) as error:  # a whole number of hundreds of digits; a Decimal that signals
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
        exact = int(value)  # "5" too, and every digit of a seed of 63 bits
    except ValueError:
        exact = int(number)
    if not 0 <= number <= most or exact > most or (number != int(number)):
        upper = f", {most} at most" if number > most else ""
        raise DataError(f"{place} is {number:g}; it must be a whole number, 0 or more{upper}")
    return exact


def resolve(name: str) -> Path:
    """The file of a name: ``tiny:FILE`` is the embedded world's, anything else a path.

    Raises:
        DataError: there is no such file, or it is a folder.
    """
    if name.startswith("tiny:"):
        path = DATA / name.removeprefix("tiny:")
        known = [p.name for p in DATA.glob("*.jsonl")]
        if path.name not in known or path.parent != DATA:
            raise DataError(f"the embedded world has no file '{path.name}'{did_you_mean(path.name, known)}")
        return path
    path = Path(name)
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder; name a file in it")
        if not path.is_file():
            near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""
            hint = near if "did you mean" in near else "; check the path"
            raise DataError(f"there is no file {path}{hint}")
    except OSError as error:
        raise unreadable(path, error) from error
    return path


def is_folder(name: str | Path) -> bool:
    """Whether a folder of that name is there.

    Raises:
        DataError: the system does not let us look, or the name is too long for it.
    """
    try:
        return Path(name).is_dir()
    except OSError as error:
        raise unreadable(Path(name), error) from error


def read_table(name: str | Path, only: Sequence[str] | None = None, either: Sequence[str] = ()) -> Table:
    """The columns of a user's file, of a data set's folder (of such files, or of ``save_to_disk``), or of the hub.

    Args:
        name: of a csv, tsv, jsonl, json or parquet file, whatever the case of its suffix; ``tiny:FILE``; a folder; or
            ``hub:OWNER/NAME[:SPLIT]``.
        only: read only these of a parquet file, which may be large, if it has them; None reads all …
        either: … or, if it has one of them, the first of these.

    Raises:
        DataError: missing, empty, of another suffix, not UTF-8, or not of the form that its suffix says; or the
            folder's files have different columns.
    """
    if str(name).startswith(HUB):
        from semdpo.data.hub import hub_table

        found = hub_table(str(name).removeprefix(HUB))
        return _full(Table(str(name), found.columns, found.rows))
    if is_folder(name):
        return _full(_folder(Path(name)))
    path = resolve(str(name))
    suffix = path.suffix.lower()
    if suffix not in TABLES:
        raise DataError(f"{path} must be a table; convert it to one of {', '.join(TABLES)}")
    found = read_parquet(path, only, either) if suffix == ".parquet" else READERS[suffix](path)
    return _full(Table(str(path), found.columns, found.rows))


def _full(table: Table) -> Table:
    if not table.rows:
        raise DataError(f"{table.file} is empty; give a file with at least one row")
    return table


def _folder(path: Path) -> Table:
    """A data set's split: its files one after the other."""
    try:
        inside = sorted(path.iterdir())
    except OSError as error:
        raise unreadable(path, error) from error
    for suffix in (".arrow", *(each for each in TABLES if each != ".json")):  # .json: notes that data sets come with
        parts = [each for each in inside if each.suffix.lower() == suffix and not each.name.startswith(("cache-", "."))]
        if parts:
            break
    else:
        splits = [each.name for each in inside if each.is_dir()]
        hint = f"; name one of its folders {', '.join(splits)}" if splits else ""
        raise DataError(f"the folder {path} holds no .arrow, .csv, .jsonl, .parquet or .tsv file{hint}")
    found = [READERS[suffix](each) for each in parts]
    full = [(each, columns) for each, columns in zip(parts, found, strict=True) if columns.rows]
    return _joined(path, full)


def _joined(path: Path, parts: Sequence[tuple[Path, Columns]]) -> Table:
    if len(parts) == 1:
        return Table(str(path), parts[0][1].columns, parts[0][1].rows)
    names = list(parts[0][1].columns) if parts else []
    for each, found in parts:
        if set(found.columns) != set(names):
            raise DataError(f"{each} has other columns than {parts[0][0].name}; give files of one data set")
    columns = {name: [value for _, found in parts for value in found.columns[name]] for name in names}
    return Table(str(path), columns, [f"{each.name} {row}" for each, found in parts for row in found.rows])
