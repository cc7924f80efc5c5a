"""Fingerprints of files, folders, models and data sets: the SHA-256 of their whole content, and of nothing else.

Everything that is stored under a key (the reference's log-probabilities, checkpoints, a run's stages) uses them, so
that a model that was trained again under its old name counts as another model, whichever of its layers changed.

A file that has not changed is not read again. It counts as unchanged while its size, its inode and both of its times
are the same (no program can set back the second one, ctime). A file that changed within the last two seconds is always
read, because two changes within one tick of a slow clock have the same time. The fingerprints of large files are also
stored in the user's cache folder, for the next process.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from semdpo.disk import cache_folder, write_bytes
from semdpo.errors import ModelError, StoreError
from semdpo.models.catalogue import SKIPPED, WEIGHTS, WORDS
from semdpo.models.registry import ADAPTERS, CURE_OF_BASE, base_of
from semdpo.models.registry import resolve as place_of
from semdpo.models.sentence_folder import prefix_of

# How long a training took, and how far its rewrites drifted later, does not change the model.
LEFT_OUT = ("timing.json", "guard.json")
SETTLED = 2.0  # seconds after which a later change of a file is sure to change its times
LARGE = 16 * 2**20  # bytes; the fingerprint of a file of this size is worth storing on disk

_CACHE: dict[str, tuple[_Stamp, str]] = {}  # a file's real path → its stamp and SHA-256


class _Stamp(NamedTuple):
    size: int
    inode: int
    mtime_ns: int
    ctime_ns: int


def file(path: Path) -> str:
    """The SHA-256 of a file; of a link, that of its target.

    Raises:
        OSError: the file cannot be read.
    """
    place = os.path.realpath(path)
    with Path(place).open("rb") as opened:
        stamp = _stamp(opened.fileno())
        settled = time.time_ns() - max(stamp.mtime_ns, stamp.ctime_ns) > SETTLED * 1e9
        cached = _CACHE.get(place) or _stored(place, stamp)
        if cached is not None and cached[0] == stamp:
            _CACHE[place] = cached
            return cached[1]
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if settled and _stamp(opened.fileno()) == stamp:
            _CACHE[place] = stamp, digest
            _store(place, stamp, digest)
    return digest


def folder(path: Path, wanted: Sequence[str] = ("*",), skipped: Sequence[str] = ()) -> str:
    """The SHA-256 of the names and whole contents of a folder's files, at any depth; links are followed.

    Hidden files and folders are left out, and so are ``timing.json`` and ``guard.json``.

    Args:
        path: the folder.
        wanted: patterns of the relative paths to include.
        skipped: patterns of the relative paths to leave out, even if ``wanted`` includes them.
    """
    return _digest(list(files(path, wanted, skipped).items()))


def files(path: Path, wanted: Sequence[str] = ("*",), skipped: Sequence[str] = ()) -> dict[str, str]:
    """Relative name → SHA-256 of a folder's files, sorted by name; the arguments are those of ``folder``."""
    return {name: file(place) for name, place in _files(path) if _is_included(name, wanted, skipped)}


def model(name: str | Path) -> str:
    """The SHA-256 of all files that a model is made of.

    These are the files in its folder (of a published model, only those that semdpo downloads, because other programs
    may add files to that folder); the tokenizer's files where they are elsewhere; for a model that is only a head, the
    files of the model that it stands on; and for adapters, those of the model that they are added to, which may be
    adapters too. What semdpo itself puts before every text of an encoder counts as well. A model that is not here yet
    is downloaded, so that no work is started that cannot be finished.

    Args:
        name: ``tiny:NAME``, a folder or a published name.

    Raises:
        ModelError: there is no such model, it cannot be downloaded, or it holds adapters whose base is missing. Such
            adapters cannot be loaded, and a fingerprint without the base's content would be the same for any base.
    """
    return _model(str(name), ())


def rows(name: str, *, texts: bool = False) -> str:
    """The SHA-256 of a source of prompts or rewrites: of all that is read, or of all values of a data set of the hub.

    Args:
        name: a file, ``tiny:FILE``, ``hub:OWNER/NAME[:SPLIT]``, or a folder.
        texts: whether a folder's text files (txt) are read, as those of a benchmark, and not its tables.

    Raises:
        DataError: there is no such source.
    """
    from semdpo.data import benchmark_files, tables
    from semdpo.data.hub import hub_rows

    if name.startswith(tables.HUB):
        sha = hashlib.sha256()
        for row in hub_rows(name.removeprefix(tables.HUB)):
            sha.update(repr(sorted(row.items())).encode("utf-8", "surrogatepass") + b"\n")
        return sha.hexdigest()
    if not tables.is_folder(name):
        return file(tables.resolve(name))
    # The names and contents of the files that are read; those in its folders do not count.
    read = benchmark_files.data_files(Path(name)) if texts else tables.data_files(Path(name))[1]
    return _digest([(each.name, file(each)) for each in read])


