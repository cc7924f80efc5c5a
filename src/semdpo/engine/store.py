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
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from semdpo import disk
from semdpo.disk import write_bytes
from semdpo.engine import fingerprint, parquet
from semdpo.engine.parquet import read_file
from semdpo.errors import StoreError

T = TypeVar("T")
LIBRARIES = ("semdpo", "torch", "transformers", "diffusers", "numpy", "pyarrow")
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
    with disk.held(
        run / ".lock", f"{run} is in use by process {{}}; wait until it ends, or choose another folder with --out"
    ):
        disk.sweep(run)
        yield


# ------------------------------------------------------------------------------------------------- manifests


def canonical(value: Any) -> bytes:
    """JSON with one spelling for one value."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def digest(data: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


@cache  # every stage asks, at its start and its end; each question takes 15 milliseconds
def versions() -> Mapping[str, str]:
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
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError, OSError) as error:
        raise damaged(path) from error
    if not isinstance(found, dict):
        raise damaged(path)
    return found


def damaged(path: Path) -> StoreError:
    """The error for a file of ours that is not as it was written."""
    return StoreError(f"{path} is damaged; remove the folder {path.parent} and run again")


def manifest(folder: Path) -> dict[str, Any]:
    """What a finished stage was made from and holds: config, inputs, versions, counts, files.

    Raises:
        StoreError: it is not there, or somebody damaged it.
    """
    return _described(folder / "manifest.json", {"config": dict, "inputs": dict, "versions": dict, **_RESULT})


_RESULT = {"counts": dict, "files": dict}


def _described(path: Path, wanted: Mapping[str, type]) -> dict[str, Any]:
    found = read_json(path)
    if not all(isinstance(found.get(name), kind) for name, kind in wanted.items()):
        raise damaged(path)
    if not all(isinstance(count, int) for count in found.get("counts", {}).values()):
        raise damaged(path)
    return found


def is_complete(folder: Path) -> bool:
    """Whether a stage has finished."""
    return (folder / "manifest.json").is_file()


def manifest_hash(folder: Path) -> str:
    """The hash that stages further down are tied to: of the manifest, which has the hash of every file.

    Where a file is no longer what the manifest says (somebody trained the model again, or edited rows), it is the hash
    of what is there now.
    """
    written = (folder / "manifest.json").read_bytes()
    now = _files_of(folder)
    try:
        whole = now == manifest(folder)["files"]
    except StoreError:  # a damaged manifest, which ``disagreement`` tells of
        whole = False
    return digest(written) if whole else digest(written + canonical(now))


def _files_of(folder: Path) -> dict[str, str]:
    """Name to SHA-256 of what a stage's folder holds now."""
    return {name: found for name, found in fingerprint.files(folder).items() if name not in KEPT_BESIDE}


def damage(folder: Path) -> str | None:
    """Which file of a finished stage is not as its manifest says; None when all are.

    Raises:
        StoreError: the manifest itself is damaged.
    """
    made, now = manifest(folder)["files"], _files_of(folder)
    for name in sorted(made.keys() | now.keys()):
        if name not in now:
            return f"lacks {name}"
        if name not in made:
            return f"holds {name}, which is no part of it"
        if made[name] != now[name]:
            return f"holds a damaged or edited {name} (its SHA-256 is not the one in manifest.json)"
    return None


def row_counts(folder: Path) -> dict[str, int]:
    """What a finished stage counted; ``rows`` is always there."""
    return dict(manifest(folder)["counts"]) if is_complete(folder) else {}


def made_with(folder: Path) -> dict[str, str]:
    """The versions of the libraries that were installed when a finished stage ended."""
    return dict(manifest(folder)["versions"]) if is_complete(folder) else {}


def refuse_damaged(folder: Path) -> None:
    """Refuses a model's folder of ours of which a file is not as it was written; others' folders pass.

    Its card may be edited, and files may be added.

    Args:
        folder: of a trained model, in a run or of ``semdpo train``.

    Raises:
        StoreError: with the name of the file.
    """
    if not is_complete(folder) or not disk.is_ours(folder):
        return
    now = _files_of(folder)
    for name, wanted in manifest(folder)["files"].items():
        if name != "README.md" and now.get(name) != wanted:
            raise StoreError(
                f"{folder / name} is damaged, edited or missing (its SHA-256 is not the one in manifest.json); train "
                "the model again, or remove manifest.json if the change was meant"
            )


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
    try:
        made = manifest(folder) if done else _begun(folder)
        broken = damage(folder) if done else None
    except StoreError as error:
        return f"cannot be read ({error})"
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
    return broken


def _begun(folder: Path) -> dict[str, Any]:
    """What an unfinished stage was begun with; empty where none was begun."""
    path = folder / "started.json"
    return _described(path, {"config": dict, "inputs": dict, "versions": dict}) if path.is_file() else {}


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# ------------------------------------------------------------------------------------------------- shards


