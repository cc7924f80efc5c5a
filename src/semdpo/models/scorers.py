"""What all judges of pictures share, and ``load_scorer``, which finds the judge that a folder holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from semdpo.errors import ModelError
from semdpo.models.loading import Texts, check_positive, read_json
from semdpo.models.names import resolve
from semdpo.protocols import ScoreBatch, Scorer

KINDS = ("clip-score", "image-reward", "hpsv2.1", "pickscore", "blip-itm")


def load_scorer(name: str, batch_size: int = 32) -> Scorer:
    """The judge that a name stands for.

    ``scorer.json`` ({"kind": …}) in the folder says what it is; without one a CLIPModel gives the CLIP score and a
    BlipForImageTextRetrieval its matching probability.

    Args:
        name: ``tiny:NAME``, a folder, or a published name.
        batch_size: pictures at a time, ≥ 1.

    Raises:
        ModelError: the name is unknown, the folder cannot be read, or it holds no judge.
    """
    check_positive("batch_size", batch_size)
    folder = resolve(name).folder()
    match _kind(folder, name):
        case "image-reward":
            from semdpo.models.image_reward import ImageRewardScorer

            return ImageRewardScorer(folder, batch_size)
        case "hpsv2.1":
            from semdpo.models.hps import HPSScorer

            return HPSScorer(folder, batch_size)
        case "pickscore":
            from semdpo.models.pickscore import PickScorer

            return PickScorer(folder, batch_size)
        case "blip-itm":
            from semdpo.models.blip_itm import BlipMatchScorer

            return BlipMatchScorer(folder, batch_size)
        case _:
            from semdpo.models.clip import CLIPScorer

            return CLIPScorer(folder, batch_size)


def _kind(folder: Path, name: str) -> str:
    if (folder / "scorer.json").is_file():
        kind = read_json(folder / "scorer.json").get("kind")
        if kind not in KINDS:
            raise ModelError(f"'{folder / 'scorer.json'}' says kind {kind!r}; known: {', '.join(KINDS)}")
        return str(kind)
    architectures = read_json(folder / "config.json").get("architectures") or []
    for architecture, kind in (
        ("CLIPModel", "clip-score"),
        ("BlipForImageTextRetrieval", "blip-itm"),
        ("ImageRewardModel", "image-reward"),
    ):
        if architecture in architectures:
            return kind
    raise ModelError(
        f"model '{name}' ({', '.join(architectures) or 'no architecture named'}) is not a judge of pictures; give a "
        f"CLIPModel, a BlipForImageTextRetrieval, or a folder whose scorer.json says one of {', '.join(KINDS)}"
    )


def score_in_batches(
    batch: Callable[[Sequence[Image.Image], Sequence[str]], tuple[Tensor, Texts]],
    images: Sequence[Image.Image],
    prompts: Sequence[str],
    batch_size: int,
) -> ScoreBatch:
    """Run ``batch`` over the rows in order, without gradients.

    Args:
        batch: some pictures and their prompts to scores [b] and the prompts' tokens.
        images: pictures, n.
        prompts: texts, n.
        batch_size: rows at a time.

    Raises:
        ModelError: numbers of rows differ, or a score is not finite.
    """
    if len(images) != len(prompts):
        raise ModelError(f"a score needs one prompt a picture; got {len(images)} pictures and {len(prompts)} prompts")
    values = np.zeros(len(images), np.float32)
    truncated = np.zeros(len(images), np.bool_)
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        with torch.inference_mode():
            scores, texts = batch(images[rows], prompts[rows])
        values[rows] = scores.float().numpy()
        truncated[rows] = texts.truncated
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise ModelError(
            f"the score of row {bad[0]} (prompt '{prompts[bad[0]][:60]}') is {values[bad[0]]}; the model's weights "
            "are broken or overflow: load it again in float32"
        )
    return ScoreBatch(values, truncated)
