"""BLIP's image-text matching (Li et al., arXiv 2201.12086): does this text describe this image?"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from torch import Tensor
from transformers import BlipForImageTextRetrieval

from semdpo.errors import ModelError
from semdpo.models.device import Compute
from semdpo.models.loading import load_image_processor, load_model, load_tokenizer, pixels, tokenize
from semdpo.models.registry import Place
from semdpo.models.scorers.base import ScoreFunction, ScorerKind
from semdpo.protocols import Bool

MAX_TOKENS = 35  # upstream truncates the text at 35 tokens, whatever the tokenizer or the text tower allow


def blip_itm(place: Place, where: Compute) -> ScoreFunction:
    """The matching head's probability that image and prompt belong together, in [0, 1].

    Args:
        place: The place of a saved BlipForImageTextRetrieval with tokenizer and image processor.
        where: The device and the weights' type.

    Raises:
        ModelError: The folder cannot be read, or its text tower has BERT-base's width without its 12 heads
            (transformers' default is 8, which loads and scores wrong).
    """
    folder = place.folder()
    model = load_model(BlipForImageTextRetrieval, folder, where)
    processor, tokenizer = load_image_processor(folder), load_tokenizer(place.tokenizer_folder())
    text = model.config.text_config
    if text.hidden_size == 768 and text.num_attention_heads != 12:
        raise ModelError(
            f"'{folder}' gives BLIP's text tower {text.num_attention_heads} heads; set "
            "text_config.num_attention_heads to 12 in config.json"
        )
    max_tokens = min(MAX_TOKENS, text.max_position_embeddings, tokenizer.model_max_length)

    def score(images: Sequence[Image.Image], prompts: Sequence[str]) -> tuple[Tensor, Bool]:
        tokens = tokenize(tokenizer, prompts, max_tokens, where.device)
        output = model(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            pixel_values=pixels(processor, images).to(where.device, where.dtype),
        )
        return output.itm_score.float().softmax(-1)[:, 1], tokens.truncated

    return score


SCORER = ScorerKind("blip-itm", blip_itm, architectures=("BlipForImageTextRetrieval",))
