"""Reads and writes a user's own files: prompts, rewrites and preference pairs as txt, jsonl, csv or parquet."""

from __future__ import annotations

import csv
import errno
import io
import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from semdpo.errors import DataError, StoreError, did_you_mean
from semdpo.records import Pair, content_id

DATA = Path(__file__).parent / "world" / "data"
TABLES = (".csv", ".jsonl", ".parquet")
NUMBERS = (
    *("chosen_score", "rejected_score", "distance", "rejected_distance"),
    *("weight", "chosen_fidelity", "rejected_fidelity"),
)
NO_SPACE = "there is no space left to write {}; free some, then run the same command again"

log = logging.getLogger("semdpo")


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
        raise DataError(f"{self.file} has no column '{name}', only {', '.join(map(repr, self.columns))}{cure}")

    def texts(self, name: str, advice: str = "") -> list[str]:
        """A column of texts, none of them empty.

        Raises:
            DataError: there is no such column, or a row is no text or an empty one; the row is named.
        """
        values = self.column(name, advice)
        for row, value in zip(self.rows, values, strict=True):
            if not isinstance(value, str):
                raise DataError(f"{self.file}, {row}: '{name}' must be text, not {_kind(value)}; correct it")
            if not value.strip():
                raise DataError(f"{self.file}, {row}: '{name}' is empty; fill it or remove the row")
        return list(values)

    def numbers(self, name: str) -> list[float | None]:
        """A column of finite numbers, None where a row has none; all None when there is no such column.

        Raises:
            DataError: a value is no number, or not finite; the row is named.
        """
        found: list[float | None] = []
        for row, value in zip(self.rows, self.columns.get(name, [None] * len(self.rows)), strict=True):
            found.append(_number(value, f"{self.file}, {row}: '{name}'"))
        return found


def _kind(value: Any) -> str:
    return "missing" if value is None else type(value).__name__


def _number(value: Any, place: str) -> float | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise DataError(f"{place} must be a number, not {_kind(value)}; correct it")
    try:
        number = float(value)
    except ValueError as error:
        raise DataError(f"{place} must be a number, not {value!r}; correct it") from error
    if not math.isfinite(number):
        raise DataError(f"{place} is {value}; remove the row or compute the value again")
    return number


# ------------------------------------------------------------------------------------------------- reading


def resolve(name: str) -> Path:
    """The file of a name: ``tiny:FILE`` is the embedded world's, anything else a path.

    Raises:
        DataError: there is no such file, or it is a folder.
    """
    if name.startswith("tiny:"):
        path = DATA / name.removeprefix("tiny:")
        if not path.is_file():
            known = [p.name for p in DATA.glob("*.jsonl")]
            raise DataError(f"the embedded world has no file '{path.name}'{did_you_mean(path.name, known)}")
        return path
    path = Path(name)
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file in it")
    if not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""
        hint = near if "did you mean" in near else "; check the path"
        raise DataError(f"there is no file {path}{hint}")
    return path


def read_table(name: str | Path) -> Table:
    """All columns of a jsonl, csv or parquet file, or of a data set's folder (of such files, or of ``save_to_disk``).

    Raises:
        DataError: missing, empty, of another suffix, not UTF-8, or not of the form that its suffix says; or the
            folder's files have different columns.
    """
    if Path(name).is_dir():
        return _folder(Path(name))
    path = resolve(str(name))
    readers: dict[str, Callable[[Path], Table]] = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
    if path.suffix not in readers:
        raise DataError(f"{path} must be a table; convert it to one of {', '.join(TABLES)}")
    table = readers[path.suffix](path)
    if not table.rows:
        raise DataError(f"{path} is empty; give a file with at least one row")
    return table


def _folder(path: Path) -> Table:
    """A data set's split: its files one after the other."""
    for suffix in (".arrow", *TABLES):
        parts = [each for each in sorted(path.glob(f"*{suffix}")) if not each.name.startswith("cache-")]
        if parts:
            break
    else:
        splits = [each.name for each in sorted(path.iterdir()) if each.is_dir()]
        hint = f"; name one of its folders {', '.join(splits)}" if splits else ""
        raise DataError(f"the folder {path} holds no .arrow, .csv, .jsonl or .parquet file{hint}")
    tables = [_arrow(each) if suffix == ".arrow" else read_table(each) for each in parts]
    names = list(tables[0].columns)
    for each, table in zip(parts, tables, strict=True):
        if set(table.columns) != set(names):
            raise DataError(f"{each} has other columns than {parts[0].name}; give files of one data set")
    columns = {name: [value for table in tables for value in table.columns[name]] for name in names}
    rows = [f"{each.name} {row}" for each, table in zip(parts, tables, strict=True) for row in table.rows]
    return Table(str(path), columns, rows)


