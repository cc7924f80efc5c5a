"""A server that is asked as OpenAI's are: requests, retries, and what went wrong in one sentence.

The client is OpenAI's own library, which repeats failed requests with growing pauses and keeps connections open. The
key goes to the server that the user named and nowhere else: redirects are not followed, and no message shows it.
"""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from semdpo import extras
from semdpo.errors import EndpointError, RefusedRequestError, UnlistedModelsError
from semdpo.recipe.endpoints import EndpointConfig, checked_url, without_credentials
from semdpo.texts import printable

if TYPE_CHECKING:
    import openai

CONNECT = 10.0  # seconds in which a server must take a connection
LISTING = 10.0  # seconds for the list of models
SHOWN = 300  # characters of a server's own message that are shown
SEEDS = 2**31  # servers take seeds from 0 to 2³¹ − 1
NAMES = 10  # names of models that are shown
# A server on this machine is not asked through a proxy.
_HERE = ("all://localhost", "all://127.0.0.1", "all://[::1]")

T = TypeVar("T")
R = TypeVar("R")


class Server:
    """A server; it may be asked from several threads at once.

    Args:
        url: the server's address, such as ``http://localhost:8000/v1``.
        settings: how the server is asked.
        use: what asks it, as the subject of a sentence.

    Raises:
        ConfigError: the library ``openai`` is not installed.
        EndpointError: the URL is none, or the environment variable holds no key.
    """

    offers: ClassVar[str] = "models"  # what it is asked for, in the words of OpenAI's reference
    cure_of_missing: ClassVar[str] = "look into the server's log"
    about_the_request: ClassVar[tuple[int, ...]] = (400, 413, 422)  # statuses that say nothing of the server itself

    def __init__(self, url: str, settings: EndpointConfig, use: str = "a model behind a URL") -> None:
        extras.require(endpoint=use)
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

    def models(self, retries: int = 0) -> list[str]:
        """The names of the models that the server offers.

        Args:
            retries: how often the request is repeated when the server is down, too busy or fails.

        Raises:
            UnlistedModelsError: the server does not list its models.
            EndpointError: the server is down or refuses the key.
        """
        listing = self._client.with_options(max_retries=retries, timeout=LISTING).models.with_raw_response.list
        body = self._asked(lambda: listing(extra_headers=self._headers).content, None)
        try:
            return [str(entry["id"]) for entry in body["data"]]
        except (TypeError, KeyError) as error:
            raise UnlistedModelsError(f"{self.url} does not list its models; check the address") from error

    def only_model(self) -> str:
        """The name of the only model that the server offers.

        Raises:
            EndpointError: it offers several or none, or cannot be asked.
        """
        names = self.models()
        if len(names) != 1:
            raise EndpointError(
                f"{self.url} offers {self.listed(names)}; say which model to use with --model-name "
                "(in a recipe: endpoint.model_name)"
            )
        return names[0]

    def _asked(self, ask: Callable[[], bytes], model: str | None) -> Any:
        """The JSON of an answer; ``model`` is the name that was asked for, None for the list of models."""
        import openai

        try:
            content = ask()
        except openai.APITimeoutError as error:
            raise EndpointError(self._of_silence(model)) from error
        except openai.APIConnectionError as error:
            raise EndpointError(
                f"{self.url} cannot be reached ({self.shown(error.__cause__ or error)}); start the server, or correct "
                "the address"
            ) from error
        except openai.APIStatusError as error:
            raise self._kind(error.status_code, model)(self._of_status(error, model)) from error
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise EndpointError(self.other_form()) from error

    def _kind(self, status: int, model: str | None) -> type[EndpointError]:
        if model is None:
            return UnlistedModelsError if status in (404, 405) else EndpointError
        return RefusedRequestError if status in self.about_the_request else EndpointError

    def other_form(self) -> str:
        """The message for an answer in another form."""
        return (
            f"{self.url} answers something else than OpenAI's {self.offers} do; correct the address, which often "
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
        said = self.shown(_words(error))
        if status < 400:
            place = without_credentials(error.response.headers.get("location", "another address"))
            return f"{self.url} redirects to {self.shown(place)}; give the address at which it answers itself"
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
            return f"{self.url} has no {self.offers} ({said}); correct the address, which often ends in /v1"
        if model in offered:
            return f"{self.url} offers the model '{model}' and does not find it ({said}); {self.cure_of_missing}"
        return f"{self.url} has no model '{self.shown(model)}'; it offers {self.listed(offered)}; name one of them"

    def listed(self, names: list[str]) -> str:
        """Names of models, for a message."""
        more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
        return (", ".join(self.shown(name) for name in names[:NAMES]) or "none") + more

    def shown(self, text: object) -> str:
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


def at_once(ask: Callable[[T], R], items: Sequence[T], most: int) -> list[R]:
    """Asks for several items at a time, in threads; the first failure cancels what has not begun.

    Nobody waits for these threads, as everybody does for those of ``ThreadPoolExecutor``: Ctrl-C ends a process at
    once, even if the server takes minutes to answer.

    Args:
        ask: gets one answer.
        items: what is asked for.
        most: how many items at a time.

    Returns:
        The answers, in the order of the items.
    """
    futures = [Future[R]() for _ in items]
    waiting = deque(zip(futures, items, strict=True))

    def work() -> None:
        while waiting:
            try:
                answer, item = waiting.popleft()
            except IndexError:  # another thread took the last one
                return
            try:
                answer.set_result(ask(item))
            except BaseException as error:
                answer.set_exception(error)

    for _ in range(min(most, len(items))):
        threading.Thread(target=work, name="semdpo-server", daemon=True).start()
    try:
        return [answer.result() for answer in futures]
    finally:
        waiting.clear()
