"""Where an interrupted training goes on: a folder of checkpoints that belongs to one training and no other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semdpo.files import write_bytes
from semdpo.store import canonical

IDENTITY = "training.json"


def folder_of(output: Path) -> Path:
    """The checkpoints' folder beside the trained model's."""
    return output.with_name(f"{output.name}.checkpoints")


def opened(folder: Path, identity: Mapping[str, Any]) -> Path | None:
    """Makes the folder ready, and finds the last whole checkpoint of the same training.

    What another training left (other data, model or settings) is removed, and so is a checkpoint that was being written
    when its process died: the trainer's state is the last file of each.

    Args:
        folder: of checkpoints.
        identity: everything that the training depends on, as JSON can hold it.

    Returns:
        The checkpoint to go on from; None to start at the beginning.

    Raises:
        StoreError: the folder cannot be written.
    """
    wanted = canonical(identity)
    known = folder / IDENTITY
    if folder.is_dir() and not (known.is_file() and known.read_bytes() == wanted):
        shutil.rmtree(folder)
    write_bytes(known, wanted)
    whole: list[tuple[int, Path]] = []
    for path in folder.glob("checkpoint-*"):
        try:
            whole.append((int(json.loads((path / "trainer_state.json").read_text())["global_step"]), path))
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            shutil.rmtree(path)
    return max(whole)[1] if whole else None


def sweep(folder: Path) -> None:
    """Removes the folder where it holds no checkpoint, so that a failure leaves only what can be gone on from."""
    if not any(folder.glob("checkpoint-*")):
        shutil.rmtree(folder, ignore_errors=True)
