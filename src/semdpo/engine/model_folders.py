"""The folders of trained models: written under another name and renamed at the end, checked before they are loaded.

While a model is being trained, its files are in ``NAME.partial`` and its checkpoints in ``NAME.partial.checkpoints``.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from semdpo import disk
from semdpo.disk import write_bytes
from semdpo.engine import store
from semdpo.errors import StoreError

CURVES = "curves.parquet"  # the training curves, in a trained model's folder


def partial(folder: Path) -> Path:
    """The folder that holds a model's files while it is being trained.

    Args:
        folder: the model's final folder.
    """
    return folder.with_name(folder.name + ".partial")


def checkpoints(folder: Path) -> Path:
    """The folder of a training's checkpoints.

    Args:
        folder: the model's final folder.
    """
    return partial(folder).with_name(f"{partial(folder).name}.checkpoints")


def time_note(folder: Path) -> Path:
    """The file that notes how long an unfinished training has taken so far.

    Args:
        folder: the model's final folder.
    """
    return partial(folder).with_name(f"{partial(folder).name}.seconds.json")


def remove_time_note(folder: Path) -> None:
    """Removes that file once the training has finished, since the model's folder holds the time.

    Args:
        folder: the model's final folder.
    """
    note = time_note(folder)
    with suppress(StoreError):  # a damaged one stays
        if "seconds" in store.read_json(note):
            note.unlink()


def start(folder: Path, plan: store.Plan) -> Path:
    """Makes an empty folder to train into, and removes an earlier model; checkpoints stay.

    Args:
        folder: the model's final folder.
        plan: what determines the model.

    Returns:
        The empty folder.

    Raises:
        StoreError: a file or folder that semdpo did not make is in the way, or the folder cannot be written.
    """
    work = partial(folder)
    disk.remove(folder)
    disk.remove(work)
    _remove_leftovers(work)
    write_bytes(work / "started.json", store.description(plan))
    return work


def finish(folder: Path, plan: store.Plan, counts: Mapping[str, int]) -> None:
    """Writes the manifest of a trained model and gives its folder the final name.

    Args:
        folder: the model's final folder.
        plan: what the training was started with.
        counts: what the manifest reports.

    Raises:
        StoreError: no space is left, or something else already has that name.
    """
    work = partial(folder)
    data = store.manifest_of(plan, counts, store.files_of(work), store.thread_count())
    write_bytes(work / "manifest.json", data)
    with disk.explain_full_disk(work):
        disk.sync(work)
    disk.rename(work, folder)


def refuse_damaged(folder: Path) -> None:
    """Refuses a model that semdpo wrote if one of its files has changed since; other models pass.

    The model card may be edited, and files may be added.

    Args:
        folder: a trained model's folder, in a run or from ``semdpo train``.

    Raises:
        StoreError: a file has changed or is missing; the message names it.
    """
    if not store.is_complete(folder) or not disk.was_made_by_semdpo(folder):
        return
    now = store.files_of(folder)
    for name, written in store.manifest(folder)["files"].items():
        if name != "README.md" and now.get(name) != written:
            raise StoreError(
                f"{folder / name} is damaged, edited or missing (its SHA-256 is not the one in manifest.json); train "
                "the model again, or remove manifest.json if the change was meant"
            )


def remove_stage(folder: Path) -> None:
    """Removes a stage's files, finished or not, and its training's checkpoints.

    Args:
        folder: the stage's folder, of rows or of a model.

    Raises:
        StoreError: a file or folder there was not made by semdpo; nothing is removed.
    """
    places = (folder, partial(folder), checkpoints(folder))
    for path in places:
        disk.refuse_foreign(path)
    for path in places:
        disk.remove(path)
    _remove_leftovers(partial(folder))
    remove_time_note(folder)


def _remove_leftovers(work: Path) -> None:
    """Removes what a trainer left that was killed before it renamed its folder."""
    for path in work.parent.iterdir() if work.parent.is_dir() else ():
        if path.name.startswith(f".{work.name}-"):
            with suppress(StoreError):  # a user's own stays
                disk.remove(path)
