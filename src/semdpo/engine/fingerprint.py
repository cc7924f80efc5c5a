"""What tells one file, folder, model or data set from another: the SHA-256 of its whole content, and of nothing else.

Everything that is kept under a key (the reference's log-probabilities, checkpoints, a run's stages) asks here, so that
a model that was trained again under its old name, in whichever of its layers, is another model.

A file that has not changed since is not read again. It counts as unchanged while its size, its inode and both of its
times are the same (the second one, ctime, cannot be set back by a program). A file that changed within the last two
seconds is always read: a clock that ticks slowly could give two contents one time. Large files are remembered in the
user's cache folder too, for the next process.
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
from semdpo.models.registry import ADAPTERS, CURE_OF_BASE, SKIPPED, WORDS, base_of
from semdpo.models.registry import resolve as place_of

LEFT_OUT = ("timing.json",)  # how long a run's own model took is no part of it
SETTLED = 2.0  # seconds after which a file's times tell a later change
LARGE = 16 * 2**20  # bytes, from which a file is worth remembering on disk

_KNOWN: dict[str, tuple[_Stamp, str]] = {}  # a file's real path to what it was


class _Stamp(NamedTuple):
    size: int
    inode: int
    mtime_ns: int
    ctime_ns: int


def file(path: Path) -> str:
    """SHA-256 of a file; of a link, that of the file it leads to.

    Raises:
        OSError: it cannot be read.
    """
    place = os.path.realpath(path)
    with Path(place).open("rb") as opened:
        stamp = _stamp(opened.fileno())
        settled = time.time_ns() - max(stamp.mtime_ns, stamp.ctime_ns) > SETTLED * 1e9
        known = _KNOWN.get(place) or _remembered(place, stamp)
        if known is not None and known[0] == stamp:
            _KNOWN[place] = known
            return known[1]
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if settled and _stamp(opened.fileno()) == stamp:
            _KNOWN[place] = stamp, digest
            _remember(place, stamp, digest)
    return digest


def folder(path: Path, wanted: Sequence[str] = ("*",), skipped: Sequence[str] = ()) -> str:
    """SHA-256 of the names and whole contents of a folder's files, at any depth, links followed.

    Hidden files and folders are left out, and so is ``timing.json``.

    Args:
        path: the folder.
        wanted: patterns of relative paths that count.
        skipped: patterns of those that do not.
    """
    return _digest(list(files(path, wanted, skipped).items()))


def files(path: Path, wanted: Sequence[str] = ("*",), skipped: Sequence[str] = ()) -> dict[str, str]:
    """Relative name to SHA-256 of a folder's files, sorted by name; what counts, and arguments, as in ``folder``."""
    return {name: file(each) for name, each in _files(path) if _counts(name, wanted, skipped)}


def model(name: str | Path) -> str:
    """SHA-256 of everything that a named model is made of.

    That is its folder; of a published model, the files that are fetched of it (other programs may put more into the
    same folder); the tokenizer's files where they lie elsewhere; and where the folder holds adapters, the model that
    they are added to, which may be adapters again. A model that is not there yet is fetched, so that nothing is begun
    that cannot be finished.

    Args:
        name: ``tiny:NAME``, a folder or a published name.

    Raises:
        ModelError: there is no such model or it cannot be fetched; or it holds adapters whose base is not there. Such
            adapters cannot be loaded either, and a key without the base's content would hold for any base.
    """
    return _model(str(name), ())


def rows(name: str) -> str:
    """SHA-256 of a source of prompts or rewrites: of its file, or of every value of a data set of the hub.

    Args:
        name: a file, ``tiny:FILE``, or ``hub:OWNER/NAME[:SPLIT]``.

    Raises:
        DataError: there is no such source.
    """
    from semdpo.data.hub import hub_rows
    from semdpo.data.tables import HUB, resolve

    if not name.startswith(HUB):
        return file(resolve(name))
    found = hashlib.sha256()
    for each in hub_rows(name.removeprefix(HUB)):
        found.update(repr(sorted(each.items())).encode("utf-8", "surrogatepass") + b"\n")
    return found.hexdigest()


