"""After the evaluation: every trained rewriter gets the limit of drift that rewrites of held-out prompts give."""

from __future__ import annotations

from dataclasses import replace

from semdpo.data.records import RenderedImage
from semdpo.engine import store
from semdpo.engine.stage import Run
from semdpo.models import drift_limit
from semdpo.models.drift_limit import DriftLimit
from semdpo.stages.evaluate import evaluation

SFT = "sft"


def write(run: Run) -> None:
    """Writes ``guard.json`` into the folders of a run's rewriters, as far as they are evaluated.

    The limit is that of the rewriter's own rewrites, or that of the SFT model's if it is lower: a rewriter whose
    training made it drift must not thereby get a wide limit. The file is no part of the model: it changes no
    fingerprint. A folder that is a link to another run is left alone.

    Args:
        run: the run, with finished stages.

    Raises:
        StoreError: a folder cannot be written.
    """
    found = evaluation(run.recipe)
    own = found.models.keys() - {"human", *found.decodings, *run.recipe.evaluate.rewriters}
    limits = {method: limit for method in own if (limit := _measured(run, method)) is not None}
    for method, limit in limits.items():
        folder = run.folder / found.models[method]
        most = min(limit.max_drift, limits.get(SFT, limit).max_drift)
        if not folder.is_symlink():
            drift_limit.write(folder, replace(limit, max_drift=most))


def _measured(run: Run, method: str) -> DriftLimit | None:
    """The limit of one method's rewrites; None when it is not trained or not evaluated yet."""
    found = evaluation(run.recipe)
    folder, images = run.folder / found.models[method], found.images_stage(method)
    if not store.is_complete(run.folder / images) or not store.is_complete(folder):
        return None
    rows = run.rows(images, RenderedImage, unread={"image": b""})
    drifts = list({row.prompt_id: row.distance for row in rows}.values())
    encoder = run.models.fingerprint(run.recipe.drift.encoder)
    return drift_limit.measured(drifts, encoder, run.models.fingerprint(str(folder)))
