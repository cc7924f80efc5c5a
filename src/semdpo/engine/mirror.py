"""A run on object storage: a run works in a folder of this machine, and the storage gets each file that is final.

Nothing is ever taken for finished before it is: of a stage, ``started.json`` is put first and ``manifest.json`` last,
and the manifest is removed first. What comes from a storage is checked by the hashes of the store, as every run's
files are.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from semdpo import disk, locks
from semdpo.engine import fingerprint, in_use, shard_files, store
from semdpo.engine.storage import Storage, is_inside
from semdpo.errors import ConfigError, SemdpoError, StoreError
from semdpo.progress import say

MANIFEST, STARTED, RECIPE = "manifest.json", "started.json", "recipe.json"
_OF_EVERY_STAGE = (MANIFEST, STARTED, *fingerprint.LEFT_OUT)
_PART = re.compile(rf"({store.NOTES}/)?part-(\d+)\..+")
_REPORT, _LISTS = "report/", ".files"  # the report's folder, and how its lists of files are called


class Mirror:
    """Where a run's final files go, besides its folder; this one is nowhere, for a run on this machine."""

    def push(self, path: Path) -> None:
        """Takes a final file, or all of a stage's files that are final.

        Args:
            path: the file or the stage's folder.
        """

    def remove(self, stage: Path) -> None:
        """Forgets a stage that is about to be removed.

        Args:
            stage: the stage's folder.
        """


@contextmanager
def working(folder: str | Path, shared: bool = False) -> Iterator[tuple[Path, Mirror]]:
    """The folder of this machine in which a run works, and the mirror that gets its files.

    Args:
        folder: a run's folder, or its address such as ``s3://bucket/my-run``. What is stored there is fetched first,
            as far as it is not here; at the end of the ``with`` block everything is there.
        shared: whether other processes work in the folder at the same time, which a storage does not allow.

    Raises:
        ConfigError: the address cannot be used, a library is missing, or the work is shared.
        StoreError: another process works there, or the storage cannot be reached.
    """
    address = disk.address(folder)
    if address is None:
        yield Path(folder), Mirror()
        return
    if shared:
        raise ConfigError(f"--shard needs a folder on a disk that the processes share; leave it out for {address}")
    storage, place = Storage(address), working_folder(address)
    disk.refuse_unwritable(place, folder=True)
    refusal = f"{address} is in use by {{}}; wait until it ends, or choose another folder with --out"
    with (
        locks.hold(place.with_name(f"{place.name}.lock"), refusal),
        in_use.held(storage, place) as refuse_if_lost,
        _named_as(address, place),
    ):
        mirror = _Remote(storage, place, refuse_if_lost)
        mirror.pull()
        yield place, mirror
        mirror.push_the_rest()
        say(f"stored: {address}")


def working_folder(address: str) -> Path:
    """The folder of this machine in which a run at an address works."""
    name = address.rstrip("/").rsplit("/", 1)[-1][:50]
    return disk.cache_folder() / "runs" / f"{name}-{hashlib.sha256(address.encode()).hexdigest()[:16]}"


def fetched(folder: str | Path, name: str) -> Path:
    """One file of a run; from a storage it is copied here first, if it is there.

    Args:
        folder: the run's folder or address.
        name: the file's name in it.
    """
    address = disk.address(folder)
    if address is None:
        return Path(folder) / name
    path = working_folder(address) / name
    disk.refuse_unwritable(path)
    if not Storage(address).get(name, path):
        path.unlink(missing_ok=True)
    return path


def fetched_stage(address: str) -> Path:
    """The folder of this machine with a finished stage's files, which are checked.

    Args:
        address: the stage's address, such as ``s3://bucket/my-run/pairs``.

    Raises:
        StoreError: there is no finished stage, or it is damaged; or a run works in its folder.
    """
    run, _, stage = address.rpartition("/")
    if run.endswith("/"):  # s3://bucket
        raise StoreError(f"{address} is no stage of a run; give one such as {address}/my-run/pairs")
    storage, place = Storage(run), working_folder(run)
    with (
        locks.hold(place.with_name(f"{place.name}.lock"), f"{run} is in use by {{}}; wait until it ends"),
        _named_as(run, place),
    ):
        sizes = {name: size for name, size in storage.names().items() if name.startswith(f"{stage}/")}
        if f"{stage}/{MANIFEST}" not in sizes or not _Remote(storage, place, lambda: None).pull_stage(stage, sizes):
            raise StoreError(f"{address} is no finished stage of a run; give one such as {run}/pairs")
        store.refuse_damaged_stage(place / stage)
    return place / stage


@contextmanager
def _named_as(address: str, place: Path) -> Iterator[None]:
    """Makes errors about a run's files name the storage, except those about this machine's disk."""
    try:
        yield
    except SemdpoError as error:
        cause, message = error.__cause__, str(error).replace(str(place), address)
        if isinstance(cause, OSError) or (cause and disk.out_of_space(cause)) or message == str(error):
            raise
        raise type(error)(message) from error


