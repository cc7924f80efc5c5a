"""Checkpoints, from which an interrupted training resumes; a folder of checkpoints belongs to exactly one training."""

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
SUMS = "sha256.json"  # hashes of a checkpoint's files, written last


def folder_of(output: Path) -> Path:
    """The folder of the checkpoints, next to the trained model's folder."""
    return output.with_name(f"{output.name}.checkpoints")


def opened(folder: Path, identity: Mapping[str, Any]) -> Path | None:
    """Prepares the folder, and returns the last complete checkpoint of the same training.

    Checkpoints of another training (other data, model or settings) are removed, and so are damaged and incomplete
    ones; a checkpoint is complete once it has the hashes of its files, which are written last.

    Args:
        folder: folder of the checkpoints.
        identity: everything that the training depends on, as JSON values.

    Returns:
        The checkpoint to resume from; None where the training starts at the beginning.

    Raises:
        StoreError: the folder has files that semdpo did not write, or it cannot be written.
    """
    expected = canonical(identity)
    identity_file = folder / IDENTITY
    if not (identity_file.is_file() and not folder.is_symlink()):  # older versions wrote no mark
        disk.refuse_foreign(folder)
    if identity_file.is_file():
        write_bytes(folder / disk.MARK, disk.MADE)
    if folder.is_dir() and not (identity_file.is_file() and identity_file.read_bytes() == expected):
        disk.remove(folder)
    disk.mark(folder)
    write_bytes(identity_file, expected)
    complete: list[tuple[int, Path]] = []
    for path in folder.glob("checkpoint-*"):
        if path.is_dir() and not path.is_symlink():
            if (step := _step(path)) is None:
                shutil.rmtree(path)
            else:
                complete.append((step, path))
    return max(complete)[1] if complete else None


def seal(checkpoint: Path) -> None:
    """Records the hashes of a checkpoint's files after all of them are on the disk.

    Args:
        checkpoint: folder that transformers' Trainer has written.
    """
    disk.sync(checkpoint)
    write_bytes(checkpoint / SUMS, canonical(_sums(checkpoint)))


def _sums(checkpoint: Path) -> dict[str, str]:
    # Other processes may write their random states later.
    return fingerprint.files(checkpoint, skipped=(SUMS, "rng_state_*"))


def _step(checkpoint: Path) -> int | None:
    """The number of updates after which a checkpoint was written; None where it is damaged or incomplete."""
    try:
        step = int(json.loads((checkpoint / "trainer_state.json").read_text())["global_step"])
        # Without its hashes it was being written, or being removed: any of its files may be missing.
        if not (checkpoint / SUMS).is_file():
            return None
        if store.read_json(checkpoint / SUMS) != _sums(checkpoint):
            say(f"{checkpoint} is damaged; training resumes from an earlier checkpoint, or starts at the beginning")
            return None
    except StoreError:
        say(f"{checkpoint} is damaged; training resumes from an earlier checkpoint, or starts at the beginning")
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return step


def sweep(folder: Path) -> None:
    """Removes damaged and incomplete checkpoints, and the folder where no other checkpoint is left."""
    for path in folder.glob("checkpoint-*"):
        if path.is_dir() and not path.is_symlink() and _step(path) is None:
            shutil.rmtree(path, ignore_errors=True)
    if not any(folder.glob("checkpoint-*")):
        disk.remove(folder)