@contextmanager
def unchanged(name: str | Path) -> Iterator[None]:
    """Around the reading of a model: it must be the same before and after, or a key would name what was not read.

    Raises:
        ModelError: it was written meanwhile.
    """
    before = model(name)
    yield
    if model(name) != before:
        raise ModelError(f"'{name}' was changed while it was read; wait until whatever writes it has ended")


# ------------------------------------------------------------------------------------------------- folders and models


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()


def _files(path: Path) -> list[tuple[str, Path]]:
    """Relative name and place of every file that counts, sorted by name; a link back to a folder above ends there."""
    found: list[tuple[str, Path]] = []
    above: dict[str, frozenset[str]] = {str(path): frozenset({os.path.realpath(path)})}
    for place, inner, names in os.walk(path, followlinks=True):
        seen = above.pop(place)
        kept = []
        for each in inner:
            real = os.path.realpath(Path(place, each))
            if not each.startswith(".") and real not in seen:
                kept.append(each)
                above[os.path.join(place, each)] = seen | {real}  # noqa: PTH118 - as os.walk spells it
        inner[:] = kept
        for each in names:
            full = Path(place, each)
            if not each.startswith(".") and each not in LEFT_OUT and full.is_file():
                found.append((full.relative_to(path).as_posix(), full))
    return sorted(found)


def _counts(name: str, wanted: Sequence[str], skipped: Sequence[str]) -> bool:
    return any(fnmatch(name, each) for each in wanted) and not any(fnmatch(name, each) for each in skipped)


def _model(name: str, above: tuple[str, ...]) -> str:
    place = place_of(name)
    own = place.folder()
    if os.path.realpath(own) in above:
        raise ModelError(f"'{name}' holds adapters of itself; name their base in its {ADAPTERS}")
    parts = {"model": folder(own) if place.local else folder(own, place.files, SKIPPED)}
    if (words := place.tokenizer_folder()) != own:
        parts["tokenizer"] = folder(words, WORDS)
    for each in sorted({path.parent for file_name, path in _files(own) if Path(file_name).name == ADAPTERS}):
        chain = (*above, os.path.realpath(own))
        parts[f"base of {each.relative_to(own).as_posix()}"] = _base(each, chain, strict=each == own)
    return parts["model"] if len(parts) == 1 else _digest(parts)


def _base(own: Path, above: tuple[str, ...], strict: bool) -> str:
    """The fingerprint of what adapters are added to; its name where a folder deeper down names what is not there."""
    try:
        base = base_of(own)
    except ModelError:
        if strict:
            raise
        return "names none"
    try:
        return _model(base, above)
    except ModelError as error:
        if strict:
            raise ModelError(
                f"'{own}' holds adapters of '{base}', which cannot be had ({error}); {CURE_OF_BASE}"
            ) from error
        return f"names {base!r}"


# ------------------------------------------------------------------------------------------------- what is remembered


def _stamp(handle: int) -> _Stamp:
    found = os.fstat(handle)
    return _Stamp(found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)


def _entry(place: str) -> Path:
    """A file for each, so that processes that write at once do not undo each other."""
    name = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return cache_folder() / "fingerprints" / f"{name}.json"


def _remembered(place: str, stamp: _Stamp) -> tuple[_Stamp, str] | None:
    """What another process found of a large file; None when that says nothing, or is damaged."""
    if stamp.size < LARGE:
        return None
    try:
        known = json.loads(_entry(place).read_text(encoding="utf-8"))
        of, digest = _Stamp(*known["stamp"]), known["sha256"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return (of, digest) if isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) else None


def _remember(place: str, stamp: _Stamp, digest: str) -> None:
    if stamp.size < LARGE:
        return
    entry = json.dumps({"file": place, "stamp": list(stamp), "sha256": digest})
    try:
        write_bytes(_entry(place), entry.encode("utf-8", "surrogateescape"))
    except StoreError:
        return  # the next process reads the file again
