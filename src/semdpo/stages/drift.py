"""Stage 6: how far the rewrites of every pair drift from their prompt (Sem-DPO, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial

import numpy as np

from semdpo.analysis.drift import (
    Drift,
    by_atoms,
    by_scores,
    measure,
    refuse_none,
    refuse_unknown_words,
    unknown_beforehand,
    with_drift,
)
from semdpo.data.atoms import Atom, by_prompt
from semdpo.data.records import Pair
from semdpo.engine import store
from semdpo.engine.stage import Made, Run, Shard, TableStage
from semdpo.errors import DataError
from semdpo.models import unread
from semdpo.models.registry import lasting
from semdpo.progress import Progress
from semdpo.protocols import KnowsWords, TextEncoder
from semdpo.recipe.atoms import ATOMS_LOST
from semdpo.recipe.schema import Recipe

NAME = "drift"
VERSION = 1  # of the sources other than the encoder


def stage(recipe: Recipe) -> TableStage:
    """The stage that adds to each pair the distances of chosen and rejected from the prompt."""
    config = recipe.drift
    settings = {"source": config.source, "version": VERSION}
    if config.source == ATOMS_LOST:
        return TableStage(NAME, "comparing facts", settings, ("pairs", "atoms"), {}, Pair, _work_of_atoms)
    if config.source != "encoder":
        return TableStage(NAME, "comparing scores", settings, ("pairs",), {}, Pair, _work_of_scores)
    outside, remark = {"drift.encoder": config.encoder}, partial(_unread, config.encoder)
    return TableStage(
        NAME, "measuring drift", config.model_dump(mode="json"), ("pairs",), outside, Pair, _work, remark=remark
    )


def _unread(encoder: str, counts: Mapping[str, int]) -> str:
    return unread.sentence(counts.get("truncated", 0), counts.get("rows", 0), "pairs have a text", encoder)


def _work(run: Run) -> list[Shard]:
    config, pairs = run.recipe.drift, run.shards("pairs", Pair)
    if not sum(pairs.sizes):
        _refuse_all_blackened(store.counts(run.path("pairs")).get("blackened", 0))
    refuse_none(sum(pairs.sizes))
    encoder_fingerprint = cache(lambda: run.models.fingerprint(config.encoder))

    def load() -> TextEncoder:
        encoder = run.models.encoder(config.encoder)
        rows = (row for index in range(len(pairs.sizes)) for row in pairs.read(index))
        refuse_unknown_words(unknown_beforehand(rows, encoder), config.encoder)
        return encoder

    encoder = cache(load)

    def make(index: int, progress: Progress) -> Made:
        shard = pairs.read(index)
        if not shard:
            return [], {"truncated": 0}
        drift = measure(shard, encoder(), config.batch_size, progress)
        if not isinstance(encoder(), KnowsWords):  # one that does was asked about all pairs in ``load``
            refuse_unknown_words(drift.unknown, config.encoder)
        rows = with_drift(shard, drift, lasting(config.encoder), encoder_fingerprint())
        return rows, {"truncated": int(drift.truncated.sum())}

    return [Shard(size, partial(make, index)) for index, size in enumerate(pairs.sizes)]


def _work_of_atoms(run: Run) -> list[Shard]:
    pairs, config = run.shards("pairs", Pair), run.recipe.atoms
    assert config is not None  # see Recipe
    refuse_none(sum(pairs.sizes))
    atoms = cache(lambda: by_prompt(run.rows("atoms", Atom)))

    def make(index: int, _: Progress) -> Made:
        shard = pairs.read(index)
        return with_drift(shard, by_atoms(shard, atoms(), config.maker)), {"truncated": 0}

    return [Shard(size, partial(make, index)) for index, size in enumerate(pairs.sizes)]


def _work_of_scores(run: Run) -> list[Shard]:
    pairs, source = run.shards("pairs", Pair), run.recipe.drift.source
    refuse_none(sum(pairs.sizes))
    everything = (row for index in range(len(pairs.sizes)) for row in pairs.read(index))
    distances = cache(lambda: by_scores(everything, source))

    def make(index: int, _: Progress) -> Made:
        shard = pairs.read(index)
        found = np.array([distances()[pair.pair_id] for pair in shard], np.float64)
        return with_drift(shard, Drift(found, found, np.zeros(len(shard), np.bool_), None)), {"truncated": 0}

    return [Shard(size, partial(make, index)) for index, size in enumerate(pairs.sizes)]


def _refuse_all_blackened(blackened: int) -> None:
    if blackened:
        raise DataError(
            f"no pair is left, because the safety checker left {blackened} prompts with fewer than two images; set "
            "label.renderer.safety_checker=false, or give other prompts"
        )
