"""LAION's aesthetic predictors: how much people like an image, whatever its prompt; a head on CLIP ViT-L/14's vector.

The second predictor is the one that papers call "aesthetic score" (christophschuhmann/improved-aesthetic-predictor,
Apache-2.0); the first one is a single linear layer (LAION-AI/aesthetic-predictor, MIT).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor, nn

from semdpo.errors import ModelError
from semdpo.models.checkpoint import load_strictly, read_checkpoint
from semdpo.models.clip import load_towers
from semdpo.models.device import Compute
from semdpo.models.loading import load_image_processor, pixels
from semdpo.models.registry import Place
from semdpo.models.scorers.base import ScoreFunction, ScorerKind
from semdpo.protocols import Bool

# The second predictor: sac+logos+ava1 is the one that everybody uses, and the hub has it under the first name.
SECOND = ("aesthetic-model.pth", "sac+logos+ava1-l14-linearMSE.pth", "ava+logos-l14-linearMSE.pth")
FIRST = ("sa_0_4_vit_l_14_linear.pth",)
WIDTHS = (1024, 128, 64, 16, 1)


def second_head(width: int) -> nn.Sequential:
    """The head of the second predictor: five linear layers without activations, with dropout after the first three.

    Args:
        width: The length of the image's vector; published 768.
    """
    layers: list[nn.Module] = []
    for index, (width_in, width_out) in enumerate(pairwise((width, *WIDTHS))):
        layers.append(nn.Linear(width_in, width_out))
        if index < 3:
            layers.append(nn.Dropout(0.1 if index == 2 else 0.2))
    return nn.Sequential(*layers)


def load_head(path: Path, width: int) -> nn.Module:
    """The head in a published checkpoint, in float32 and in evaluation mode.

    Args:
        path: The checkpoint; its name says which predictor it is.
        width: The length of the image's vector.

    Raises:
        ModelError: The file cannot be read, or its weights do not fit.
    """
    head: nn.Module = nn.Linear(width, 1)
    state = read_checkpoint(path)
    if path.name in SECOND:
        head = second_head(width)
        state = {name.removeprefix("layers."): weight for name, weight in state.items()}
    load_strictly(head, state, path)
    return head.float().eval()


def aesthetic(place: Place, where: Compute) -> ScoreFunction:
    """The predicted rating of the image, about 1 to 10; the prompt is not read.

    Args:
        place: The place of a published checkpoint. CLIP ViT-L/14 is in ``place.base_place()``.
        where: The device and the weights' type; the head is always in float32.

    Raises:
        ModelError: A folder cannot be read or holds two predictors, or the weights do not fit.
    """
    folder, base = place.folder(), place.base_place()
    found = [folder / name for name in (*SECOND, *FIRST) if (folder / name).is_file()]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or f"none of {', '.join((*SECOND, *FIRST))}"
        raise ModelError(f"'{folder}' must hold one aesthetic predictor and has {names}; leave one of them there")
    towers, processor = load_towers(base, where), load_image_processor(base.folder())
    head = load_head(found[0], towers.model.config.projection_dim).to(where.device)

    def score(images: Sequence[Image.Image], prompts: Sequence[str]) -> tuple[Tensor, Bool]:
        vectors = towers.images(pixels(processor, images))
        return head(vectors).squeeze(-1), np.zeros(len(prompts), np.bool_)

    return score


SCORER = ScorerKind("laion-aesthetic", aesthetic, files=(*SECOND, *FIRST), reads_prompt=False)