class _Remote(Mirror):
    """The mirror of a working folder in a storage.

    Args:
        storage: the storage.
        place: the working folder, which this process has locked.
        refuse_if_lost: raises an error once another process has taken the storage.
    """

    def __init__(self, storage: Storage, place: Path, refuse_if_lost: Callable[[], None]) -> None:
        self._storage, self._place, self._refuse_if_lost = storage, place, refuse_if_lost
        self._names: set[str] = set()  # the objects in the storage
        self._foreign: set[str] = set()  # those of them in folders without semdpo's mark
        self._same: dict[str, tuple[int, int, int]] = {}  # the objects that equal a file here → that file's stamp

    # --------------------------------------------------------------------------------------------- from the storage

    def pull(self) -> None:
        """Fetches what the storage holds and this folder does not, finished or not.

        What this folder alone holds stays, and is put into the storage once a run has checked it. A stage that was
        made from something else than the one in the storage gives way to that one; a damaged one is removed.
        """
        self._remove_damaged()
        sizes = self._storage.names()
        sizes.pop(in_use.NAME, None)
        self._names = set(sizes)
        described = {name.rpartition("/")[0] for name in sizes if name.rpartition("/")[2] in (MANIFEST, STARTED)} - {""}
        self._foreign = {name for name in sizes if "/" in name and not name.startswith(_REPORT)}
        for stage in sorted(described):
            inside = {name: size for name, size in sizes.items() if name.startswith(f"{stage}/")}
            if self.pull_stage(stage, inside):
                self._foreign -= inside.keys()
        if RECIPE in sizes:
            self._get(RECIPE)
        for name in (name for name in sizes if name.startswith(_REPORT)):
            path = self._place / name
            if path.is_file() and path.stat().st_size == sizes[name]:
                self._same[name] = _stamp(path)
            else:
                self._get(name)

    def _remove_damaged(self) -> None:
        for manifest in list(self._place.rglob(MANIFEST)):
            try:
                store.refuse_damaged_stage(manifest.parent)
            except StoreError:
                shutil.rmtree(manifest.parent)

    def pull_stage(self, stage: str, sizes: Mapping[str, int]) -> bool:
        """Fetches a stage; returns whether semdpo made it."""
        here = self._place / stage
        manifest = self._read(f"{stage}/{MANIFEST}", sizes)
        made, started = _made_from(manifest), None
        if made is None:
            started = self._read(f"{stage}/{STARTED}", sizes)
            made = _made_from(started)
        if made is None:
            return False
        if here.is_dir() and _made_from(_bytes(here / MANIFEST) or _bytes(here / STARTED)) != made:
            shutil.rmtree(here)
        if store.is_complete(here) and (manifest is None or _made_from(manifest) is None):
            return True  # what is here is whole, and will be put there
        if manifest is not None:
            self._pull_finished(stage, manifest, sizes)
        elif started is not None:
            self._pull_started(stage, started, sizes)
        return True

    def _pull_finished(self, stage: str, manifest: bytes, sizes: Mapping[str, int]) -> None:
        """Fetches a finished stage as it is; where it is damaged, the run finds that out and refuses it."""
        here, files = self._place / stage, _files_in(manifest)
        ours = store.files_of(here) if here.is_dir() else {}
        if ours != files or _bytes(here / MANIFEST) != manifest:
            (here / MANIFEST).unlink(missing_ok=True)
        if (size := sizes.get(f"{stage}/{STARTED}")) is not None:
            if not ((here / STARTED).is_file() and (here / STARTED).stat().st_size == size):
                self._get(f"{stage}/{STARTED}")
            self._same[f"{stage}/{STARTED}"] = _stamp(here / STARTED)
        for name in ours.keys() - files.keys():
            disk.remove_file(here, name)
        for name, sha in files.items():
            whole, path = f"{stage}/{name}", here / name
            for _ in range(2):  # once more, in case that it was damaged on the way
                if whole in sizes and _sha(path) != sha:
                    self._storage.get(whole, path)
            if _sha(path) == sha and path.stat().st_size == sizes.get(whole):
                self._same[whole] = _stamp(path)
        self._get_notes(stage, sizes)
        self._write(f"{stage}/{MANIFEST}", manifest)

    def _pull_started(self, stage: str, started: bytes, sizes: Mapping[str, int]) -> None:
        """Fetches the whole shards of an unfinished stage; the others are made again."""
        parts: dict[int, list[str]] = {}
        for name in sorted(sizes, reverse=True):  # a shard, then the note about it
            if match := _PART.fullmatch(name.removeprefix(f"{stage}/")):
                parts.setdefault(int(match[2]), []).append(name)
        here = self._place / stage
        if not parts:
            return
        if not (here / STARTED).is_file():
            self._write(f"{stage}/{STARTED}", started)
        for index, names in sorted(parts.items()):
            fetched = not shard_files.has_shard(here, index)
            for name in names if fetched else ():
                self._storage.get(name, self._place / name)
            if not shard_files.has_shard(here, index):
                shard_files.forget_shard(here, index)
                shard = f"{self._storage.address}/{stage}/{shard_files.shard_path(here, index).name}"
                say(f"{shard} is missing or damaged; it is made again")
                continue
            for name in names:
                path = self._place / name
                if fetched or (path.is_file() and path.stat().st_size == sizes[name]):
                    self._same[name] = _stamp(path)
        self._get_notes(stage, sizes)

    def _get_notes(self, stage: str, sizes: Mapping[str, int]) -> None:
        """Fetches the files that are no part of a stage's result."""
        for name in fingerprint.LEFT_OUT:
            if f"{stage}/{name}" in sizes:
                self._get(f"{stage}/{name}")

    def _read(self, name: str, sizes: Mapping[str, int]) -> bytes | None:
        return self._storage.read(name) if name in sizes else None

    def _get(self, name: str) -> None:
        if self._storage.get(name, self._place / name):
            self._same[name] = _stamp(self._place / name)

    def _write(self, name: str, data: bytes) -> None:
        """Writes a file with an object's bytes."""
        path = self._place / name
        if not path.is_file() or path.read_bytes() != data:
            disk.write_bytes(path, data)
        self._same[name] = _stamp(path)

    # --------------------------------------------------------------------------------------------- to the storage

    def push(self, path: Path) -> None:
        """Puts a file, or a stage's files, as far as the storage does not hold them; see ``Mirror``."""
        self._refuse_if_lost()
        for file in [path] if path.is_file() else _final_files(path):
            name, stamp = file.relative_to(self._place).as_posix(), _stamp(file)
            if self._same.get(name) == stamp:
                continue
            if name in self._foreign:
                raise StoreError(
                    f"{self._storage.address}/{name} was not made by semdpo and would be lost; move it, or choose "
                    "another folder with --out"
                )
            self._storage.put(file, name)
            self._names.add(name)
            self._same[name] = stamp
        if store.is_complete(path):
            notes = f"{path.relative_to(self._place).as_posix()}/{store.NOTES}/"
            for name in sorted(name for name in self._names - self._foreign if name.startswith(notes)):
                self._remove(name)

    def push_the_rest(self) -> None:
        """Puts what a run writes besides its stages: the report, times, and what the evaluation notes of models."""
        self.push(self._place / _REPORT)
        for name in [name for name in self._same if name.startswith(_REPORT) and not (self._place / name).exists()]:
            self._remove(name)
        for path in self._place.rglob("*.json"):
            stage = path.parent.relative_to(self._place).as_posix()
            if path.name in fingerprint.LEFT_OUT and f"{stage}/{MANIFEST}" in self._same:
                self.push(path)

    def remove(self, stage: Path) -> None:
        """Removes a stage's objects, as far as semdpo made them; see ``Mirror``."""
        self._refuse_if_lost()
        folder = stage.relative_to(self._place).as_posix()
        inside = {name for name in self._names - self._foreign if name.startswith(f"{folder}/")}
        if not inside:
            return
        listed = _files_in(self._storage.read(f"{folder}/{MANIFEST}") or b"")
        own = {f"{folder}/{name}" for name in (*listed, *_OF_EVERY_STAGE)} | self._same.keys()
        own |= {name for name in inside if _PART.fullmatch(name.removeprefix(f"{folder}/"))}
        for name in sorted(inside & own, key=_order, reverse=True):
            self._remove(name)

    def _remove(self, name: str) -> None:
        self._storage.remove(name)
        self._names.discard(name)
        self._same.pop(name, None)