def _arrow(path: Path) -> Table:
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            columns = pa.ipc.open_stream(source).read_all().to_pydict()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not an arrow stream; save the data set again") from error
    return Table(str(path), columns, [f"row {i}" for i in range(1, len(next(iter(columns.values()), [])) + 1)])


def read_prompts(name: str | Path, column: str = "prompt") -> list[str]:
    """The prompts of a file; exact duplicates are dropped, the first kept, and their number logged.

    Args:
        name: txt (one a line), jsonl, csv or parquet, or ``tiny:FILE``.
        column: where the prompts are; not used for txt.

    Raises:
        DataError: see ``read_table``; or a prompt is empty or no text.
    """
    path = resolve(str(name))
    if path.suffix == ".txt":
        lines = _text(path).removesuffix("\n").split("\n")
        if lines == [""]:
            raise DataError(f"{path} is empty; write one prompt on each line")
        lines = [line.removesuffix("\r") for line in lines]
        table = Table(str(path), {column: lines}, [f"line {i}" for i in range(1, len(lines) + 1)])
    elif path.suffix in TABLES:
        table = read_table(name)
    else:
        raise DataError(f"{path} has an unknown suffix; prompts come as .txt, .jsonl, .csv or .parquet")
    prompts = table.texts(column, "; name one of them with prompts.column")
    distinct = list(dict.fromkeys(prompts))
    if len(distinct) < len(prompts):
        log.warning("%s: dropped %d exact duplicates of prompts", path, len(prompts) - len(distinct))
    return distinct


def read_rewrites(name: str | Path) -> list[tuple[str, str]]:
    """Pairs (prompt, rewrite) to fine-tune on.

    Raises:
        DataError: see ``read_table``; or a column is missing, or a row is empty or no text.
    """
    table = read_table(name)
    return list(zip(table.texts("prompt"), table.texts("rewrite"), strict=True))


def read_pairs(name: str | Path) -> list[Pair]:
    """Preference pairs: columns prompt, chosen, rejected; scores and distances are kept when there are any.

    Raises:
        DataError: see ``read_table``; or a column is missing, a text empty, a number not finite, or a pair
            whose two sides are equal.
    """
    return pairs_of(read_table(name))


def pairs_of(table: Table) -> list[Pair]:
    """The pairs of a table that was read; see ``read_pairs``."""
    table = _spoken(table)
    texts = [table.texts(name) for name in ("prompt", "chosen", "rejected")]
    numbers = [table.numbers(name) for name in NUMBERS]
    truncated = [_flag(value) for value in table.columns.get("truncated", [None] * len(table.rows))]
    pairs = []
    for row, (prompt, chosen, rejected), values, flag in zip(
        table.rows, zip(*texts, strict=True), zip(*numbers, strict=True), truncated, strict=True
    ):
        if chosen == rejected:
            raise DataError(f"{table.file}, {row}: chosen and rejected are the same text; remove the row")
        identity = content_id(prompt, chosen, rejected)
        pairs.append(
            Pair(identity, prompt, chosen, rejected, **dict(zip(NUMBERS, values, strict=True)), truncated=flag)
        )
    return pairs


def _spoken(table: Table) -> Table:
    """Conversational columns, as TRL takes them, as texts: one user's message, answered twice.

    Raises:
        DataError: a conversation has another form; the row is named.
    """
    columns = dict(table.columns)
    if not any(
        isinstance(values[0], list) for name, values in columns.items() if name in ("prompt", "chosen") and values
    ):
        return table
    if "prompt" not in columns:  # TRL's implicit prompt: both conversations begin with it
        columns["prompt"] = [row[:-1] if isinstance(row, list) else row for row in columns["chosen"]]
        for name in ("chosen", "rejected"):
            columns[name] = [row[-1:] if isinstance(row, list) else row for row in columns[name]]
    for name, role in (("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant")):
        said = zip(table.rows, columns.get(name, []), strict=False)
        columns[name] = [_message(value, role, f"{table.file}, {row}: {name}") for row, value in said]
    return Table(table.file, columns, table.rows)


def _message(value: Any, role: str, place: str) -> Any:
    if not isinstance(value, list):
        return value
    if len(value) != 1 or not isinstance(value[0], dict) or value[0].get("role") != role:
        raise DataError(
            f"{place} must be one message of the {role}; a rewriter reads one prompt and gives one rewrite, so put "
            "anything else into --template"
        )
    return value[0].get("content")


