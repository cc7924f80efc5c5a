"""Long-CLIP (Zhang et al., ECCV 2024, arXiv 2403.15378) as its authors publish it: a CLIP that reads 248 tokens.

Its file has two tables of positions. The first 20 positions are those of CLIP, and are taken from the one; all others
were stretched to four times their number and trained, and are taken from the other. Nothing is interpolated here: the
published tables are complete. Their sum is the table of a CLIPModel, as in the conversions that others publish.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from semdpo.errors import ModelError
from semdpo.models.checkpoint import load_strictly, read_checkpoint
from semdpo.models.device import Compute
from semdpo.models.loading import no_weights
from semdpo.models.openai_clip import to_clip

FILES = ("longclip-L.pt", "longclip-B.pt", "longclip-B-32.pt")
KEPT = 20  # positions of CLIP's own table, ``mask1`` in the authors' model_longclip.py
HEAD = 64  # the width of an attention head, of both towers
_TABLE, _REST = "positional_embedding", "positional_embedding_res"


def checkpoint(folder: Path) -> Path | None:
    """The authors' file in a folder; None where there is none."""
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def load(path: Path, where: Compute) -> CLIPModel:
    """The CLIPModel of an authors' file, in evaluation mode.

    Args:
        path: One of ``FILES``.
        where: The device and the weights' type.

    Raises:
        ModelError: The file cannot be read, or its weights are not Long-CLIP's.
    """
    state = read_checkpoint(path)
    if _TABLE not in state or _REST not in state or state[_TABLE].shape != state[_REST].shape:
        raise ModelError(
            f"'{path}' has no two tables of positions of one size ({_TABLE} and {_REST}), so it is not Long-CLIP's; "
            "download the published file again"
        )
    state[_TABLE] = torch.cat([state[_TABLE][:KEPT], state.pop(_REST)[KEPT:]])
    try:
        with no_weights():
            model = CLIPModel(CLIPConfig(**config_of(state)))
    except (LookupError, ValueError, ArithmeticError) as error:
        raise ModelError(f"'{path}' lacks weights of a CLIP ({error}); download the published file again") from error
    load_strictly(model, to_clip(state), path)
    return model.to(where.device, where.dtype).eval()


def config_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings of the CLIPModel that some weights are of, from their shapes.

    Args:
        state: The weights, by OpenAI's names.

    Raises:
        KeyError: A weight is missing.
    """
    words, width = state["token_embedding.weight"].shape
    seen, _, _, patch = state["visual.conv1.weight"].shape
    side = isqrt(state["visual.positional_embedding"].shape[0] - 1) * patch
    dimension = state["text_projection"].shape[1]
    return {
        "projection_dim": dimension,
        "text_config": _tower(state, "", width)
        | {
            "vocab_size": words,
            "projection_dim": dimension,
            "max_position_embeddings": state[_TABLE].shape[0],
            # As in CLIP's vocabulary, the last two tokens begin and end a text.
            "bos_token_id": words - 2,
            "eos_token_id": words - 1,
            "pad_token_id": words - 1,
        },
        "vision_config": _tower(state, "visual.", seen)
        | {"projection_dim": dimension, "image_size": side, "patch_size": patch},
    }


def _tower(state: Mapping[str, Tensor], tower: str, width: int) -> dict[str, Any]:
    blocks = f"{tower}transformer.resblocks."
    numbers = {name.removeprefix(blocks).partition(".")[0] for name in state if name.startswith(blocks)}
    return {
        "hidden_size": width,
        "intermediate_size": state[f"{blocks}0.mlp.c_fc.weight"].shape[0],
        "num_hidden_layers": len(numbers),
        "num_attention_heads": width // HEAD,
        "hidden_act": "quick_gelu",
    }
