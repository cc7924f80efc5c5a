"""A scorer behind a URL: VQAScore's question to any chat model that reads images and tells its tokens' probabilities.

The score is that of ``scorers.vqa_score`` (Lin et al., arXiv 2404.01291): the probability of "Yes" as the first token
of the answer. A server tells only the most probable tokens, as text. All that read "yes" without outer blanks and
capitals are added up, while a model with files counts one token.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from semdpo.errors import EndpointError, ModelError, PartlyRefusedError, RefusedRequestError
from semdpo.models.chat_server import ChatServer
from semdpo.models.images import rgb
from semdpo.models.scorers.vqa_score import ANSWER, QUESTION
from semdpo.models.server import at_once
from semdpo.protocols import ScoreBatch
from semdpo.recipe.endpoints import EndpointConfig
from semdpo.texts import shown

if TYPE_CHECKING:
    from PIL import Image

TOP = 20  # the most probable tokens that OpenAI's reference allows to ask for, and vLLM unless started with more
UNSEEN = 0.001  # where "Yes" is not listed and has less than this probability, the score is 0


def load_endpoint_scorer(url: str, settings: EndpointConfig | None = None) -> EndpointScorer:
    """A scorer behind a URL. The server is asked at once only if the settings name no model.

    Args:
        url: the server's address, such as ``http://localhost:8000/v1``.
        settings: how the server is asked; None is the default settings.

    Raises:
        ConfigError: the library ``openai`` is not installed.
        EndpointError: the URL is none, or the settings name no model and the server does not offer only one.
    """
    server = ChatServer(url, settings or EndpointConfig(), "a scorer behind a URL")
    return EndpointScorer(server, server.settings.model_name or server.only_model())


class EndpointScorer:
    """Asks a server how sure its model is that an image shows a prompt; each image is one request.

    Args:
        server: the server.
        model: the model's name on the server.
    """

    def __init__(self, server: ChatServer, model: str) -> None:
        self.server, self.model = server, model

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
        rows = list(zip(images, prompts, strict=True))
        outcomes = at_once(self._attempted, rows, self.server.settings.concurrency)
        scores = [each for each in outcomes if not isinstance(each, RefusedRequestError)]
        if len(scores) < len(outcomes):
            rounded = (float(np.float32(each)) if isinstance(each, float) else each for each in outcomes)
            raise PartlyRefusedError([(each, False) if isinstance(each, float) else each for each in rounded])
        return ScoreBatch(np.array(scores, np.float32), np.zeros(len(scores), np.bool_))

    def _attempted(self, row: tuple[Image.Image, str]) -> float | RefusedRequestError:
        try:
            return self._score(*row)
        except RefusedRequestError as error:
            return error

    def _score(self, image: Image.Image, prompt: str) -> float:
        choice, message = self.server.choice(self.fields(image, prompt))
        if choice.get("finish_reason") == "content_filter" or message.get("refusal"):
            raise RefusedRequestError(f"{self.server.url} withholds its answer about {shown(prompt)}; give another one")
        chosen, listed = self._listed(choice)
        value = p_yes(chosen, listed)
        if value is None:
            raise RefusedRequestError(
                f"'{self.model}' of {self.server.url} answers neither yes nor no about {shown(prompt)}: its answer "
                f"begins with {self.server.shown(shown(max(listed, key=lambda each: each[1])[0]))}; switch off its "
                "thinking in the body of its settings, or use another model"
            )
        return value

    def fields(self, image: Image.Image, prompt: str) -> dict[str, Any]:
        """The fields of a request; the body's own come last, and its null leaves a field out.

        At temperature 1, with all tokens, probabilities are the model's own also on servers that tell them as they
        sample.
        """
        content = [
            {"type": "image_url", "image_url": {"url": _data_url(image)}},
            {"type": "text", "text": QUESTION.format(prompt)},
        ]
        fields = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": 1,
            "temperature": 1.0,
            "top_p": 1.0,
            "logprobs": True,
            "top_logprobs": TOP,
        } | self.server.settings.body
        return {name: value for name, value in fields.items() if value is not None}

    def _listed(self, choice: Any) -> tuple[str, list[tuple[str, float]]]:
        """The first token of an answer, and the most probable tokens with the logarithms of their probabilities."""
        try:
            first = choice["logprobs"]["content"][0]
            chosen = str(first["token"])
            listed = [(str(each["token"]), float(each["logprob"])) for each in first["top_logprobs"]]
            if not listed:
                raise ValueError
        except (TypeError, KeyError, IndexError, ValueError) as error:
            raise EndpointError(
                f"{self.server.url} tells no probabilities of tokens (logprobs and top_logprobs), which a scorer "
                "needs; use a server that does, such as vLLM"
            ) from error
        whole = math.fsum(math.exp(min(logp, 1.0)) for _, logp in listed)
        if not whole <= 1.01:  # written so that a NaN is refused, too
            raise EndpointError(
                f"{self.server.url} tells probabilities of tokens that sum to {whole:.3g}, and not to 1 or less; "
                "use another server"
            )
        return chosen, listed


def p_yes(chosen: str, listed: Sequence[tuple[str, float]]) -> float | None:
    """The probability of "Yes", whatever its outer blanks and capitals.

    Args:
        chosen: the token that was sampled, which servers add to the most probable ones.
        listed: the most probable tokens and the natural logarithms of their probabilities.

    Returns:
        The sum over the tokens that read so. Where none does, "Yes" is at most as probable as all tokens that are not
        listed, and as the last one that is: 0 if that is less than ``UNSEEN``, else None.
    """
    found = [math.exp(logp) for token, logp in listed if token.strip().casefold() == ANSWER.casefold()]
    if found:
        return min(math.fsum(found), 1.0)
    probable = [math.exp(logp) for _, logp in listed]
    most = [math.exp(logp) for token, logp in listed if token != chosen] or [1.0]
    return 0.0 if min(1 - math.fsum(probable), *most) < UNSEEN else None


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    rgb(image).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