def _flag(value: Any) -> bool | None:
    named = {"true": True, "false": False}
    return value if isinstance(value, bool) else named.get(str(value).lower())


def _text(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path} is not UTF-8 (byte {error.start}, line {line}); save it as UTF-8") from error


def _not_finite(name: str) -> float:
    raise ValueError(f"{name} is not a number that can be used")


def _jsonl(path: Path) -> Table:
    records: list[dict[str, Any]] = []
    rows: list[str] = []
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, parse_constant=_not_finite)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: this is not JSON ({error}); correct it") from error
        if not isinstance(record, dict):
            raise DataError(f'{path}, line {number}: a line must be a JSON object such as {{"prompt": "a cat"}}')
        records.append(record)
        rows.append(f"line {number}")
    names = dict.fromkeys(name for record in records for name in record)
    return Table(str(path), {name: [record.get(name) for record in records] for name in names}, rows)


def _csv(path: Path) -> Table:
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        names = next(reader, [])
        records, rows = [], []
        for record in reader:
            if not record:
                continue
            if len(record) != len(names):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(record)} values for {len(names)} columns; "
                    "quote values that contain commas"
                )
            records.append(record)
            rows.append(f"line {reader.line_num}")
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: this is not CSV ({error}); correct it") from error
    if len(set(names)) != len(names):
        raise DataError(f"{path} has two columns of one name; rename one")
    return Table(str(path), {name: [record[i] for record in records] for i, name in enumerate(names)}, rows)


def _parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty; give a file with at least one row")
    try:
        columns = pq.ParquetFile(path).read().to_pydict()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a parquet file; write it again or name it by what it is") from error
    length = len(next(iter(columns.values()), []))
    return Table(str(path), columns, [f"row {i}" for i in range(1, length + 1)])


# ------------------------------------------------------------------------------------------------- writing


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file to a temporary name and renames it: under its own name it is whole or not there.

    Raises:
        StoreError: no space is left, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True) if path.parent.is_dir() else None
        raise unwritable(path, error) from error


def unwritable(path: Path, error: Exception) -> StoreError:
    """The error for a file or folder that could not be written."""
    if out_of_space(error):
        return StoreError(NO_SPACE.format(path))
    reason = getattr(error, "strerror", None) or str(error)
    return StoreError(f"{path} cannot be written ({reason}); choose another place or mend its permissions")


def out_of_space(error: Exception) -> bool:
    """Whether the disk, a quota or a size limit is exhausted (safetensors says so in words only)."""
    full = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    said = any(f"code: {number}," in str(error) for number in full) or "No space left" in str(error)
    return getattr(error, "errno", None) in full or said


def check_suffix(path: Path) -> None:
    """Refuses an output file that is no table.

    Raises:
        DataError: the suffix is not one of csv, jsonl, parquet.
    """
    if path.suffix not in TABLES:
        raise DataError(f"cannot write {path}: name it with one of {', '.join(TABLES)}")


def write_pairs(path: Path, pairs: Sequence[Pair], extra: Mapping[str, Sequence[Any]] | None = None) -> None:
    """Writes pairs as csv, jsonl or parquet, by the suffix.

    Args:
        path: where to.
        pairs: what.
        extra: a user's other columns, to be kept beside ours; of the length of ``pairs``.

    Raises:
        DataError: unknown suffix, or an extra column that parquet cannot hold.
        StoreError: no space is left, or the folder cannot be written.
    """
    check_suffix(path)
    names = [field.name for field in fields(Pair)]
    columns: dict[str, Sequence[Any]] = {name: [getattr(pair, name) for pair in pairs] for name in names}
    columns |= {name: values for name, values in (extra or {}).items() if name not in columns}
    writers = {".csv": _csv_bytes, ".jsonl": _jsonl_bytes, ".parquet": _parquet_bytes}
    write_bytes(path, writers[path.suffix](columns))


def _csv_bytes(columns: Mapping[str, Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue().encode()


def _jsonl_bytes(columns: Mapping[str, Sequence[Any]]) -> bytes:
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _parquet_bytes(columns: Mapping[str, Sequence[Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    floats, flags = {name: pa.float64() for name in NUMBERS}, {"truncated": pa.bool_()}
    types = floats | flags
    arrays = {}
    for name, values in columns.items():
        try:
            arrays[name] = pa.array(list(values), types.get(name))
        except (pa.ArrowException, TypeError) as error:
            raise DataError(f"column '{name}' mixes types, which parquet cannot hold; write a .jsonl") from error
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays), sink, compression="zstd")
    return bytes(sink.getvalue())