@contextmanager
def unchanged(name: str | Path) -> Iterator[None]:
    """A context in which a model is read; it refuses a model that changes during the reading.

    Otherwise a result would be stored under the fingerprint of files that were not read.

    Raises:
        ModelError: the model has changed.
    """
    before = model(name)
    yield
    if model(name) != before:
        raise ModelError(f"'{name}' was changed while it was read; wait until the program that writes it has finished")


# ------------------------------------------------------------------------------------------------- folders and models


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()


def _files(path: Path) -> list[tuple[str, Path]]:
    """The relative name and path of every file, sorted by name; a link to a folder above it is not followed."""
    paths: list[tuple[str, Path]] = []
    above: dict[str, frozenset[str]] = {str(path): frozenset({os.path.realpath(path)})}
    for place, inner, names in os.walk(path, followlinks=True):
        seen = above.pop(place)
        visited = []
        for name in inner:
            real = os.path.realpath(Path(place, name))
            if not name.startswith(".") and real not in seen:
                visited.append(name)
                above[os.path.join(place, name)] = seen | {real}  # noqa: PTH118 - as os.walk spells it
        inner[:] = visited
        for name in names:
            full = Path(place, name)
            if not name.startswith(".") and name not in LEFT_OUT and full.is_file():
                paths.append((full.relative_to(path).as_posix(), full))
    return sorted(paths)


def _is_included(name: str, wanted: Sequence[str], skipped: Sequence[str]) -> bool:
    return any(fnmatch(name, one) for one in wanted) and not any(fnmatch(name, one) for one in skipped)


def _model(name: str, above: tuple[str, ...]) -> str:
    place = place_of(name)
    own = place.folder()
    if os.path.realpath(own) in above:
        raise ModelError(f"'{name}' holds adapters of itself; name their base in its {ADAPTERS}")
    parts = {"model": folder(own) if place.local else _downloaded(own, place.files)}
    if (words := place.tokenizer_folder()) != own:
        parts["tokenizer"] = folder(words, WORDS)
    if (base := place.separate_base()) is not None:
        parts["base"] = _model(base, ())
    if (prefix := prefix_of(place.name, own)).chosen_here:
        parts["prefix"] = prefix.text
    for adapters in sorted({path.parent for file_name, path in _files(own) if Path(file_name).name == ADAPTERS}):
        chain = (*above, os.path.realpath(own))
        parts[f"base of {adapters.relative_to(own).as_posix()}"] = _base(adapters, chain, strict=adapters == own)
    return parts["model"] if len(parts) == 1 else _digest(parts)


def _downloaded(path: Path, wanted: Sequence[str]) -> str:
    """The SHA-256 of a repository's wanted files; of those with weights too, if no wanted file has any.

    Weights that somebody has downloaded in another format are loaded where there are no others.
    """
    found = files(path, wanted, SKIPPED)
    if not any(name.endswith(WEIGHTS) for name in found):
        found = files(path, (*wanted, *(f"*{ending}" for ending in WEIGHTS)), SKIPPED)
    return _digest(list(found.items()))


def _base(adapters: Path, above: tuple[str, ...], strict: bool) -> str:
    """The fingerprint of the model that adapters are added to; its name where it is missing and not ``strict``."""
    try:
        base = base_of(adapters)
    except ModelError:
        if strict:
            raise
        return "names none"
    try:
        return _model(base, above)
    except ModelError as error:
        if strict:
            raise ModelError(
                f"'{adapters}' holds adapters of '{base}', which cannot be read ({error}); {CURE_OF_BASE}"
            ) from error
        return f"names {base!r}"


# ------------------------------------------------------------------------------------------------- on disk


def _stamp(handle: int) -> _Stamp:
    state = os.fstat(handle)
    return _Stamp(state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns)


def _entry(place: str) -> Path:
    """Where a file's fingerprint is stored: one file for each, so that concurrent processes do not undo each other."""
    name = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return cache_folder() / "fingerprints" / f"{name}.json"


def _stored(place: str, stamp: _Stamp) -> tuple[_Stamp, str] | None:
    """The stored stamp and SHA-256 of a large file; None when there are none, or they are damaged."""
    if stamp.size < LARGE:
        return None
    try:
        entry = json.loads(_entry(place).read_text(encoding="utf-8"))
        stored, digest = _Stamp(*entry["stamp"]), entry["sha256"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return (stored, digest) if isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) else None


def _store(place: str, stamp: _Stamp, digest: str) -> None:
    if stamp.size < LARGE:
        return
    entry = json.dumps({"file": place, "stamp": list(stamp), "sha256": digest})
    try:
        write_bytes(_entry(place), entry.encode("utf-8", "surrogateescape"))
    except StoreError:
        return  # the next process reads the file again