def _order(name: str) -> int:
    """The order in which a stage's files are put: the first marks a stage, the last says that it is whole."""
    return {STARTED: 0, MANIFEST: 2}.get(name.rpartition("/")[2], 1)


def _final_files(folder: Path) -> list[Path]:
    """A folder's files in the order in which they are put, without hidden ones, but with a report's lists."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    shown = (path for path in found if not _is_hidden(path.relative_to(folder)))
    return sorted(shown, key=lambda path: _order(path.relative_to(folder).as_posix()))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") and not part.startswith(_LISTS) for part in path.parts)


def _made_from(description: bytes | None) -> tuple[Any, ...] | None:
    """What a stage was made from, as its manifest or ``started.json`` says; None where it is damaged."""
    content = _object(description)
    made = tuple(content.get(name) for name in ("config", "inputs", "versions"))
    return made if all(isinstance(part, dict) for part in made) else None


def _files_in(manifest: bytes) -> dict[str, str]:
    """Name → SHA-256 of a finished stage's files; empty where the manifest is damaged."""
    files = _object(manifest).get("files")
    return {str(name): str(sha) for name, sha in files.items() if is_inside(name)} if isinstance(files, dict) else {}


def _object(data: bytes | None) -> dict[str, Any]:
    try:
        content = json.loads(data or b"")
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _sha(path: Path) -> str | None:
    return fingerprint.file(path) if path.is_file() else None


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes when a file is written again."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino
