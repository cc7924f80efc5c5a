"""PickScore (Kirstain et al., arXiv 2305.01569): a CLIP tuned on people's choices between pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from semdpo.models.clip import CLIPTowers
from semdpo.models.loading import Texts, load_image_processor, pixels
from semdpo.models.scorers import score_in_batches
from semdpo.protocols import ScoreBatch


class PickScorer:
    """exp(logit_scale)·cos; a softmax over the pictures of one prompt gives the probability of being picked.

    Args:
        folder: a saved CLIPModel with tokenizer and image processor.
        batch_size: pictures at a time.
    """

    def __init__(self, folder: Path, batch_size: int) -> None:
        self._towers = CLIPTowers(folder)
        self._processor = load_image_processor(folder)
        self._batch_size = batch_size

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> ScoreBatch:
        """Scaled cosines, [n]; prompts that are longer than the model reads are cut and flagged.

        Raises:
            ModelError: as many pictures as prompts are not given, or a score is not finite.
        """
        return score_in_batches(self._batch, images, prompts, self._batch_size)

    def _batch(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> tuple[Tensor, Texts]:
        text, tokens = self._towers.texts(prompts)
        cosine = (self._towers.images(pixels(self._processor, images)) * text).sum(-1)
        return self._towers.model.logit_scale.exp() * cosine, tokens
