"""What all judges of pictures share: they are asked batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from semdpo.errors import ModelError
from semdpo.models.images import rgb
from semdpo.protocols import Bool, ScoreBatch

# Some pictures and their prompts to scores, [b], and which prompts were longer than the judge reads, [b].
Judge = Callable[[Sequence[Image.Image], Sequence[str]], tuple[Tensor, Bool]]


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
            images: pictures, n, of any size and mode; a judge sees them as ``models.images.rgb`` does.
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
                scores, truncated[rows] = self.judge([rgb(image) for image in images[rows]], prompts[rows])
            values[rows] = scores.float().cpu().numpy()
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise ModelError(
                f"the score of row {bad[0]} (prompt '{prompts[bad[0]][:60]}') is {values[bad[0]]}; the model's weights "
                "are broken or overflow: load it again in float32"
            )
        return ScoreBatch(values, truncated)
