"""``guard.json`` in a trained rewriter's folder: how far its rewrites usually drift, as its own evaluation measured it.

A rewrite that drifts farther than nearly all rewrites of held-out prompts did is an outlier, and the guard refuses it.
`reporting.limits` says whose rewrites count.
The file says which model and which encoder it was measured with, and is used with these only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from semdpo.disk import write_bytes
from semdpo.errors import DataError, ModelError
from semdpo.models.loading import read_json

FILE = "guard.json"
QUANTILE = 0.95  # the share of the rewrites of held-out prompts that the guard lets pass


@dataclass(frozen=True, slots=True)
class DriftLimit:
    """The limit of a rewriter's drift.

    Attributes:
        max_drift: The largest cosine distance between a prompt and its rewrite, 0 to 2.
        quantile: The share of the held-out prompts' rewrites that drift at most this far.
        prompts: The number of these prompts.
        encoder: The SHA-256 of the encoder's files.
        model: The SHA-256 of the rewriter's files.
    """

    max_drift: float
    quantile: float
    prompts: int
    encoder: str
    model: str


def measured(drifts: Sequence[float], encoder: str, model: str) -> DriftLimit:
    """The limit that rewrites of held-out prompts give.

    Args:
        drifts: The drift of each prompt's rewrite, n ≥ 1.
        encoder: The SHA-256 of the encoder's files.
        model: The SHA-256 of the rewriter's files.

    Raises:
        DataError: There are no rewrites.
    """
    if not drifts:
        raise DataError("there are no rewrites whose drift could be measured; evaluate at least one prompt")
    # A drift that was measured, not a number between two of them.
    limit = float(np.quantile(np.asarray(drifts, np.float64), QUANTILE, method="higher"))
    return DriftLimit(min(max(limit, 0.0), 2.0), QUANTILE, len(drifts), encoder, model)


def write(folder: Path, limit: DriftLimit) -> None:
    """Writes ``guard.json`` into a rewriter's folder, unless it is there already.

    Raises:
        StoreError: The folder cannot be written.
    """
    content, path = (json.dumps(asdict(limit), indent=2) + "\n").encode(), folder / FILE
    if not path.is_file() or path.read_bytes() != content:
        write_bytes(path, content)


def read(folder: Path, encoder: str, model: str) -> DriftLimit | None:
    """The limit in a rewriter's folder; None when there is none, or it is of another model or encoder.

    Args:
        folder: The rewriter's folder.
        encoder: The SHA-256 of the files of the encoder that will measure the drift.
        model: The SHA-256 of the rewriter's files.

    Raises:
        ModelError: The file is damaged.
    """
    limit = read_for(folder, model)
    return limit if limit is not None and limit.encoder == encoder else None


def read_for(folder: Path, model: str) -> DriftLimit | None:
    """The limit in a rewriter's folder, of whatever encoder; None when there is none, or it is of another model.

    Args:
        folder: The rewriter's folder.
        model: The SHA-256 of the rewriter's files.

    Raises:
        ModelError: The file is damaged.
    """
    if not (folder / FILE).is_file():
        return None
    values = read_json(folder / FILE)
    try:
        limit = DriftLimit(**values)
        valid = 0 <= float(limit.max_drift) <= 2
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ModelError(f"'{folder / FILE}' is damaged; remove it, or evaluate the rewriter again")
    return limit if limit.model == model else None
