"""Log-probabilities under the reference: the model before training, asked once for every sequence and kept on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from semdpo import store
from semdpo.files import write_bytes
from semdpo.progress import Progress, silent
from semdpo.records import content_id
from semdpo.training.logps import group_logps
from semdpo.training.packing import Group

BATCH = 16  # groups at a time


@dataclass(frozen=True, slots=True)
class _Logp:
    """A row of the cache: a sequence's hash, and log π_ref of its completion."""

    sequence: str
    logp: float


def key_of(described: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that name a cache: another model, template, length or precision gives another key.

    Args:
        described: whatever the numbers depend on, as JSON can hold it.
    """
    return store.digest(store.canonical(described))[:16]


def described(folder: Path, template: str, max_length: int, precision: str, packs: bool) -> dict[str, Any]:
    """Whatever the reference's numbers depend on, beside the texts.

    Args:
        folder: of the model.
        template: what it reads.
        max_length: longest sequence.
        precision: it computes in.
        packs: whether ``logps.prepare`` accepted it.
    """
    return {
        "model": store.folder_hash(folder),
        "template": template,
        "max_length": max_length,
        "precision": precision,
        "packs": packs,
    }


def cache_file(cache: Path, folder: Path, template: str, max_length: int, precision: str, packs: bool) -> Path:
    """Where the numbers of a model are kept; arguments as in ``described``."""
    return cache / f"{key_of(described(folder, template, max_length, precision, packs))}.parquet"


def reference_logps(
    model: Any,
    groups: Sequence[Group],
    packs: bool,
    cache: Path | None = None,
    progress: Progress = silent,
) -> list[tuple[float, ...]]:
    """log π_ref(y|x) of every completion of every group; what the cache knows is not computed.

    Args:
        model: the starting model; put into evaluation mode for the while.
        groups: n of them.
        packs: whether ``logps.prepare`` accepted the model.
        cache: a parquet file that is read, and written again with what was new; None keeps nothing.
        progress: told after every batch.

    Returns:
        A tuple for each group.
    """
    known = {} if cache is None or not cache.is_file() else {r.sequence: r.logp for r in store.read_file(cache, _Logp)}
    wanted = [[_hash(group.prompt, each) for each in group.completions] for group in groups]
    new = [group for group, keys in zip(groups, wanted, strict=True) if not known.keys() >= set(keys)]
    new.sort(key=lambda group: group.tokens)  # a model that cannot be packed then pads little
    training = model.training
    model.eval()
    for start in range(0, len(new), BATCH):
        part = new[start : start + BATCH]
        with torch.no_grad():
            values = group_logps(model, part, packs).tolist()
        keys = [_hash(group.prompt, each) for group in part for each in group.completions]
        known.update(zip(keys, values, strict=True))
        progress(min(start + BATCH, len(new)), len(new), "reference")
    model.train(training)
    if cache is not None and new:
        rows = [_Logp(key, value) for key, value in sorted(known.items())]
        write_bytes(cache, store.encode(_Logp, rows, {}))
    return [tuple(known[key] for key in keys) for keys in wanted]


def _hash(prompt: Sequence[int], completion: Sequence[int]) -> str:
    return content_id(str(prompt), str(completion))
