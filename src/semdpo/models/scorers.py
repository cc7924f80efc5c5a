"""What all judges of pictures share, and ``load_scorer``, which finds the judge that a name stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from semdpo.errors import ModelError
from semdpo.models.compute import compute
from semdpo.models.loading import check_positive, read_json
from semdpo.models.names import Place, resolve
from semdpo.protocols import Bool, ScoreBatch, Scorer

KINDS = ("clip-score", "image-reward", "hpsv2.1", "pickscore", "blip-itm", "jina", "vqa-score")
UPSTREAM_FILES = {"ImageReward.pt": "image-reward", "HPS_v2.1_compressed.pt": "hpsv2.1"}
ARCHITECTURES = {
    "CLIPModel": "clip-score",
    "BlipForImageTextRetrieval": "blip-itm",
    "ImageRewardModel": "image-reward",
    "JinaEmbeddingsV4Model": "jina",
    "JinaCLIPModel": "jina",
}

# Some pictures and their prompts to scores, [b], and which prompts were longer than the judge reads, [b].
Judge = Callable[[Sequence[Image.Image], Sequence[str]], tuple[Tensor, Bool]]


def load_scorer(
    name: str, batch_size: int = 32, precision: str = "float32", allow_remote_code: Sequence[str] = ()
) -> Scorer:
    """The judge that a name stands for, on the GPU where there is one.

    ``scorer.json`` ({"kind": …}) in the folder says what it is; without one it is known by upstream's file name or by
    the class that ``config.json`` names: a CLIPModel gives the CLIP score, an image-text-to-text model its P("Yes").

    Args:
        name: ``tiny:NAME``, a folder, or a published name.
        batch_size: pictures at a time, ≥ 1.
        precision: of the weights: float32, bfloat16 or float16.
        allow_remote_code: names of models whose own Python code may run.

    Raises:
        ModelError: the name is unknown, the folder cannot be read, holds no judge, or wants to run code of its own.
    """
    check_positive("batch_size", batch_size)
    where = compute(precision)
    place = resolve(name)
    match _kind(place):
        case "image-reward":
            from semdpo.models.image_reward import image_reward

            judge = image_reward(place, where)
        case "hpsv2.1":
            from semdpo.models.hps import hps

            judge = hps(place, where)
        case "pickscore":
            from semdpo.models.pickscore import pickscore

            judge = pickscore(place, where)
        case "blip-itm":
            from semdpo.models.blip_itm import blip_itm

            judge = blip_itm(place, where)
        case "jina":
            from semdpo.models.jina import jina

            judge = jina(place, where, allowed=name in allow_remote_code)
        case "vqa-score":
            from semdpo.models.vqa_score import vqa_score

            judge = vqa_score(place, where)
        case _:
            from semdpo.models.clip import clip_score

            judge = clip_score(place, where)
    return BatchedScorer(judge, batch_size)


def _kind(place: Place) -> str:
    if place.name == "pickscore":  # a plain CLIPModel; only its name says that it is scaled
        return "pickscore"
    folder = place.folder()
    if (folder / "scorer.json").is_file():
        kind = read_json(folder / "scorer.json").get("kind")
        if kind not in KINDS:
            raise ModelError(f"'{folder / 'scorer.json'}' says kind {kind!r}; known: {', '.join(KINDS)}")
        return str(kind)
    for file, kind in UPSTREAM_FILES.items():
        if (folder / file).is_file():
            return kind
    return _kind_of_class(place.name, folder)


def _kind_of_class(name: str, folder: Path) -> str:
    config = read_json(folder / "config.json")
    architectures = config.get("architectures") or []
    for architecture in architectures:
        if architecture in ARCHITECTURES:
            return ARCHITECTURES[architecture]
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    if config.get("model_type") in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return "vqa-score"
    raise ModelError(
        f"model '{name}' ({', '.join(architectures) or 'no architecture named'}) is not a judge of pictures; give a "
        f"CLIPModel, a BlipForImageTextRetrieval, an image-text-to-text model, or a folder whose scorer.json says one "
        f"of {', '.join(KINDS)}"
    )


@dataclass(frozen=True)
class BatchedScorer:
    """A judge that is asked in batches, without gradients.

    Attributes:
        judge: of one batch.
        batch_size: pictures at a time.
    """

    judge: Judge
    batch_size: int

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> ScoreBatch:
        """One score a picture, higher is better; prompts that are longer than the judge reads are cut and flagged.

        Args:
            images: pictures, n.
            prompts: what the user asked for, n.

        Raises:
            ModelError: numbers of rows differ, or a score is not finite.
        """
        if len(images) != len(prompts):
            raise ModelError(
                f"a score needs one prompt a picture; got {len(images)} pictures and {len(prompts)} prompts"
            )
        values = np.zeros(len(images), np.float32)
        truncated = np.zeros(len(images), np.bool_)
        for start in range(0, len(images), self.batch_size):
            rows = slice(start, start + self.batch_size)
            with torch.inference_mode():
                scores, truncated[rows] = self.judge(images[rows], prompts[rows])
            values[rows] = scores.float().cpu().numpy()
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise ModelError(
                f"the score of row {bad[0]} (prompt '{prompts[bad[0]][:60]}') is {values[bad[0]]}; the model's weights "
                "are broken or overflow: load it again in float32"
            )
        return ScoreBatch(values, truncated)
