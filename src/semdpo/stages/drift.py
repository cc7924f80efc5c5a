"""Stage 6: how far the rewrites of every pair drift from their prompt (Sem-DPO, section 3)."""

from __future__ import annotations

from functools import cache, partial

from semdpo.analysis.drift import measure, refuse_none, refuse_unknown_words, unknown_beforehand, with_drift
from semdpo.data.records import Pair
from semdpo.engine import store
from semdpo.engine.stage import Made, Run, Shard, TableStage
from semdpo.errors import DataError
from semdpo.models.registry import lasting
from semdpo.progress import Progress
from semdpo.protocols import KnowsWords, TextEncoder
from semdpo.recipe.schema import Recipe

NAME = "drift"


def stage(recipe: Recipe) -> TableStage:
    """The stage that adds to each pair the distances of chosen and rejected from the prompt."""
    config = recipe.drift
    outside = {"drift.encoder": config.encoder}
    return TableStage(NAME, "measuring drift", config.model_dump(mode="json"), ("pairs",), outside, Pair, _work)


def _work(run: Run) -> list[Shard]:
    config, pairs = run.recipe.drift, run.shards("pairs", Pair)
    if not sum(pairs.sizes):
        _refuse_all_blackened(store.counts(run.folder / "pairs").get("blackened", 0))
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


def _refuse_all_blackened(blackened: int) -> None:
    if blackened:
        raise DataError(
            f"no pair is left, because the safety checker left {blackened} prompts with fewer than two images; set "
            "label.renderer.safety_checker=false, or give other prompts"
        )
