"""``load_scorer``, which finds the judge of pictures that a name stands for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from semdpo.errors import ModelError
from semdpo.models.device import compute
from semdpo.models.loading import check_positive, read_json
from semdpo.models.registry import Place, resolve
from semdpo.models.scorers.batched import BatchedScorer
from semdpo.protocols import Scorer
from semdpo.recipe import defaults

KINDS = ("clip-score", "image-reward", "hpsv2.1", "pickscore", "blip-itm", "jina", "vqa-score")
UPSTREAM_FILES = {"ImageReward.pt": "image-reward", "HPS_v2.1_compressed.pt": "hpsv2.1"}
ARCHITECTURES = {
    "CLIPModel": "clip-score",
    "BlipForImageTextRetrieval": "blip-itm",
    "ImageRewardModel": "image-reward",
    "JinaEmbeddingsV4Model": "jina",
    "JinaCLIPModel": "jina",
}


def load_scorer(
    name: str,
    batch_size: int = defaults.IMAGES_AT_A_TIME,
    precision: str = "float32",
    allow_remote_code: Sequence[str] = (),
) -> Scorer:
    """The judge that a name stands for, on the GPU where there is one.

    ``scorer.json`` ({"kind": …}) in the folder says what it is; without one it is known by upstream's file name or by
    the class that ``config.json`` names: a CLIPModel gives the CLIP score, an image-text-to-text model its P("Yes").

    Args:
        name: ``tiny:NAME``, a folder, or a published name.
        batch_size: pictures at a time, ≥ 1.
        precision: of the weights, as ``compute`` says.
        allow_remote_code: names of models whose own Python code may run.

    Raises:
        ModelError: the name is unknown, the folder cannot be read, holds no judge, or wants to run code of its own.
    """
    check_positive("batch_size", batch_size)
    where = compute(precision)
    place = resolve(name)
    match _kind(place):
        case "image-reward":
            from semdpo.models.scorers.image_reward import image_reward

            judge = image_reward(place, where)
        case "hpsv2.1":
            from semdpo.models.scorers.hps import hps

            judge = hps(place, where)
        case "pickscore":
            from semdpo.models.scorers.pickscore import pickscore

            judge = pickscore(place, where)
        case "blip-itm":
            from semdpo.models.scorers.blip_itm import blip_itm

            judge = blip_itm(place, where)
        case "jina":
            from semdpo.models.scorers.jina import jina

            judge = jina(place, where, allowed=name in allow_remote_code)
        case "vqa-score":
            from semdpo.models.scorers.vqa_score import vqa_score

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
