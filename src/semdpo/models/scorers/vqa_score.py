"""VQAScore (Lin et al., arXiv 2404.01291): how sure a vision-language model is that the image shows the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from semdpo.errors import ModelError
from semdpo.models.device import Compute
from semdpo.models.loading import UNREADABLE, load_model, quiet, unreadable
from semdpo.models.registry import Place
from semdpo.models.scorers.base import ScoreFunction, ScorerKind
from semdpo.models.tokens import refuse_special_text
from semdpo.protocols import Bool

QUESTION = 'Does this figure show "{}"? Please answer yes or no.'
ANSWER = "Yes"


def vqa_score(place: Place, where: Compute) -> ScoreFunction:
    """exp(−cross-entropy of "Yes") as the answer to VQAScore's question, in [0, 1].

    Args:
        place: The place of an image-text-to-text model that transformers loads, with its processor.
        where: The device and the weights' type.

    Raises:
        ModelError: The folder cannot be read, or the tokenizer joins the answer with the question.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = place.folder()
    model = load_model(AutoModelForImageTextToText, folder, where)
    try:
        with quiet():
            processor: Any = AutoProcessor.from_pretrained(str(folder), local_files_only=True)
    except (*UNREADABLE, ImportError) as error:
        raise unreadable(folder, "processor", error) from error
    processor.tokenizer.padding_side = "left"  # so that every row ends with its answer
    if processor.tokenizer.pad_token_id is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    # The question is inside a template of special tokens, so special tokens' text in a prompt must be refused.
    placeholders = [
        text for name in ("image_token", "video_token") if isinstance(text := getattr(processor, name, None), str)
    ]
    answer = processor.tokenizer(ANSWER, add_special_tokens=False)["input_ids"]

    def score(images: Sequence[Image.Image], prompts: Sequence[str]) -> tuple[Tensor, Bool]:
        refuse_special_text(processor.tokenizer, prompts, place.name, placeholders)
        texts = [_question(processor, prompt) + ANSWER for prompt in prompts]
        rows = [[image] for image in images]
        with quiet():
            inputs = processor(images=rows, text=texts, padding=True, return_tensors="pt").to(where.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(where.dtype)
        ids = inputs["input_ids"][:, -len(answer) :]
        if any(row != answer for row in ids.tolist()):
            raise ModelError(f"'{folder}' reads '{ANSWER}' together with what precedes it; use another model")
        logits = model(**inputs).logits[:, -len(answer) - 1 : -1].float()
        logps = logits.log_softmax(-1).gather(-1, ids[:, :, None]).squeeze(-1)
        # Nothing is truncated: the processor reads the whole prompt, and the model reads thousands of tokens.
        return logps.mean(-1).exp(), np.zeros(len(texts), np.bool_)

    return score


def answers_questions(config: Mapping[str, Any]) -> bool:
    """Whether transformers loads a model with this ``config.json`` as an image-text-to-text model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    return config.get("model_type") in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


def _question(processor: Any, prompt: str) -> str:
    question = QUESTION.format(prompt)
    if getattr(processor, "chat_template", None) is None:
        return f"{getattr(processor, 'image_token', '<image>')}\n{question} "
    content = [{"type": "image"}, {"type": "text", "text": question}]
    text: str = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return text


SCORER = ScorerKind("vqa-score", vqa_score, takes=answers_questions)
