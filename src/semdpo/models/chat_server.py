"""A server that answers OpenAI's chat completions: requests, retries, and what went wrong in one sentence.

The client is OpenAI's own library, which repeats failed requests with growing pauses and keeps connections open. The
key goes to the server that the user named and nowhere else: redirects are not followed, and no message shows it.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from semdpo import extras
from semdpo.errors import EndpointError, RefusedRequestError
from semdpo.recipe.endpoints import EndpointConfig, checked_url, without_credentials
from semdpo.texts import printable

if TYPE_CHECKING:
    import openai

CONNECT = 10.0  # seconds in which a server must take a connection
LISTING = 10.0  # seconds for the list of models
SHOWN = 300  # characters of a server's own message that are shown
ABOUT_THE_REQUEST = (400, 413, 422)  # statuses that say nothing of the server itself
NAMES = 10  # names of models that are shown
# A server on this machine is not asked through a proxy.
_HERE = ("all://localhost", "all://127.0.0.1", "all://[::1]")


class ChatServer:
    """A server of chat completions; it may be asked from several threads at once.

    Args:
        url: the server's address, such as ``http://localhost:8000/v1``.
        settings: how the server is asked.

    Raises:
        ConfigError: the library ``openai`` is not installed.
        EndpointError: the URL is none, or the environment variable holds no key.
    """

    def __init__(self, url: str, settings: EndpointConfig) -> None:
        extras.require(endpoint="a rewriter behind a URL")
        import openai

        try:
            self.url = checked_url(url)
        except ValueError as error:
            raise EndpointError(str(error)) from error
        self.settings = settings
        self._key = _key(settings.key_env)
        # The library wants a key; without one, requests leave out the header for it.
        self._headers = {} if self._key else {"Authorization": openai.omit}
        connections = openai.DefaultHttpxClient(follow_redirects=False, mounts=dict.fromkeys(_HERE))
        weakref.finalize(self, connections.close)
        self._client = openai.OpenAI(
            base_url=self.url,
            api_key=self._key or "none",
            timeout=openai.Timeout(settings.timeout, connect=min(CONNECT, settings.timeout)),
            max_retries=settings.retries,
            http_client=connections,
        )

    def complete(self, fields: dict[str, Any]) -> Any:
        """Asks for one completion.

        Args:
            fields: the fields of the request, ``model`` and ``messages`` among them.

        Returns:
            The server's answer, as JSON values.

        Raises:
            RefusedRequestError: the server works and refuses this request.
            EndpointError: the server is down, refuses the key or fails, after all retries.
        """
        first = {"model": fields["model"], "messages": fields["messages"]}
        rest = {name: value for name, value in fields.items() if name not in first}
        ask = self._client.chat.completions.with_raw_response.create
        return self._asked(
            lambda: ask(**first, extra_headers=self._headers, extra_body=rest).content, str(fields["model"])
        )

    def models(self) -> list[str]:
        """The names of the models that the server offers.

        Raises:
            EndpointError: the server is down, refuses the key or does not list its models.
        """
        listing = self._client.with_options(max_retries=0, timeout=LISTING).models.with_raw_response.list
        body = self._asked(lambda: listing(extra_headers=self._headers).content, None)
        try:
            return [str(entry["id"]) for entry in body["data"]]
        except (TypeError, KeyError) as error:
            raise EndpointError(f"{self.url} does not list its models; check the address") from error

    def _asked(self, ask: Callable[[], bytes], model: str | None) -> Any:
        """The JSON of an answer; ``model`` is the name that was asked for, None for the list of models."""
        import openai

        try:
            content = ask()
        except openai.APITimeoutError as error:
            raise EndpointError(self._of_silence(model)) from error
        except openai.APIConnectionError as error:
            raise EndpointError(
                f"{self.url} cannot be reached ({self._shown(error.__cause__ or error)}); start the server, or correct "
                "the address"
            ) from error
        except openai.APIStatusError as error:
            kind = RefusedRequestError if error.status_code in ABOUT_THE_REQUEST else EndpointError
            raise kind(self._of_status(error, model)) from error
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise EndpointError(self.no_completion()) from error

    def no_completion(self) -> str:
        """The message for an answer in another form."""
        return (
            f"{self.url} answers something else than OpenAI's chat completions do; correct the address, which often "
            "ends in /v1"
        )

    def _of_silence(self, model: str | None) -> str:
        if model is None:
            return f"{self.url} did not answer within {LISTING:g} seconds; wait until it has started"
        tries = self.settings.retries + 1
        times = "" if tries == 1 else f", {tries} times"
        return (
            f"{self.url} did not answer within {self.settings.timeout:g} seconds{times}; raise endpoint.timeout, or "
            "lower endpoint.concurrency"
        )

    def _of_status(self, error: openai.APIStatusError, model: str | None) -> str:
        """The message for an answer that is an error or a redirect."""
        status, variable = error.status_code, self.settings.key_env
        said = self._shown(_words(error))
        if status < 400:
            place = without_credentials(error.response.headers.get("location", "another address"))
            return f"{self.url} redirects to {self._shown(place)}; give the address at which it answers itself"
        if status in (401, 403):
            if self._key:
                return f"{self.url} refuses the key in {variable} ({said}); put the right key there"
            return f"{self.url} wants a key ({said}); put it into the environment variable {variable}"
        if status == 404 and model is not None:
            return self._of_missing(model, said)
        if status in (404, 405):
            return f"{self.url} does not list its models ({said}); check the address, which often ends in /v1"
        if status == 429:
            return f"{self.url} is too busy, or your quota is used up ({said}); lower endpoint.concurrency, or wait"
        if status < 500:
            return f"{self.url} refuses the request ({said}); change what it names"
        return f"{self.url} fails ({said}); look into the server's log"

    def _of_missing(self, model: str, said: str) -> str:
        try:
            offered = self.models()
        except EndpointError:
            return f"{self.url} has no chat completions ({said}); correct the address, which often ends in /v1"
        if model in offered:
            return f"{self.url} offers the model '{model}' and does not find it ({said}); look into the server's log"
        return f"{self.url} has no model '{self._shown(model)}'; it offers {self.listed(offered)}; name one of them"

    def listed(self, names: list[str]) -> str:
        """Names of models, for a message."""
        more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
        return (", ".join(self._shown(name) for name in names[:NAMES]) or "none") + more

    def _shown(self, text: object) -> str:
        """A text of the server's, shortened, without the key and without what a terminal takes for commands."""
        words = " ".join(str(text).split())
        if self._key:
            words = words.replace(self._key, "…")
        return printable(words if len(words) <= SHOWN else f"{words[:SHOWN]}…")


def _words(error: openai.APIStatusError) -> str:
    """The server's own words, wherever it puts them; the status where it has none."""
    body = error.body
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail")
    return body if isinstance(body, str) and body.strip() else error.message


def _key(variable: str) -> str:
    """The key in an environment variable; empty where it is not set.

    Raises:
        EndpointError: it holds what cannot be sent.
    """
    key = os.environ.get(variable, "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise EndpointError(f"the environment variable {variable} holds no key, but other text; set it again")
    return key
