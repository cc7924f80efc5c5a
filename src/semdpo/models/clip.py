"""CLIP's two towers (Radford et al., arXiv 2103.00020) and the CLIP score made from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPModel

from semdpo.errors import ModelError
from semdpo.models.loading import Texts, load_image_processor, load_model, load_tokenizer, pixels, tokenize
from semdpo.models.scorers import score_in_batches
from semdpo.protocols import ScoreBatch

_LEGACY_END = 2  # transformers reads this end id as "pool at the largest id", as OpenAI's own code does


class CLIPTowers:
    """A CLIPModel with its tokenizer; embeddings come out at unit length.

    Args:
        folder: a saved CLIPModel with tokenizer.

    Raises:
        ModelError: the folder cannot be read, or the model's end token is not the tokenizer's (transformers would
            then pool each text at its first token without a word).
    """

    def __init__(self, folder: Path) -> None:
        self.model = load_model(CLIPModel, folder)
        self.tokenizer = load_tokenizer(folder)
        text = self.model.config.text_config
        end = self.tokenizer.eos_token_id
        legacy = text.eos_token_id == _LEGACY_END and end == len(self.tokenizer) - 1
        if not legacy and (text.eos_token_id != end or end == _LEGACY_END):
            raise ModelError(
                f"'{folder}' has text_config.eos_token_id {text.eos_token_id}, but its tokenizer ends texts with "
                f"{end}; set both to one id (not {_LEGACY_END}, which means the largest)"
            )
        self.max_tokens = min(text.max_position_embeddings, self.tokenizer.model_max_length)

    def texts(self, texts: Sequence[str]) -> tuple[Tensor, Texts]:
        """Unit vectors of texts, [n, dim], and their tokens."""
        tokens = tokenize(self.tokenizer, texts, self.max_tokens)
        # transformers 5 returns an object here; its pooler_output is the projected vector.
        vectors = self.model.get_text_features(tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
        return torch.nn.functional.normalize(vectors, dim=-1), tokens

    def images(self, pixel_values: Tensor) -> Tensor:
        """Unit vectors of normalised pictures: [n, 3, height, width] to [n, dim]."""
        vectors: Tensor = self.model.get_image_features(pixel_values).pooler_output
        return torch.nn.functional.normalize(vectors, dim=-1)


class CLIPScorer:
    """The CLIP score: the cosine of picture and prompt, unscaled, in [-1, 1].

    Args:
        folder: a saved CLIPModel with tokenizer and image processor.
        batch_size: pictures at a time.
    """

    def __init__(self, folder: Path, batch_size: int) -> None:
        self._towers = CLIPTowers(folder)
        self._processor = load_image_processor(folder)
        self._batch_size = batch_size

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> ScoreBatch:
        """Cosines, [n]; prompts that are longer than CLIP reads are cut and flagged.

        Raises:
            ModelError: as many pictures as prompts are not given, or a score is not finite.
        """
        return score_in_batches(self._batch, images, prompts, self._batch_size)

    def _batch(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> tuple[Tensor, Texts]:
        text, tokens = self._towers.texts(prompts)
        return (self._towers.images(pixels(self._processor, images)) * text).sum(-1), tokens
