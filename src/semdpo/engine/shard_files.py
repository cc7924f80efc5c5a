"""The files of a stage of rows: each shard with a note about it, and at the end the manifest."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from semdpo import disk
from semdpo.disk import write_bytes
from semdpo.engine import fingerprint, parquet, store
from semdpo.engine.store import Plan
from semdpo.errors import StoreError


def start(folder: Path, plan: Plan) -> bool:
    """Prepares the folder of a stage of rows: notes the plan.

    Args:
        folder: the stage's folder.
        plan: what determines its files.

    Returns:
        Whether the stage had not been started before.

    Raises:
        StoreError: a file or folder that semdpo did not make is in the way, or the folder cannot be written.
    """
    disk.refuse_foreign(folder)
    if (folder / "started.json").is_file():
        return False
    write_bytes(folder / "started.json", store.description(plan))
    return True


def has_any(folder: Path) -> bool:
    """Whether a started stage of rows has a shard, noted or not."""
    return any(folder.glob("part-*.parquet"))


def forget_start(folder: Path) -> None:
    """Removes the note about the plan of a stage that has no shards, and its folder if nothing else is in it."""
    (folder / "started.json").unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def shard_path(folder: Path, index: int) -> Path:
    """The file of shard ``index``, counted from 0."""
    return folder / f"part-{index:05d}.parquet"


def files_of_shard(folder: Path, index: int) -> tuple[Path, Path]:
    """The file of a shard of an unfinished stage, and then the note about it."""
    return shard_path(folder, index), _note_path(folder, index)


def _note_path(folder: Path, index: int) -> Path:
    return folder / store.NOTES / f"part-{index:05d}.json"


def write_shard(folder: Path, index: int, data: bytes, seconds: float = 0.0) -> None:
    """Writes an encoded shard, whole or not at all, and notes its hash.

    Args:
        folder: the stage's folder.
        index: the shard, counted from 0.
        data: the content of its file.
        seconds: how long it took.

    Raises:
        StoreError: no space is left, or the folder cannot be written.
    """
    write_bytes(shard_path(folder, index), data)
    write_bytes(
        _note_path(folder, index), store.canonical({"sha256": store.digest(data), "seconds": round(float(seconds), 3)})
    )


def is_noted(folder: Path, index: int) -> bool:
    """Whether a shard of an unfinished stage was written; ``has_shard`` also looks at its content."""
    return _note_path(folder, index).is_file()


def has_shard(folder: Path, index: int) -> bool:
    """Whether a shard of an unfinished stage exists, unchanged since it was written; otherwise it must be made."""
    path = shard_path(folder, index)
    return path.is_file() and _noted(folder, index).get("sha256") == fingerprint.file(path)


def forget_shard(folder: Path, index: int) -> None:
    """Removes the note about a shard that has changed since it was written, so that it is made again."""
    _note_path(folder, index).unlink(missing_ok=True)


def _noted(folder: Path, index: int) -> dict[str, Any]:
    """The note about a shard; empty where it is missing or damaged, so that the shard is made again."""
    try:
        note = store.read_json(_note_path(folder, index))
    except StoreError:
        return {}
    return note if isinstance(note.get("seconds"), float) else {}


def finish(folder: Path, plan: Plan, shards: int, threads: int) -> None:
    """Writes the manifest of a stage of rows, which makes it complete, and before it how long all shards took.

    Args:
        folder: the stage's folder.
        plan: what the stage was started with.
        shards: the number of its shards.
        threads: how many threads made them; see ``thread_count``.

    Raises:
        StoreError: a shard has changed since it was written.
    """
    totals: dict[str, int] = {"rows": 0}
    hashes, seconds = {}, 0.0
    for index in range(shards):
        path, noted = shard_path(folder, index), _noted(folder, index)
        hashes[path.name] = fingerprint.file(path)
        if hashes[path.name] != noted.get("sha256"):
            raise StoreError(f"{path} has changed since it was written; run the same command again")
        seconds += float(noted.get("seconds", 0.0))
        for name, value in parquet.counts(path).items():
            totals[name] = totals.get(name, 0) + value
    write_bytes(folder / store.TIMING, store.canonical({"seconds": round(seconds, 3)}))
    write_bytes(folder / "manifest.json", store.manifest_of(plan, totals, hashes, threads))
    remove_notes(folder)


def remove_notes(folder: Path) -> None:
    """Removes the notes about a finished stage's shards, whose manifest holds their hashes; a user's files stay."""
    notes = folder / store.NOTES
    if notes.is_dir() and not notes.is_symlink():
        with suppress(OSError):  # whoever shares the run may remove them too
            for path in notes.glob("part-*.json"):
                path.unlink(missing_ok=True)
            notes.rmdir()
