"""The CLIP score (Hessel et al., arXiv 2104.08718): how close CLIP's vectors of image and prompt are."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from semdpo.models import long_clip
from semdpo.models.clip import load_towers
from semdpo.models.device import Compute
from semdpo.models.loading import load_image_processor, pixels
from semdpo.models.registry import Place
from semdpo.models.scorers.base import ScoreFunction, ScorerKind
from semdpo.protocols import Bool


def clip_score(place: Place, where: Compute) -> ScoreFunction:
    """The cosine of image and prompt, in [-1, 1]; unlike the paper's score, neither scaled by 2.5 nor clipped at 0.

    Args:
        place: The place of a saved CLIPModel with tokenizer and image processor, or of Long-CLIP's own file, which is
            shown images as the CLIP is whose tokenizer it has.
        where: The device and the weights' type.

    Raises:
        ModelError: The folder cannot be read.
    """
    folder = place.folder() if long_clip.checkpoint(place.folder()) is None else place.tokenizer_folder()
    towers, processor = load_towers(place, where), load_image_processor(folder)

    def score(images: Sequence[Image.Image], prompts: Sequence[str]) -> tuple[Tensor, Bool]:
        text, tokens = towers.texts(prompts)
        return (towers.images(pixels(processor, images)) * text).sum(-1), tokens.truncated

    return score


SCORER = ScorerKind("clip-score", clip_score, files=long_clip.FILES, architectures=("CLIPModel",))
