"""A run's folder: shards are written whole or not at all, and the manifest is written last.

A stage's folder holds ``started.json`` (what it was started with), ``part-NNNNN.parquet``, ``timing.json`` and, once
complete, ``manifest.json``. Until then ``made/part-NNNNN.json`` notes the hash of each shard, so that a shard costs the
same however many there are. All files but ``timing.json`` depend on the recipe and its inputs only, so that two runs of
one recipe have equal files. ``shard_files.py`` writes the stages whose result is rows,
``model_folders.py`` those whose result is a model.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from semdpo import disk, locks
from semdpo.engine import fingerprint
from semdpo.engine.parquet import read_file, shard_names
from semdpo.errors import StoreError

T = TypeVar("T")
LIBRARIES = ("semdpo", "torch", "transformers", "diffusers", "numpy", "pyarrow")
NOT_LISTED = ("manifest.json", "started.json")  # these list a stage's files, and are not listed themselves
SEAL = "sha256"  # a manifest's key for the hash of all the rest of it
TIMING = "timing.json"
NOTES = "made"  # the folder of the notes about an unfinished stage's shards


@dataclass(frozen=True)
class Plan:
    """What determines a stage's files.

    Attributes:
        config: the stage's settings, as JSON values.
        inputs: name → hash of everything that the stage reads: other stages' manifests, files, models' folders.
    """

    config: Mapping[str, Any]
    inputs: Mapping[str, str]


# ------------------------------------------------------------------------------------------------- the lock

_IN_USE = "{} is in use by {}; wait until it ends, or choose another folder with --out"


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Locks a run's folder for this process, and makes the folder if it does not exist.

    Half-written files of killed processes are removed from it.

    Args:
        run: the run's folder.

    Raises:
        StoreError: another process has locked it (the message gives its id), or the folder cannot be written.
    """
    with locks.hold(run / ".lock", _IN_USE.format(run, "{}")):
        disk.remove_half_written(run)
        yield


@contextmanager
def shared(run: Path) -> Iterator[None]:
    """Locks a run's folder for all processes that share its work, against one that would have it alone.

    Args:
        run: the run's folder, which is made if it does not exist.

    Raises:
        StoreError: a process has it alone, or the folder cannot be written.
    """
    with locks.share(run / ".lock", _IN_USE.format(run, "{}")):
        yield


# ------------------------------------------------------------------------------------------------- manifests


def canonical(value: Any) -> bytes:
    """JSON in which equal values have equal bytes."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def digest(data: bytes) -> str:
    """The SHA-256 of some bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


@cache  # a call takes 15 milliseconds, and every stage makes one at its start and one at its end
def versions() -> Mapping[str, str]:
    """The versions of the libraries that results depend on; those that are not installed are left out."""
    installed = {}
    for name in LIBRARIES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file that semdpo wrote; empty when the file does not exist.

    Raises:
        StoreError: the file is damaged.
    """
    try:
        content = json.loads(disk.read(path).decode())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError, OSError) as error:
        raise _damaged(path) from error
    if not isinstance(content, dict):
        raise _damaged(path)
    return content


def _damaged(path: Path) -> StoreError:
    """The error for a file that semdpo wrote and that has changed since."""
    return StoreError(f"{path} is damaged; remove the folder {path.parent} and run again")


def manifest(folder: Path) -> dict[str, Any]:
    """What a finished stage was made from and what it holds: config, inputs, versions, counts, files.

    Raises:
        StoreError: the manifest is missing or damaged.
    """
    path = folder / "manifest.json"
    content = _read_description(path, {"config": dict, "inputs": dict, "versions": dict, **_RESULT})
    if content.pop(SEAL, None) != digest(canonical(content)):
        raise _damaged(path)
    return content


_RESULT = {"counts": dict, "files": dict}


def _read_description(path: Path, required: Mapping[str, type]) -> dict[str, Any]:
    content = read_json(path)
    if not all(isinstance(content.get(name), kind) for name, kind in required.items()):
        raise _damaged(path)
    if not all(isinstance(count, int) for count in content.get("counts", {}).values()):
        raise _damaged(path)
    return content


def is_complete(folder: Path) -> bool:
    """Whether a stage has finished."""
    return (folder / "manifest.json").is_file()


def manifest_hash(folder: Path) -> str:
    """The hash of a finished stage, which the stages that read it note: that of its manifest.

    The manifest holds the hash of every file. Where a file has changed since (somebody trained the model again, or
    edited rows), the hash covers the files as they are now.
    """
    written = (folder / "manifest.json").read_bytes()
    now = files_of(folder)
    try:
        unchanged = now == manifest(folder)["files"]
    except StoreError:  # a damaged manifest, which ``mismatch`` reports
        unchanged = False
    return digest(written) if unchanged else digest(written + canonical(now))


def files_of(folder: Path) -> dict[str, str]:
    """Name → SHA-256 of the files that a stage's folder holds now, without the manifest."""
    files = fingerprint.files(folder, skipped=[f"{NOTES}/part-*.json"])  # a process that was killed may leave the notes
    return {name: sha for name, sha in files.items() if name not in NOT_LISTED}


