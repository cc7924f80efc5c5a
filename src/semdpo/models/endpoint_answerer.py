"""A model behind a URL that answers atoms: the probability of the right answer, asked as ``answerer`` asks a folder's.

A server tells the most probable tokens as text. A number's spellings are its word and its digits; a word that the
server's tokenizer splits is not among the tokens, and its question is refused unless that answer is improbable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from semdpo.errors import ModelError, PartlyRefusedError, RefusedRequestError
from semdpo.models.answerer import ASKED, spellings
from semdpo.models.endpoint_question import Asker, Question
from semdpo.protocols import Float64
from semdpo.recipe.endpoints import EndpointConfig
from semdpo.texts import shown

if TYPE_CHECKING:
    from PIL import Image


def load_endpoint_answerer(url: str, settings: EndpointConfig | None = None) -> EndpointAnswerer:
    """A model behind a URL that answers questions; it is asked at once only if the settings name no model.

    Args:
        url: the server's address, such as ``http://localhost:8000/v1``.
        settings: how the server is asked; None is the default settings.

    Raises:
        ConfigError: the library ``openai`` is not installed.
        EndpointError: the URL is none, or the settings name no model and the server does not offer only one.
    """
    return EndpointAnswerer(Asker(url, settings or EndpointConfig(), "a model that answers atoms"))


class EndpointAnswerer:
    """Asks a server about images; each question is one request.

    Args:
        asker: what asks the server.
    """

    def __init__(self, asker: Asker) -> None:
        self.asker = asker

    def answer(self, images: Sequence[Image.Image], questions: Sequence[tuple[str, str]]) -> Float64:
        """The probability of the right answer about each image, [n].

        Args:
            images: the images, n, of any size and mode; they are sent as PNG files.
            questions: what is asked about each image, and the right answer, n.

        Raises:
            PartlyRefusedError: the server works and refuses some of the requests, or its model answers something else;
                its outcomes are the probabilities of the others.
            EndpointError: the server cannot be used, or tells no probabilities.
            ModelError: the numbers of images and questions differ.
        """
        if len(images) != len(questions):
            raise ModelError(f"a question needs an image; got {len(images)} images and {len(questions)} questions")
        rows = [_question(image, *asked) for image, asked in zip(images, questions, strict=True)]
        outcomes = self.asker.outcomes(rows)
        if any(isinstance(each, RefusedRequestError) for each in outcomes):
            raise PartlyRefusedError(outcomes)
        return np.array(outcomes, np.float64)


def _question(image: Image.Image, question: str, right: str) -> Question:
    answers = {text.strip().casefold() for text in spellings(right)}
    lacking = f"does not tell how probable '{right}' is as the answer to {shown(question)}"
    return image, ASKED.format(question), answers, lacking
