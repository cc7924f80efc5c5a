"""A scorer behind a URL: VQAScore's question to any chat model that reads images and tells its tokens' probabilities.

The score is that of ``scorers.vqa_score`` (Lin et al., arXiv 2404.01291): the probability of "Yes" as the first token
of the answer, as ``endpoint_question`` finds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from semdpo.errors import ModelError, PartlyRefusedError, RefusedRequestError
from semdpo.models.endpoint_question import Asker, Question
from semdpo.models.scorers.vqa_score import ANSWER, QUESTION
from semdpo.protocols import ScoreBatch
from semdpo.recipe.endpoints import EndpointConfig
from semdpo.texts import shown

if TYPE_CHECKING:
    from PIL import Image


def load_endpoint_scorer(url: str, settings: EndpointConfig | None = None) -> EndpointScorer:
    """A scorer behind a URL. The server is asked at once only if the settings name no model.

    Args:
        url: the server's address, such as ``http://localhost:8000/v1``.
        settings: how the server is asked; None is the default settings.

    Raises:
        ConfigError: the library ``openai`` is not installed.
        EndpointError: the URL is none, or the settings name no model and the server does not offer only one.
    """
    return EndpointScorer(Asker(url, settings or EndpointConfig(), "a scorer"))


class EndpointScorer:
    """Asks a server how sure its model is that an image shows a prompt; each image is one request.

    Args:
        asker: what asks the server.
    """

    def __init__(self, asker: Asker) -> None:
        self.asker, self.model = asker, asker.model

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> ScoreBatch:
        """One score per image, in [0, 1], higher is better; whether a prompt was truncated is not known.

        Args:
            images: the images, n, of any size and mode; they are sent as PNG files.
            prompts: the users' prompts, n.

        Raises:
            PartlyRefusedError: the server works and refuses some of the requests, or its model says neither yes nor no.
            EndpointError: the server cannot be used, or tells no probabilities.
            ModelError: the numbers of images and prompts differ.
        """
        if len(images) != len(prompts):
            raise ModelError(f"a score needs one prompt per image; got {len(images)} images and {len(prompts)} prompts")
        outcomes = self.asker.outcomes([_question(*row) for row in zip(images, prompts, strict=True)])
        scores = [each for each in outcomes if not isinstance(each, RefusedRequestError)]
        if len(scores) < len(outcomes):
            rounded = (float(np.float32(each)) if isinstance(each, float) else each for each in outcomes)
            raise PartlyRefusedError([(each, False) if isinstance(each, float) else each for each in rounded])
        return ScoreBatch(np.array(scores, np.float32), np.zeros(len(scores), np.bool_))


def _question(image: Image.Image, prompt: str) -> Question:
    return image, QUESTION.format(prompt), (ANSWER.casefold(),), f"answers neither yes nor no about {shown(prompt)}"