def _damage(folder: Path) -> str | None:
    """Which file of a finished stage differs from its manifest, as the end of a sentence; None when none does.

    Raises:
        StoreError: the manifest itself is damaged.
    """
    made, now = manifest(folder)["files"], files_of(folder)
    for name in sorted(made.keys() | now.keys()):
        if name not in now:
            return f"lacks {name}"
        if name not in made:
            return f"holds {name}, which does not belong to it"
        if made[name] != now[name]:
            return f"holds a damaged or edited {name} (its SHA-256 is not the one in manifest.json)"
    return None


def counts(folder: Path) -> dict[str, int]:
    """What a finished stage counted, ``rows`` among them; empty when the stage is not finished."""
    return dict(manifest(folder)["counts"]) if is_complete(folder) else {}


def library_versions(folder: Path) -> dict[str, str]:
    """The versions of the libraries that a stage was made with; empty when the stage is not finished."""
    return dict(manifest(folder)["versions"]) if is_complete(folder) else {}


# ------------------------------------------------------------------------------------------------- changes


def _flattened(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat |= _flattened(inner, f"{prefix}{name}.") if isinstance(inner, Mapping) else {f"{prefix}{name}": inner}
    return flat


def _first_change(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first key whose value differs, with both values; ``…`` stands for a missing value."""
    old, new = _flattened(before), _flattened(now)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key, "…") != new.get(key, "…"):
            return key, old.get(key, "…"), new.get(key, "…")
    return None


def mismatch(folder: Path, plan: Plan) -> str | None:
    """Why a stage's files were not made by a plan, as the end of a sentence; None when they were, or do not exist.

    Args:
        folder: the stage's folder.
        plan: what the stage is to be made from now; inputs that it does not name are not compared.
    """
    done = is_complete(folder)
    try:
        made = manifest(folder) if done else _started(folder)
        damage = _damage(folder) if done else None
    except StoreError as error:
        return f"cannot be read ({error})"
    if not made:
        return None
    if change := _first_change(made["config"], json.loads(canonical(plan.config))):
        key, old, new = change
        return f"was made with {key} = {_shown(old)}, which is now {_shown(new)}"
    before = {name: made["inputs"].get(name) for name in plan.inputs}
    if change := _first_change(before, plan.inputs):
        return f"was made from a different version of {change[0]}"
    if not done and (change := _first_change(made["versions"], versions())):
        return f"was started with {change[0]} {change[1]}, and {change[2]} is installed now"
    return damage


def _started(folder: Path) -> dict[str, Any]:
    """What an unfinished stage was started with; empty when it was not started."""
    path = folder / "started.json"
    return _read_description(path, {"config": dict, "inputs": dict, "versions": dict}) if path.is_file() else {}


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# ------------------------------------------------------------------------------------------------- what they hold


def description(plan: Plan) -> bytes:
    """A plan and the libraries' versions, as the bytes of ``started.json``."""
    return canonical(_described(plan))


def manifest_of(plan: Plan, counts: Mapping[str, int], files: Mapping[str, str], threads: int) -> bytes:
    """The bytes of a manifest, with the SHA-256 of the rest in it, so that no change of it goes unnoticed.

    Args:
        plan: what the stage was started with.
        counts: what the stage counted.
        files: name → SHA-256 of its files.
        threads: how many threads made them.
    """
    content = {**_described(plan), "counts": dict(counts), "files": dict(files), "threads": threads}
    return canonical({**content, SEAL: digest(canonical(content))})


def _described(plan: Plan) -> dict[str, Any]:
    return {"config": plan.config, "inputs": plan.inputs, "versions": versions()}


def read_rows(folder: Path, kind: type[T], unread: Mapping[str, Any] | None = None) -> list[T]:
    """The records of a finished stage, in order; ``Shards`` reads them one shard at a time.

    Args:
        folder: the stage's folder.
        kind: the records' class.
        unread: columns to leave on disk, and the value that every record gets in their place.

    Raises:
        StoreError: a file has changed since it was written, or is missing.
    """
    refuse_damaged_stage(folder)
    return [
        row for name in shard_names(manifest(folder)["files"]) for row in read_file(folder / name, kind, unread=unread)
    ]


def refuse_damaged_stage(folder: Path) -> None:
    """Refuses a finished stage whose files differ from its manifest.

    Raises:
        StoreError: a file differs; the message names it.
    """
    if damage := _damage(folder):
        raise StoreError(f"{folder} {damage}; run again with --fresh to make it and all that depends on it again")


def thread_count() -> int:
    """How many threads torch uses for one operation; 1 when torch is not loaded.

    The order in which torch adds numbers depends on it, and so do a result's last digits.
    """
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch is not None else 1
