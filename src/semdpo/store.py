"""A run's folder: shards written whole or not at all, a manifest written last, one process at a time.

A stage's folder holds ``started.json`` (what it was begun with), ``part-NNNNN.parquet``, ``timing.json`` and, once
complete, ``manifest.json``. Everything but the timing depends on the recipe and its inputs only, so that two runs of
one recipe have equal files.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from semdpo import fingerprint
from semdpo.errors import StoreError
from semdpo.files import unwritable, write_bytes

Row = TypeVar("Row")
Note = TypeVar("Note", int, str)
LIBRARIES = ("semdpo", "torch", "transformers", "diffusers", "numpy", "pyarrow")
COUNTS = b"semdpo.counts"
CURVES = "curves.parquet"  # in a trained model's folder
KEPT_BESIDE = ("manifest.json", "started.json")  # what tells of a stage's files, and is none of them


@dataclass(frozen=True)
class Plan:
    """What determines a stage's files.

    Attributes:
        config: the stage's configuration, as JSON values.
        inputs: name to hash of everything that is read: other stages' manifests, files, models' folders.
    """

    config: Mapping[str, Any]
    inputs: Mapping[str, str]


# ------------------------------------------------------------------------------------------------- the lock


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Holds a run's folder for this process; the folder is made when it is not there.

    Raises:
        StoreError: another process holds it (its number is named), or the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    holder = run / ".lock.pid"
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock = FileLock(run / ".lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        pid = holder.read_text().strip() if holder.is_file() else "unknown"
        raise StoreError(
            f"{run} is in use by process {pid}; wait until it ends, or choose another folder with --out"
        ) from error
    except OSError as error:
        raise unwritable(run, error) from error
    try:
        write_bytes(holder, f"{os.getpid()}\n".encode())
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


# ------------------------------------------------------------------------------------------------- manifests


def canonical(value: Any) -> bytes:
    """JSON with one spelling for one value."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def digest(data: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def versions() -> dict[str, str]:
    """The versions of the libraries that results depend on; those that are not installed are left out."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of ours; empty when the file is not there.

    Raises:
        StoreError: somebody damaged it.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no object")
        return found
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError, OSError) as error:
        raise StoreError(f"{path} is damaged; remove the folder {path.parent} and run again") from error


def is_complete(folder: Path) -> bool:
    """Whether a stage has finished."""
    return (folder / "manifest.json").is_file()


def manifest_hash(folder: Path) -> str:
    """The hash that stages further down are tied to: of the manifest, which has the hash of every file.

    Where a file is no longer what the manifest says (somebody trained the model again, or edited rows), it is the hash
    of what is there now.
    """
    written = (folder / "manifest.json").read_bytes()
    made = read_json(folder / "manifest.json").get("files", {})
    now = {name: found for name, found in fingerprint.files(folder).items() if name not in KEPT_BESIDE}
    return digest(written) if now == made else digest(written + canonical(now))


def row_counts(folder: Path) -> dict[str, int]:
    """What a finished stage counted; ``rows`` is always there."""
    return _noted(folder, "counts", int)


def _noted(folder: Path, name: str, kind: type[Note]) -> dict[str, Note]:
    """A part of a manifest, whose values are all of one kind.

    Raises:
        StoreError: it is something else.
    """
    found = read_json(folder / "manifest.json").get(name, {})
    if not isinstance(found, dict) or not all(isinstance(each, kind) for each in found.values()):
        raise StoreError(f"{folder / 'manifest.json'} is damaged; remove the folder {folder} and run again")
    return found


def made_with(folder: Path) -> dict[str, str]:
    """The versions of the libraries that were installed when a finished stage ended."""
    return _noted(folder, "versions", str)


# ------------------------------------------------------------------------------------------------- agreement


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    found: dict[str, Any] = {}
    for name, inner in value.items():
        found |= flat(inner, f"{prefix}{name}.") if isinstance(inner, Mapping) else {f"{prefix}{name}": inner}
    return found


def first_change(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first key whose value differs, with both values; ``…`` stands for an absent one."""
    old, new = flat(before), flat(now)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key, "…") != new.get(key, "…"):
            return key, old.get(key, "…"), new.get(key, "…")
    return None


def disagreement(folder: Path, plan: Plan) -> str | None:
    """Why a folder's content does not belong to a plan; None when it does, or when there is none.

    Args:
        folder: of a stage.
        plan: what the stage is to be made from now; inputs that it does not name are not compared.
    """
    done = is_complete(folder)
    made = _made(folder / ("manifest.json" if done else "started.json"))
    if not made:
        return None
    if change := first_change(made["config"], json.loads(canonical(plan.config))):
        key, old, new = change
        return f"was made with {key} = {_shown(old)}, which is now {_shown(new)}"
    known = {name: made["inputs"].get(name) for name in plan.inputs}
    if change := first_change(known, plan.inputs):
        return f"was made from another {change[0]}"
    if not done and (change := first_change(made["versions"], versions())):
        return f"was begun with {change[0]} {change[1]}, and {change[2]} is installed now"
    return None


def _made(path: Path) -> dict[str, Any]:
    """What a stage was made with; empty when the file is not there.

    Raises:
        StoreError: the file is whole JSON, and none of ours.
    """
    made = read_json(path)
    parts = (made.get(name) for name in ("config", "inputs", "versions"))
    if path.is_file() and not all(isinstance(each, dict) for each in parts):
        raise StoreError(f"{path} is damaged; remove the folder {path.parent} and run again")
    return made


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# ------------------------------------------------------------------------------------------------- shards


