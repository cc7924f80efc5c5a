"""Where an interrupted training goes on: a folder of checkpoints that belongs to one training and no other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semdpo import disk
from semdpo.disk import write_bytes
from semdpo.engine import fingerprint, store
from semdpo.engine.store import canonical
from semdpo.errors import StoreError
from semdpo.progress import say

IDENTITY = "training.json"
SUMS = "sha256.json"  # of a checkpoint's files, written last


def folder_of(output: Path) -> Path:
    """The checkpoints' folder beside the trained model's."""
    return output.with_name(f"{output.name}.checkpoints")


def opened(folder: Path, identity: Mapping[str, Any]) -> Path | None:
    """Makes the folder ready, and finds the last whole checkpoint of the same training.

    What another training left (other data, model or settings) is removed, and so are checkpoints of which a file is not
    as it was written, or which were being written when their process died: the trainer's state is its last file.

    Args:
        folder: of checkpoints.
        identity: everything that the training depends on, as JSON can hold it.

    Returns:
        The checkpoint to go on from; None to start at the beginning.

    Raises:
        StoreError: something lies there that is not ours, or the folder cannot be written.
    """
    wanted = canonical(identity)
    known = folder / IDENTITY
    if not (known.is_file() and not folder.is_symlink()):  # versions before this one left no mark
        disk.refuse_foreign(folder)
    if known.is_file():
        write_bytes(folder / disk.MARK, disk.MADE)
    if folder.is_dir() and not (known.is_file() and known.read_bytes() == wanted):
        disk.remove(folder)
    disk.mark(folder)
    write_bytes(known, wanted)
    whole: list[tuple[int, Path]] = []
    for path in folder.glob("checkpoint-*"):
        if path.is_dir() and not path.is_symlink():
            if (step := _step(path)) is None:
                shutil.rmtree(path)
            else:
                whole.append((step, path))
    return max(whole)[1] if whole else None


def seal(checkpoint: Path) -> None:
    """Notes the hashes of a checkpoint's files, after all of them are on the disk.

    Args:
        checkpoint: a folder that transformers' Trainer has written.
    """
    disk.sync(checkpoint)
    write_bytes(checkpoint / SUMS, canonical(_sums(checkpoint)))


def _sums(checkpoint: Path) -> dict[str, str]:
    # Other processes write their random states whenever they come to it.
    return fingerprint.files(checkpoint, skipped=(SUMS, "rng_state_*"))


def _step(checkpoint: Path) -> int | None:
    """The updates after which a checkpoint was written; None where it is not whole."""
    try:
        step = int(json.loads((checkpoint / "trainer_state.json").read_text())["global_step"])
        # A kill may come after the last file and before the sums.
        if (checkpoint / SUMS).exists() and store.read_json(checkpoint / SUMS) != _sums(checkpoint):
            say(f"{checkpoint} is damaged; training goes on from an earlier checkpoint, or from the beginning")
            return None
    except StoreError:
        say(f"{checkpoint} is damaged; training goes on from an earlier checkpoint, or from the beginning")
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return step


def sweep(folder: Path) -> None:
    """Removes what cannot be gone on from: checkpoints that are not whole, and the folder when there are no others."""
    for path in folder.glob("checkpoint-*"):
        if path.is_dir() and not path.is_symlink() and _step(path) is None:
            shutil.rmtree(path, ignore_errors=True)
    if not any(folder.glob("checkpoint-*")):
        disk.remove(folder)
