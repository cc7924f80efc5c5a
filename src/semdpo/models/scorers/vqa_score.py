"""VQAScore (Lin et al., arXiv 2404.01291): how sure a vision-language model is that the image shows the prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from semdpo.models.device import Compute
from semdpo.models.registry import Place
from semdpo.models.scorers.base import ScoreFunction, ScorerKind
from semdpo.models.vision_language import VisionLanguage, answers_questions
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
    model = VisionLanguage(place, where)

    def score(images: Sequence[Image.Image], prompts: Sequence[str]) -> tuple[Tensor, Bool]:
        logps, ids = model.log_probabilities(images, [QUESTION.format(prompt) for prompt in prompts], prompts, ANSWER)
        answer = logps[:, :-1].gather(-1, ids[:, :, None]).squeeze(-1)
        # Nothing is truncated: the processor reads the whole prompt, and the model reads thousands of tokens.
        return answer.mean(-1).exp(), np.zeros(len(prompts), np.bool_)

    return score


SCORER = ScorerKind("vqa-score", vqa_score, takes=answers_questions)
