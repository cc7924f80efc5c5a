"""Human Preference Score v2.1 (Wu et al., arXiv 2306.09341): a CLIP with preprocessing of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from semdpo.models.clip import CLIPTowers
from semdpo.models.loading import Texts, load_image_processor
from semdpo.models.scorers import score_in_batches
from semdpo.protocols import ScoreBatch


def fit_square(image: Image.Image, side: int) -> Tensor:
    """The picture inside a black square, its longest side resized to ``side``.

    It becomes float before it is resized (bicubic, antialiased), so nothing is rounded to whole grey levels in
    between; a square picture is only resized.

    Args:
        image: any size and mode.
        side: pixels.

    Returns:
        [3, side, side], about 0 to 1 (bicubic interpolation may overshoot a little, as upstream's does).
    """
    values = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255
    height, width = values.shape[1:]
    scale = side / max(height, width)
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    if size != [height, width]:
        values = F.interpolate(values[None], size=size, mode="bicubic", antialias=True, align_corners=False)[0]
    below, beside = side - size[0], side - size[1]
    return F.pad(values, (beside // 2, beside - beside // 2, below // 2, below - below // 2))


class HPSScorer:
    """The cosine of picture and prompt under HPS v2.1, unscaled (tables often show it times 100).

    Args:
        folder: a saved CLIPModel (of ViT-H-14's structure) with tokenizer and image processor.
        batch_size: pictures at a time.
    """

    def __init__(self, folder: Path, batch_size: int) -> None:
        self._towers = CLIPTowers(folder)
        processor = load_image_processor(folder)
        self._mean = torch.tensor(processor.image_mean).view(3, 1, 1)
        self._std = torch.tensor(processor.image_std).view(3, 1, 1)
        self._side: int = self._towers.model.config.vision_config.image_size
        self._batch_size = batch_size

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> ScoreBatch:
        """Cosines, [n]; prompts that are longer than the model reads are cut and flagged.

        Raises:
            ModelError: as many pictures as prompts are not given, or a score is not finite.
        """
        return score_in_batches(self._batch, images, prompts, self._batch_size)

    def _batch(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> tuple[Tensor, Texts]:
        text, tokens = self._towers.texts(prompts)
        values = torch.stack([fit_square(image, self._side) for image in images])
        return (self._towers.images((values - self._mean) / self._std) * text).sum(-1), tokens
