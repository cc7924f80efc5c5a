"""Settings of models behind a URL: servers that are asked as OpenAI's are."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator

from semdpo.recipe.base import Positive, Settings, Text

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_OWN_FIELDS = {"model", "messages", "n", "stream"}  # of every request; the answer could not be read without them
_PATHS = ("/chat/completions", "/completions", "/models", "/images/generations")


def is_url(name: str) -> bool:
    """Whether a model's name is a server's address."""
    return name.strip().casefold().startswith(("http://", "https://"))


def without_credentials(url: str) -> str:
    """An address as messages may show it: without user name, password and query."""
    return re.sub(r"(?<=//).*@", "", re.split(r"[?#]", url.strip())[0])


def checked_url(url: str) -> str:
    """The address of a server, without a slash at its end.

    Args:
        url: an address that begins with ``http://`` or ``https://``.

    Raises:
        ValueError: it is no address, or holds a password or key; the message does not show them.
    """
    text = url.strip().rstrip("/")
    example = "write it as http://localhost:8000/v1"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"'{without_credentials(url)}' is no address of a server; {example}") from error
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            f"'{without_credentials(url)}' is written with more than host, port and path, which would be stored with "
            "every result; leave that out, and put a key into the environment variable that endpoint.key_env names"
        )
    if not is_url(text) or not parts.hostname or port == 0 or not text.isprintable() or " " in text:
        raise ValueError(f"'{without_credentials(url)}' is no address of a server; {example}")
    for path in _PATHS:
        if parts.path.endswith(path):
            raise ValueError(f"'{text}' ends with {path}, which is added to it; leave that out")
    return text


def checked_if_url(name: str) -> str:
    """A model's name; a server's address as ``checked_url`` gives it.

    Raises:
        ValueError: as for ``checked_url``.
    """
    return checked_url(name) if is_url(name) else name


# The name of a model that may be behind a URL.
ModelName = Annotated[Text, AfterValidator(checked_if_url)]


def _variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):  # it may be the key itself, so that no message shows it
        raise ValueError(
            "it must be the name of an environment variable, in capitals, such as OPENAI_API_KEY; put the key there"
        )
    return name


def _body(fields: dict[str, Any]) -> dict[str, Any]:
    if own := sorted(_OWN_FIELDS & fields.keys()):
        raise ValueError(f"it has {own[0]}, which every request already has; remove it")
    try:
        json.dumps(fields, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError("it holds a value that is not JSON; put such a value in quotes") from error
    return fields


class EndpointConfig(Settings):
    """How a server is asked.

    Attributes:
        model_name: the name under which the server offers the model. Recipes must give it; elsewhere, None takes the
            only model that the server offers.
        key_env: the environment variable with the key; where it is not set, no key is sent.
        timeout: the seconds that an answer may take, waiting in the server's queue included.
        retries: how often a request is repeated when the server is down, too busy or fails; the pauses grow from half
            a second to 8, or are those that the server asks for.
        concurrency: the number of requests at a time.
        body: further fields of every request, such as ``top_k`` or ``chat_template_kwargs``; ``null`` leaves out a
            field that semdpo sends.
    """

    model_name: Text | None = None
    key_env: Annotated[str, AfterValidator(_variable)] = "OPENAI_API_KEY"
    timeout: float = Field(default=120, gt=0, le=86_400)
    retries: int = Field(default=4, ge=0, le=100)
    concurrency: Annotated[Positive, Field(le=256)] = 8
    body: Annotated[dict[Text, Any], AfterValidator(_body)] = Field(default_factory=dict)

    def of_results(self) -> dict[str, Any]:
        """The settings that answers depend on; how the server is reached may change without new answers."""
        return self.model_dump(mode="json", include={"model_name", "body"})


class ImageEndpointConfig(EndpointConfig):
    """How a server of images is asked; the attributes are those of ``EndpointConfig``.

    Images take longer than texts, and most servers make one at a time: ``timeout`` is 600 seconds, and ``concurrency``
    is 1.
    """

    timeout: float = Field(default=600, gt=0, le=86_400)
    concurrency: Annotated[Positive, Field(le=256)] = 1

    @field_validator("body")
    @classmethod
    def _size_and_prompt(cls, body: dict[str, Any]) -> dict[str, Any]:
        if "prompt" in body:
            raise ValueError("it has prompt, which every request already has; remove it")
        if body.get("size") is not None:
            raise ValueError("it has size, which would not be checked; set the renderer's height and width")
        return body


@dataclass(frozen=True, slots=True)
class Asked:
    """A server that a recipe asks.

    Attributes:
        url: its address.
        settings: how it is asked.
        key: the key of these settings in the recipe.
        draws: whether it is asked for images.
    """

    url: str
    settings: EndpointConfig
    key: str
    draws: bool = False
