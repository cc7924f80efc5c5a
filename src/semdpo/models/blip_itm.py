"""BLIP's image-text matching (Li et al., arXiv 2201.12086): does this text describe this picture?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor
from transformers import BlipForImageTextRetrieval

from semdpo.errors import ModelError
from semdpo.models.loading import Texts, load_image_processor, load_model, load_tokenizer, pixels, tokenize
from semdpo.models.scorers import score_in_batches
from semdpo.protocols import ScoreBatch


class BlipMatchScorer:
    """The matching head's probability that picture and prompt belong together, in [0, 1].

    Args:
        folder: a saved BlipForImageTextRetrieval with tokenizer and image processor.
        batch_size: pictures at a time.

    Raises:
        ModelError: the folder cannot be read, or its text tower has BERT-base's width without its 12 heads
            (transformers' default is 8, which loads and scores wrong).
    """

    def __init__(self, folder: Path, batch_size: int) -> None:
        self._model = load_model(BlipForImageTextRetrieval, folder)
        self._processor = load_image_processor(folder)
        self._tokenizer = load_tokenizer(folder)
        text = self._model.config.text_config
        if text.hidden_size == 768 and text.num_attention_heads != 12:
            raise ModelError(
                f"'{folder}' gives BLIP's text tower {text.num_attention_heads} heads; set "
                "text_config.num_attention_heads to 12 in config.json"
            )
        self._max_tokens = min(text.max_position_embeddings, self._tokenizer.model_max_length)
        self._batch_size = batch_size

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> ScoreBatch:
        """Probabilities, [n]; prompts that are longer than the model reads are cut and flagged.

        Raises:
            ModelError: as many pictures as prompts are not given, or a score is not finite.
        """
        return score_in_batches(self._batch, images, prompts, self._batch_size)

    def _batch(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> tuple[Tensor, Texts]:
        tokens = tokenize(self._tokenizer, prompts, self._max_tokens)
        output = self._model(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            pixel_values=pixels(self._processor, images),
        )
        return output.itm_score.softmax(-1)[:, 1], tokens
