"""Log-probabilities under the reference (the model before training), computed once per sequence and cached on disk."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from semdpo.data.records import content_id
from semdpo.disk import write_bytes
from semdpo.engine import fingerprint, parquet, store
from semdpo.errors import StoreError
from semdpo.progress import Progress, silent
from semdpo.recipe.base import Template
from semdpo.training.logps import group_logps
from semdpo.training.packing import Group

BATCH = 16  # number of groups at a time
FORMAT = 2  # increased where older caches must not be read: those of 1 may hold values of a trained model
LIBRARIES = ("semdpo", "torch", "transformers")  # the libraries that compute the log-probabilities


@dataclass(frozen=True, slots=True)
class _Logp:
    """A row of the cache: a sequence's hash, and log π_ref of its completion."""

    sequence: str
    logp: float


def key_of(described: Mapping[str, Any]) -> str:
    """The key of a cache: 32 hexadecimal digits that change with every value of ``described``.

    Args:
        described: everything that the log-probabilities depend on, as JSON values.
    """
    return store.digest(store.canonical(described))[:32]


def described(
    name: str | Path, model: Any, template: Template | str, max_length: int, precision: str, can_pack: bool
) -> dict[str, Any]:
    """Everything that the reference's log-probabilities depend on in addition to the texts.

    The model is identified by its content, not by its name or folder: a copy elsewhere shares the cache, and a model
    that was trained again under the same name does not. Rounding affects the log-probabilities, and trainings with
    different software may share a cache folder, so the attention implementation, the kind of device, the type of the
    weights, the precision and the versions of the libraries are included too. Sequences are cached by their tokens;
    template and longest length are included so that one file does not grow with the sequences of other trainings.

    Args:
        name: name or folder of the model.
        model: the loaded model, after ``prepare.prepare``.
        template: what the model reads around a prompt.
        max_length: largest number of tokens of a sequence.
        precision: precision in which it computes.
        can_pack: whether ``prepare.prepare`` accepted it for packing.
    """
    weight = next(model.parameters())
    versions = store.versions()
    return {
        "format": FORMAT,
        "model": fingerprint.model(name),
        **asdict(Template.of(template)),
        "max_length": max_length,
        "precision": precision,
        "can_pack": can_pack,
        "attention": str(model.config._attn_implementation),
        "weights": str(weight.dtype),
        "device": weight.device.type,
        "versions": {library: versions[library] for library in LIBRARIES if library in versions},
    }


def cache_file(cache: Path, name: str | Path, model: Any, *setting: Any) -> Path:
    """The cache file of a model's log-probabilities; the arguments are those of ``described``."""
    return cache / f"{key_of(described(name, model, *setting))}.parquet"


def reference_logps(
    model: Any,
    groups: Sequence[Group],
    can_pack: bool,
    cache: Path | None = None,
    progress: Progress = silent,
) -> list[tuple[float, ...]]:
    """log π_ref(y|x) of every completion of every group; values in the cache are not computed again.

    Args:
        model: the starting model; it is in evaluation mode during the computation.
        groups: prompts with their completions, n.
        can_pack: whether ``prepare.prepare`` accepted the model for packing.
        cache: parquet file that is read, and rewritten with the new values; None caches nothing.
        progress: called after every batch.

    Returns:
        The log-probabilities of every group's completions, n tuples, in nats.
    """
    known = read_cache(cache)
    before = len(known)
    logps = logps_of(model, groups, can_pack, known, progress)
    if cache is not None and len(known) > before:
        merged = read_cache(cache) | known  # another training may have added values in the meantime
        rows = [_Logp(key, value) for key, value in sorted(merged.items())]
        write_bytes(cache, parquet.encode(_Logp, rows, {}, sealed=True))
    return logps


def logps_of(
    model: Any, groups: Sequence[Group], can_pack: bool, known: dict[str, float], progress: Progress = silent
) -> list[tuple[float, ...]]:
    """log π(y|x) of every completion of every group; those that are known are not computed again.

    Args:
        model: a causal language model; it is in evaluation mode during the computation.
        groups: prompts with their completions, n.
        can_pack: whether ``prepare.prepare`` accepted the model for packing.
        known: a sequence's hash → log π of its completion, in nats; new values are added.
        progress: called after every batch.

    Returns:
        The log-probabilities of every group's completions, n tuples, in nats.
    """
    group_keys = [[_hash(group.prompt, completion) for completion in group.completions] for group in groups]
    new = [group for group, keys in zip(groups, group_keys, strict=True) if not known.keys() >= set(keys)]
    new.sort(key=lambda group: group.tokens)  # so that a model that cannot be packed needs little padding
    training = model.training
    model.eval()
    for start in range(0, len(new), BATCH):
        part = new[start : start + BATCH]
        with torch.no_grad():
            values = group_logps(model, part, can_pack).tolist()
        keys = [_hash(group.prompt, completion) for group in part for completion in group.completions]
        known.update(zip(keys, values, strict=True))
        progress(min(start + BATCH, len(new)), len(new), "reference")
    model.train(training)
    return [tuple(known[key] for key in keys) for keys in group_keys]


def read_cache(cache: Path | None) -> dict[str, float]:
    """A sequence's hash → its value; empty where the cache is missing or damaged, because it can be computed again."""
    if cache is None or not cache.is_file():
        return {}
    try:
        rows = parquet.read_file(cache, _Logp, sealed=True)
    except StoreError:
        return {}
    return {row.sequence: row.logp for row in rows if math.isfinite(row.logp)}


def _hash(prompt: Sequence[int], completion: Sequence[int]) -> str:
    return content_id(str(prompt), str(completion))
