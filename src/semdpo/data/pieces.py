"""A user's table in pieces of some thousand rows, so that a large one is never in memory as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from semdpo.data.arrow_files import Columns, parquet_pieces, parquet_rows
from semdpo.data.readers import from_records, jsonl_records, refuse_sparse
from semdpo.data.tables import HUB, Table, data_files, is_folder, not_empty, read_table, resolve
from semdpo.errors import DataError

SIZE = 4096  # rows of a piece


@dataclass(frozen=True)
class Pieces:
    """A table in pieces; each time that one goes over them, the file is read again.

    Attributes:
        rows: the number of rows of all pieces.
    """

    rows: int
    _read: Callable[[], Iterator[Table]]

    def __iter__(self) -> Iterator[Table]:
        """Each piece, with all columns of the table.

        Raises:
            DataError: a row cannot be read; the message names it.
        """
        return self._read()


def read_pieces(name: str, *, whole: bool = False) -> Pieces:
    """A table in pieces, where its format allows it: jsonl and parquet files, and folders of parquet files.

    Args:
        name: as for ``read_table``.
        whole: whether the table is to be one piece in any case; so are tables of other formats.

    Raises:
        DataError: as ``read_table`` raises it.
    """
    if not whole and not name.startswith(HUB):
        if is_folder(name):
            suffix, files = data_files(Path(name))
            full = [(file, rows) for file in files if suffix == ".parquet" and (rows := parquet_rows(file))]
            if full:
                return Pieces(sum(rows for _, rows in full), lambda: _of_folder(Path(name), [file for file, _ in full]))
        elif (path := resolve(name)).suffix.lower() == ".jsonl":
            return _of_jsonl(path)
        elif path.suffix.lower() == ".parquet" and (rows := parquet_rows(path)):
            return Pieces(rows, lambda: (Table(str(path), c.columns, c.rows) for c in parquet_pieces(path, SIZE)))
    table = read_table(name)
    return Pieces(len(table.rows), lambda: iter([table]))


def _of_jsonl(path: Path) -> Pieces:
    names: dict[str, None] = {}
    rows = filled = 0
    for rows, (_, record) in enumerate(jsonl_records(path), start=1):  # noqa: B007 - the last number counts them
        names |= dict.fromkeys(record)
        filled += len(record)
    refuse_sparse(path, len(names), rows, filled)

    def read() -> Iterator[Table]:
        records = jsonl_records(path)
        while part := list(islice(records, SIZE)):
            content = from_records([record for _, record in part], [row for row, _ in part], path, names)
            yield Table(str(path), content.columns, content.rows)

    if not rows:
        not_empty(Table(str(path), {}, []))
    return Pieces(rows, read)


def _of_folder(path: Path, files: Sequence[Path]) -> Iterator[Table]:
    """Small files are joined to pieces, and large ones are split."""
    names: list[str] = []
    waiting: list[Columns] = []
    for file in files:
        for content in parquet_pieces(file, SIZE):
            names = names or list(content.columns)
            if set(content.columns) != set(names):
                raise DataError(f"{file} has other columns than {files[0].name}; give files of one data set")
            rows = content.rows if len(files) == 1 else [f"{file.name} {row}" for row in content.rows]
            waiting.append(Columns(content.columns, rows))
            if sum(len(part.rows) for part in waiting) >= SIZE:
                yield _joined(path, names, waiting)
                waiting = []
    if waiting:
        yield _joined(path, names, waiting)


def _joined(path: Path, names: Sequence[str], parts: Sequence[Columns]) -> Table:
    if len(parts) == 1:
        return Table(str(path), parts[0].columns, parts[0].rows)
    columns = {name: [value for part in parts for value in part.columns[name]] for name in names}
    return Table(str(path), columns, [row for part in parts for row in part.rows])