def start(folder: Path, plan: Plan) -> None:
    """Opens a stage's folder for work: notes the plan, and sweeps what a killed process left half-written.

    Raises:
        StoreError: something that is not ours lies there, or it cannot be written.
    """
    disk.refuse_foreign(folder)
    disk.sweep(folder)
    if not (folder / "started.json").is_file():
        write_bytes(folder / "started.json", _description(plan, files={}))


def _description(plan: Plan, **more: Any) -> bytes:
    return canonical({"config": plan.config, "inputs": plan.inputs, "versions": versions(), **more})


def shard_path(folder: Path, index: int) -> Path:
    """Where shard ``index`` lies."""
    return folder / f"part-{index:05d}.parquet"


def write_shard(folder: Path, index: int, data: bytes) -> None:
    """Writes an encoded shard, whole or not at all, and notes its hash.

    Raises:
        StoreError: no space is left, or the folder cannot be written.
    """
    path = shard_path(folder, index)
    write_bytes(path, data)
    begun = _begun(folder)
    begun["files"] = {**begun.get("files", {}), path.name: digest(data)}
    write_bytes(folder / "started.json", canonical(begun))


def has_shard(folder: Path, index: int) -> bool:
    """Whether an unfinished stage's shard is there, as it was written; otherwise it is to be made (again)."""
    path = shard_path(folder, index)
    return path.is_file() and _begun(folder).get("files", {}).get(path.name) == fingerprint.file(path)


def read_rows(folder: Path, kind: type[T], unread: Mapping[str, Any] | None = None) -> list[T]:
    """The records of a finished stage, in order; ``Shards`` reads them piece by piece.

    Args:
        folder: of the stage.
        kind: the records' class.
        unread: columns that stay on disk, and the value that every record gets in their place.

    Raises:
        StoreError: a file is not as it was written, or is missing.
    """
    refuse_damage(folder)
    return [row for name in sorted(manifest(folder)["files"]) for row in read_file(folder / name, kind, unread=unread)]


def refuse_damage(folder: Path) -> None:
    """Refuses a finished stage that is not as its manifest says.

    Raises:
        StoreError: it is not; the message names the file.
    """
    if broken := damage(folder):
        raise StoreError(f"{folder} {broken}; run again with --fresh to make it and what follows from it anew")


def finish(folder: Path, plan: Plan, shards: int) -> None:
    """Writes the manifest, last: the stage is complete."""
    counts: dict[str, int] = {"rows": 0}
    hashes = {}
    for path in (shard_path(folder, index) for index in range(shards)):
        for name, value in parquet.counts(path).items():
            counts[name] = counts.get(name, 0) + value
        hashes[path.name] = fingerprint.file(path)
    write_bytes(folder / "manifest.json", _description(plan, counts=counts, files=hashes, threads=_threads()))


# ------------------------------------------------------------------------------------------------- models' folders


def partial(folder: Path) -> Path:
    """Where a model lies while it is being trained."""
    return folder.with_name(folder.name + ".partial")


def is_first_process() -> bool:
    """Whether this is the one of several processes (of accelerate, torchrun) that writes files and speaks."""
    return os.environ.get("RANK", "0") == "0"


def start_model(folder: Path, plan: Plan) -> Path:
    """An empty folder to train into; checkpoints beside it stay.

    Raises:
        StoreError: something that is not ours lies there, or it cannot be written.
    """
    work = partial(folder)
    disk.remove(folder)
    disk.remove(work)
    _remove_leftovers(work)
    write_bytes(work / "started.json", _description(plan))
    return work


def finish_model(folder: Path, plan: Plan, counts: Mapping[str, int]) -> None:
    """Writes the manifest of a trained model and gives its folder the final name.

    Raises:
        StoreError: no space is left, or something else lies under that name.
    """
    work = partial(folder)
    described = _description(plan, counts=dict(counts), files=_files_of(work), threads=_threads())
    write_bytes(work / "manifest.json", described)
    with disk.full_disk_told(work):
        disk.sync(work)
    disk.rename(work, folder)


def remove(folder: Path) -> None:
    """Removes a stage's files, finished or not, and a training's checkpoints.

    Raises:
        StoreError: something that is not ours lies there; nothing of it is removed.
    """
    places = (folder, partial(folder), partial(folder).with_name(f"{partial(folder).name}.checkpoints"))
    for path in places:
        disk.refuse_foreign(path)
    for path in places:
        disk.remove(path)
    _remove_leftovers(partial(folder))
    note = partial(folder).with_name(f"{partial(folder).name}.seconds.json")
    if "seconds" in read_json(note):
        note.unlink()


def _remove_leftovers(work: Path) -> None:
    """Where a trainer was killed before it renamed its folder."""
    for each in work.parent.iterdir() if work.parent.is_dir() else ():
        if each.name.startswith(f".{work.name}-") and disk.is_ours(each):
            disk.remove(each)


def _threads() -> int:
    """Threads of one operation, on which the order of sums depends, and so the last digits; 1 where none computed."""
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch is not None else 1