def start(folder: Path, plan: Plan) -> None:
    """Opens a stage's folder for work: notes the plan, and sweeps what a killed process left half-written."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink()
    if not (folder / "started.json").is_file():
        write_bytes(folder / "started.json", _description(plan))


def _description(plan: Plan, **more: Any) -> bytes:
    return canonical({"config": plan.config, "inputs": plan.inputs, "versions": versions(), **more})


def shard_path(folder: Path, index: int) -> Path:
    """Where shard ``index`` lies."""
    return folder / f"part-{index:05d}.parquet"


def encode(kind: type[Row], rows: Sequence[Row], counts: Mapping[str, int]) -> bytes:
    """Records as the bytes of a parquet file; equal rows give equal bytes.

    Args:
        kind: the record's class, which gives the columns and their types.
        rows: its records; a field of type ``dict[str, float]`` becomes a column for each key.
        counts: what was counted on the way, kept in the file's metadata.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns, wide = _columns(kind)
    arrays = {name: pa.array([getattr(row, name) for row in rows], type=each) for name, each in columns.items()}
    if wide:
        keys = list(getattr(rows[0], wide)) if rows else []
        arrays |= {key: pa.array([getattr(row, wide)[key] for row in rows], pa.float64()) for key in keys}
    table = pa.table(arrays).replace_schema_metadata({COUNTS: canonical(dict(counts))})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", compression_level=3, version="2.6", data_page_version="1.0")
    return bytes(sink.getvalue().to_pybytes())


def read_file(path: Path, kind: type[Row]) -> list[Row]:
    """The records of one file.

    Raises:
        StoreError: the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{path} is damaged; remove it and manifest.json beside it, and run again") from error
    columns, wide = _columns(kind)
    rows = table.to_pylist()
    if wide:
        keys = [name for name in table.column_names if name not in columns]
        rows = [{**{n: row[n] for n in columns}, wide: {k: row[k] for k in keys}} for row in rows]
    return [kind(**row) for row in rows]


def write_shard(folder: Path, index: int, data: bytes) -> None:
    """Writes an encoded shard, whole or not at all.

    Raises:
        StoreError: no space is left, or the folder cannot be written.
    """
    write_bytes(shard_path(folder, index), data)


def read_rows(folder: Path, kind: type[Row]) -> list[Row]:
    """The records of a finished stage, in order."""
    return [row for path in sorted(folder.glob("part-*.parquet")) for row in read_file(path, kind)]


def finish(folder: Path, plan: Plan, shards: int) -> None:
    """Writes the manifest, last: the stage is complete."""
    import pyarrow.parquet as pq

    counts: dict[str, int] = {"rows": 0}
    hashes = {}
    for path in (shard_path(folder, index) for index in range(shards)):
        metadata = pq.read_metadata(path)
        counts["rows"] += metadata.num_rows
        for name, value in json.loads(metadata.metadata[COUNTS]).items():
            counts[name] = counts.get(name, 0) + value
        hashes[path.name] = fingerprint.file(path)
    write_bytes(folder / "manifest.json", _description(plan, counts=counts, files=hashes))


def _columns(kind: type[Any]) -> tuple[dict[str, Any], str | None]:
    """Column types of a record, and the name of its field that is spread over columns."""
    import pyarrow as pa

    known = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), bytes: pa.binary()}
    hints = typing.get_type_hints(kind)
    columns, wide = {}, None
    for name in (field.name for field in fields(kind)):
        hint = hints[name]
        if typing.get_origin(hint) is types.UnionType:
            hint = next(a for a in typing.get_args(hint) if a is not type(None))
        if typing.get_origin(hint) is dict:
            wide = name
        else:
            columns[name] = known[hint]
    return columns, wide


# ------------------------------------------------------------------------------------------------- models' folders


def partial(folder: Path) -> Path:
    """Where a model lies while it is being trained."""
    return folder.with_name(folder.name + ".partial")


def is_first_process() -> bool:
    """Whether this is the one of several processes (of accelerate, torchrun) that writes files and speaks."""
    return os.environ.get("RANK", "0") == "0"


def start_model(folder: Path) -> Path:
    """An empty folder to train into; checkpoints beside it stay."""
    work = partial(folder)
    for path in (folder, work):
        _remove_folder(path)
    for leftover in folder.parent.glob(f".{work.name}-*"):  # where the trainer was killed before its rename
        shutil.rmtree(leftover)
    try:
        work.mkdir(parents=True)
    except OSError as error:
        raise unwritable(work, error) from error
    return work


def finish_model(folder: Path, plan: Plan, counts: Mapping[str, int]) -> None:
    """Writes the manifest of a trained model and gives its folder the final name."""
    work = partial(folder)
    counted = _description(plan, counts=dict(counts), files=fingerprint.files(work))
    write_bytes(work / "manifest.json", counted)
    work.replace(folder)


def remove(folder: Path) -> None:
    """Removes a stage's files, finished or not, and a training's checkpoints."""
    for path in (folder, *folder.parent.glob(f"{partial(folder).name}*")):
        _remove_folder(path)


def _remove_folder(path: Path) -> None:
    """The manifest goes first, so that no half is taken for a whole."""
    if path.is_dir():
        (path / "manifest.json").unlink(missing_ok=True)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
