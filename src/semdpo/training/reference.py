"""Log-probabilities under the reference: the model before training, asked once for every sequence and kept on disk."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from semdpo.data.records import content_id
from semdpo.disk import write_bytes
from semdpo.engine import fingerprint, parquet, store
from semdpo.errors import StoreError
from semdpo.progress import Progress, silent
from semdpo.training.logps import group_logps
from semdpo.training.packing import Group

BATCH = 16  # groups at a time
LIBRARIES = ("semdpo", "torch", "transformers")  # that compute the numbers


@dataclass(frozen=True, slots=True)
class _Logp:
    """A row of the cache: a sequence's hash, and log π_ref of its completion."""

    sequence: str
    logp: float


def key_of(described: Mapping[str, Any]) -> str:
    """Thirty-two hexadecimal digits that name a cache: whatever is described otherwise gives another key.

    Args:
        described: whatever the numbers depend on, as JSON can hold it.
    """
    return store.digest(store.canonical(described))[:32]


def described(
    name: str | Path, model: Any, template: str, max_length: int, precision: str, can_pack: bool
) -> dict[str, Any]:
    """Whatever the reference's numbers depend on, beside the texts.

    The model counts by its content, never by its name or place: the same numbers serve a copy elsewhere, and a model
    that was trained again under its name has none yet. Rounding is a part of the numbers, and a cache may be shared
    by trainings on different machines' software: so the way attention is computed, the kind of device, the type of the
    weights, the precision and the libraries' versions count too. Sequences are kept by their tokens; template and
    longest length are named so that one file does not grow by what no training of its kind asks.

    Args:
        name: of the model, as it was loaded.
        model: the loaded one, after ``prepare.prepare``.
        template: what it reads.
        max_length: longest sequence.
        precision: it computes in.
        can_pack: whether ``prepare.prepare`` accepted it.
    """
    weight = next(model.parameters())
    known = store.versions()
    return {
        "model": fingerprint.model(name),
        "template": template,
        "max_length": max_length,
        "precision": precision,
        "can_pack": can_pack,
        "attention": str(model.config._attn_implementation),
        "weights": str(weight.dtype),
        "device": weight.device.type,
        "versions": {each: known[each] for each in LIBRARIES if each in known},
    }


def cache_file(cache: Path, name: str | Path, model: Any, *setting: Any) -> Path:
    """Where the numbers of a model are kept; arguments as in ``described``."""
    return cache / f"{key_of(described(name, model, *setting))}.parquet"


def reference_logps(
    model: Any,
    groups: Sequence[Group],
    can_pack: bool,
    cache: Path | None = None,
    progress: Progress = silent,
) -> list[tuple[float, ...]]:
    """log π_ref(y|x) of every completion of every group; what the cache knows is not computed.

    Args:
        model: the starting model; put into evaluation mode for the while.
        groups: n of them.
        can_pack: whether ``prepare.prepare`` accepted the model.
        cache: a parquet file that is read, and written again with what was new; None keeps nothing.
        progress: told after every batch.

    Returns:
        A tuple for each group.
    """
    known = _read(cache)
    wanted = [[_hash(group.prompt, each) for each in group.completions] for group in groups]
    new = [group for group, keys in zip(groups, wanted, strict=True) if not known.keys() >= set(keys)]
    new.sort(key=lambda group: group.tokens)  # a model that cannot be packed then pads little
    training = model.training
    model.eval()
    for start in range(0, len(new), BATCH):
        part = new[start : start + BATCH]
        with torch.no_grad():
            values = group_logps(model, part, can_pack).tolist()
        keys = [_hash(group.prompt, each) for group in part for each in group.completions]
        known.update(zip(keys, values, strict=True))
        progress(min(start + BATCH, len(new)), len(new), "reference")
    model.train(training)
    if cache is not None and new:
        kept = _read(cache) | known  # another training may have added to it meanwhile
        rows = [_Logp(key, value) for key, value in sorted(kept.items())]
        write_bytes(cache, parquet.encode(_Logp, rows, {}, sealed=True))
    return [tuple(known[key] for key in keys) for keys in wanted]


def _read(cache: Path | None) -> dict[str, float]:
    """What a cache knows; nothing where it is not there or damaged, since all of it can be computed again."""
    if cache is None or not cache.is_file():
        return {}
    try:
        rows = parquet.read_file(cache, _Logp, sealed=True)
    except StoreError:
        return {}
    return {row.sequence: row.logp for row in rows if math.isfinite(row.logp)}


def _hash(prompt: Sequence[int], completion: Sequence[int]) -> str:
    return content_id(str(prompt), str(completion))
