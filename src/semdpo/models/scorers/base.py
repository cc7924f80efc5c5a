"""Code that all scorers share: how a scorer describes itself to the registry, and how it scores in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from semdpo.errors import ModelError
from semdpo.models.device import Compute
from semdpo.models.images import rgb
from semdpo.models.registry import Place
from semdpo.protocols import Bool, ScoreBatch

# Takes b images and their prompts; gives scores, [b], and which prompts are longer than the scorer reads, [b].
ScoreFunction = Callable[[Sequence[Image.Image], Sequence[str]], tuple[Tensor, Bool]]


def _no_config(_config: Mapping[str, Any]) -> bool:
    return False


@dataclass(frozen=True)
class ScorerKind:
    """One kind of scorer: how its models are recognised and how one is loaded.

    Every file of ``semdpo.models.scorers`` has one, in the constant ``SCORER``. A model is recognised by ``names``
    first, then by ``kind``, ``files``, ``architectures`` and ``takes``, in this order.

    Attributes:
        kind: The kind's name in a folder's ``scorer.json``.
        load: The function that makes a score function from a model's place, on a device.
        names: The names of published models that nothing else distinguishes from another kind.
        files: The names of published checkpoints; a folder that holds one of them is of this kind.
        architectures: The classes of this kind that a folder's ``config.json`` may name.
        takes: A test of a ``config.json`` whose class no kind lists: whether this kind can score with the model.
        runs_code: Whether its models run Python code of their own, which the user must allow.
        reads_prompt: Whether its scores depend on the prompt.
    """

    kind: str
    load: Callable[[Place, Compute], ScoreFunction]
    names: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    takes: Callable[[Mapping[str, Any]], bool] = _no_config
    runs_code: bool = False
    reads_prompt: bool = True


@dataclass(frozen=True)
class BatchedScorer:
    """A scorer that works batch by batch, without gradients.

    Attributes:
        score_batch: The function that scores one batch.
        batch_size: The number of images scored at a time.
        reads_prompt: Whether the scores depend on the prompt.
    """

    score_batch: ScoreFunction
    batch_size: int
    reads_prompt: bool = True

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> ScoreBatch:
        """One score per image, higher is better; prompts longer than the scorer reads are truncated and flagged.

        Args:
            images: The images, n, of any size and mode; a scorer sees them as ``models.images.rgb`` converts them.
            prompts: The users' prompts, n.

        Raises:
            ModelError: The numbers of images and prompts differ, or a score is not finite.
            UnscoredError: The scorer has no score for an image; ask for each image alone to learn which.
        """
        if len(images) != len(prompts):
            raise ModelError(f"a score needs one prompt per image; got {len(images)} images and {len(prompts)} prompts")
        values = np.zeros(len(images), np.float32)
        truncated = np.zeros(len(images), np.bool_)
        for start in range(0, len(images), self.batch_size):
            rows = slice(start, start + self.batch_size)
            with torch.inference_mode():
                scores, truncated[rows] = self.score_batch([rgb(image) for image in images[rows]], prompts[rows])
            values[rows] = scores.float().cpu().numpy()
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise ModelError(
                f"the score of row {bad[0]} (prompt '{prompts[bad[0]][:60]}') is {values[bad[0]]}; the model's weights "
                "are broken or overflow: load it again in float32"
            )
        return ScoreBatch(values, truncated)
