"""PickScore (Kirstain et al., arXiv 2305.01569): a CLIP tuned on people's choices between pictures."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from semdpo.models.clip import load_towers
from semdpo.models.device import Compute
from semdpo.models.loading import load_image_processor, pixels
from semdpo.models.registry import Place
from semdpo.models.scorers.batched import Judge
from semdpo.protocols import Bool


def pickscore(place: Place, where: Compute) -> Judge:
    """exp(logit_scale)·cos; a softmax over the pictures of one prompt gives the probability of being picked.

    Args:
        place: a saved CLIPModel; tokenizer and image processor lie in ``place.texts()``, as upstream takes them from
            the CLIP that it was tuned from.
        where: it computes.

    Raises:
        ModelError: a folder cannot be read.
    """
    towers, processor = load_towers(place, where), load_image_processor(place.texts())

    def judge(images: Sequence[Image.Image], prompts: Sequence[str]) -> tuple[Tensor, Bool]:
        text, tokens = towers.texts(prompts)
        cosine = (towers.images(pixels(processor, images)) * text).sum(-1)
        return towers.model.logit_scale.float().exp() * cosine, tokens.truncated

    return judge
