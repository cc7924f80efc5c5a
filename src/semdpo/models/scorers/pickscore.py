"""PickScore (Kirstain et al., arXiv 2305.01569): a CLIP tuned on people's choices between images."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from semdpo.models.clip import load_towers
from semdpo.models.device import Compute
from semdpo.models.loading import load_image_processor, pixels
from semdpo.models.registry import Place
from semdpo.models.scorers.base import ScoreFunction, ScorerKind
from semdpo.protocols import Bool


def pickscore(place: Place, where: Compute) -> ScoreFunction:
    """exp(logit_scale)·cos; a softmax over the images of one prompt gives the probability of being picked.

    Args:
        place: The place of a saved CLIPModel. Tokenizer and image processor are in ``place.tokenizer_folder()``:
            upstream takes them from the CLIP that the model was tuned from.
        where: The device and the weights' type.

    Raises:
        ModelError: A folder cannot be read.
    """
    towers, processor = load_towers(place, where), load_image_processor(place.tokenizer_folder())

    def score(images: Sequence[Image.Image], prompts: Sequence[str]) -> tuple[Tensor, Bool]:
        text, tokens = towers.texts(prompts)
        cosine = (towers.images(pixels(processor, images)) * text).sum(-1)
        return towers.model.logit_scale.float().exp() * cosine, tokens.truncated

    return score


# Its files are those of a plain CLIPModel; only the name shows that the score is scaled.
SCORER = ScorerKind("pickscore", pickscore, names=("pickscore",))
