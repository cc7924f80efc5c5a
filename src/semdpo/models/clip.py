"""CLIP's two towers (Radford et al., arXiv 2103.00020), which encode texts and images.

The number of tokens that a CLIP reads is that of its table of positions: 77 of OpenAI's, 248 of Long-CLIP's. What the
tokenizer says does not count: those of long CLIPs are copies of OpenAI's, and many still say 77.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPModel

from semdpo.errors import ModelError
from semdpo.models import long_clip
from semdpo.models.device import Compute
from semdpo.models.loading import TRIAL, Texts, load_model, load_tokenizer, refuse_unfit, tokenize
from semdpo.models.registry import Place

_LEGACY_END = 2  # transformers reads this end id as "pool at the largest id", as OpenAI's own code does


class CLIPTowers:
    """A CLIPModel with its tokenizer; embeddings have unit length, in float32.

    Args:
        model: A CLIPModel, ready to compute.
        tokenizer: The model's tokenizer.
        source: The model's folder or file, for messages.

    Raises:
        ModelError: The model and the tokenizer have different end tokens. transformers would then silently pool each
            text at its first token.
    """

    def __init__(self, model: Any, tokenizer: Any, source: Path) -> None:
        self.model, self.tokenizer = model, tokenizer
        text = model.config.text_config
        end = tokenizer.eos_token_id
        legacy = text.eos_token_id == _LEGACY_END and end == len(tokenizer) - 1
        if not legacy and (text.eos_token_id != end or end == _LEGACY_END):
            raise ModelError(
                f"'{source}' has text_config.eos_token_id {text.eos_token_id}, but its tokenizer ends texts with "
                f"{end}; set both to one id (not {_LEGACY_END}, which means the largest)"
            )
        self.max_tokens: int = text.max_position_embeddings

    def texts(self, texts: Sequence[str]) -> tuple[Tensor, Texts]:
        """The texts' unit vectors, [n, dim], and their tokens."""
        tokens = tokenize(self.tokenizer, texts, self.max_tokens, self.model.device)
        # transformers 5 returns an object here; its pooler_output is the projected vector.
        vectors = self.model.get_text_features(tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
        return torch.nn.functional.normalize(vectors.float(), dim=-1), tokens

    def images(self, pixel_values: Tensor) -> Tensor:
        """The unit vectors of normalised images: [n, 3, height, width] to [n, dim]."""
        values = pixel_values.to(self.model.device, self.model.dtype)
        vectors: Tensor = self.model.get_image_features(values).pooler_output
        return torch.nn.functional.normalize(vectors.float(), dim=-1)


def load_towers(place: Place, where: Compute) -> CLIPTowers:
    """The towers of a saved CLIPModel, or of the file of Long-CLIP's authors.

    Raises:
        ModelError: The folder cannot be read.
    """
    folder = place.folder()
    own = long_clip.checkpoint(folder)
    model = load_model(CLIPModel, folder, where) if own is None else long_clip.load(own, where)
    tokenizer = load_tokenizer(place.tokenizer_folder())
    tokens = tokenizer([TRIAL, "a"], padding=True)["input_ids"]
    refuse_unfit([token for row in tokens for token in row], model.text_model.get_input_embeddings(), folder)
    return CLIPTowers(model, tokenizer, folder)
