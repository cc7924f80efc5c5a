"""Questions about images to a chat model behind a URL: how probable one answer is, by its tokens' probabilities.

A server tells only the most probable tokens, as text. All that read like the answer without outer blanks and capitals
are added up, while a model with files counts tokens by their numbers.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from semdpo.errors import EndpointError, RefusedRequestError
from semdpo.models.chat_server import ChatServer
from semdpo.models.images import rgb
from semdpo.models.server import at_once
from semdpo.recipe.endpoints import EndpointConfig
from semdpo.texts import shown

if TYPE_CHECKING:
    from PIL import Image

TOP = 20  # the most probable tokens that OpenAI's reference allows to ask for, and vLLM unless started with more
UNSEEN = 0.001  # where the answer is not listed and has less than this probability, it counts as 0

# An image, the text of the question, the spellings of the answer, what a message says of an answer without any of them.
Question = tuple["Image.Image", str, Collection[str], str]


class Asker:
    """Asks a server questions about images; each is one request.

    Args:
        url: the server's address, such as ``http://localhost:8000/v1``.
        settings: how the server is asked; without a model's name, the only model that it offers is asked.
        use: what asks it, such as ``a scorer``.

    Raises:
        ConfigError: the library ``openai`` is not installed.
        EndpointError: the URL is none, or the settings name no model and the server does not offer only one.
    """

    def __init__(self, url: str, settings: EndpointConfig, use: str) -> None:
        self.server = ChatServer(url, settings, f"{use} behind a URL")
        self.model, self._use = settings.model_name or self.server.only_model(), use

    def outcomes(self, questions: Sequence[Question]) -> list[float | RefusedRequestError]:
        """The probability of each question's answer, or why there is none, n.

        Args:
            questions: what is asked, n.

        Raises:
            EndpointError: the server cannot be used, or tells no probabilities.
        """
        return at_once(self._attempted, questions, self.server.settings.concurrency)

    def _attempted(self, question: Question) -> float | RefusedRequestError:
        try:
            return self._probability(*question)
        except RefusedRequestError as error:
            return error

    def _probability(self, image: Image.Image, text: str, answers: Collection[str], lacking: str) -> float:
        choice, message = self.server.choice(self.fields(image, text))
        if choice.get("finish_reason") == "content_filter" or message.get("refusal"):
            raise RefusedRequestError(f"{self.server.url} withholds its answer to {shown(text)}; give another text")
        chosen, listed = self._listed(choice)
        value = probability(answers, chosen, listed)
        if value is None:
            first = self.server.shown(shown(max(listed, key=lambda each: each[1])[0]))
            raise RefusedRequestError(
                f"'{self.model}' of {self.server.url} {lacking}: its answer begins with {first}; switch off its "
                "thinking in the body of its settings, or use another model"
            )
        return value

    def fields(self, image: Image.Image, text: str) -> dict[str, Any]:
        """The fields of a request; the body's own come last, and its null leaves a field out.

        At temperature 1, with all tokens, probabilities are the model's own also on servers that tell them as they
        sample.
        """
        content = [{"type": "image_url", "image_url": {"url": _data_url(image)}}, {"type": "text", "text": text}]
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
                f"{self.server.url} tells no probabilities of tokens (logprobs and top_logprobs), which {self._use} "
                "needs; use a server that does, such as vLLM"
            ) from error
        whole = math.fsum(math.exp(min(logp, 1.0)) for _, logp in listed)
        if not whole <= 1.01:  # written so that a NaN is refused, too
            raise EndpointError(
                f"{self.server.url} tells probabilities of tokens that sum to {whole:.3g}, and not to 1 or less; "
                "use another server"
            )
        return chosen, listed


def probability(answers: Collection[str], chosen: str, listed: Sequence[tuple[str, float]]) -> float | None:
    """The probability of an answer, whatever its outer blanks and capitals.

    Args:
        answers: the answer's spellings, in small letters.
        chosen: the token that was sampled, which servers add to the most probable ones.
        listed: the most probable tokens and the natural logarithms of their probabilities.

    Returns:
        The sum over the tokens that read so. Where none does, the answer is at most as probable as all tokens that are
        not listed, and as the last one that is: 0 if that is less than ``UNSEEN``, else None.
    """
    found = [math.exp(logp) for token, logp in listed if token.strip().casefold() in answers]
    if found:
        return min(math.fsum(found), 1.0)
    probable = [math.exp(logp) for _, logp in listed]
    most = [math.exp(logp) for token, logp in listed if token != chosen] or [1.0]
    return 0.0 if min(1 - math.fsum(probable), *most) < UNSEEN else None


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    rgb(image).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
