"""A rewriter behind a URL: any language model that a server offers as OpenAI's chat completions do."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from semdpo import answers
from semdpo.data.records import content_seed
from semdpo.errors import EndpointError, ModelError, RefusedRequestError
from semdpo.models.chat_server import ChatServer
from semdpo.models.server import SEEDS, at_once
from semdpo.protocols import Answer
from semdpo.recipe import defaults
from semdpo.recipe.endpoints import EndpointConfig
from semdpo.recipe.models import DecodingConfig
from semdpo.texts import shown

WITHHELD = "the server withheld the answer (its content filter)"

# An answer's content, whether the token budget truncated it, the prompt → what it is.
Reading = Callable[[str, bool, str], Answer]

log = logging.getLogger("semdpo")


def load_endpoint(
    url: str,
    settings: EndpointConfig | None = None,
    decoding: DecodingConfig | None = None,
    system: str = defaults.SYSTEM,
) -> EndpointRewriter:
    """A rewriter behind a URL. The server is asked at once only if the settings name no model.

    Args:
        url: the server's address, such as ``http://localhost:8000/v1``.
        settings: how the server is asked; None is the default settings.
        decoding: how the model decodes; None is the default decoding.
        system: what the model is asked to do, the system prompt; an empty text sends none.

    Raises:
        ConfigError: the library ``openai`` is not installed.
        EndpointError: the URL is none, a setting is not one that servers take, or the settings name no model and the
            server cannot be asked for its only one.
    """
    server = ChatServer(url, settings or EndpointConfig(), "a rewriter behind a URL")
    model = server.settings.model_name or server.only_model()
    return EndpointRewriter(server, model, system, decoding or DecodingConfig())


class EndpointRewriter:
    """Asks a server for rewrites; each rewrite is one request, several are under way at a time.

    A request depends only on its prompt, index and seed, never on the others. Whether an equal request has an equal
    answer is up to the server: most are repeatable at temperature 0, and few are exactly so while they compute other
    requests at the same time.

    Args:
        server: the server.
        model: the model's name on the server.
        system: the system prompt; an empty text sends none.
        decoding: how the model decodes. ``batch_size`` and ``precision`` are the server's own affair.

    Raises:
        EndpointError: the decoding has settings that servers do not take.
    """

    def __init__(self, server: ChatServer, model: str, system: str, decoding: DecodingConfig) -> None:
        try:
            decoding.refuse_local_only()
        except ValueError as error:
            raise EndpointError(str(error)) from error
        self.server, self.model, self.system = server, model, system
        self._decoding = decoding

    def at_temperature(self, temperature: float) -> EndpointRewriter:
        """The same rewriter with another temperature; the connections are shared."""
        return self._with(temperature=temperature)

    def with_budget(self, max_new_tokens: int) -> EndpointRewriter:
        """The same rewriter with another token budget; the connections are shared."""
        return self._with(max_new_tokens=max_new_tokens)

    def _with(self, **decoding: Any) -> EndpointRewriter:
        return EndpointRewriter(self.server, self.model, self.system, self._decoding.model_copy(update=decoding))

    def rewrite(self, prompts: Sequence[str], n: int, seed: int) -> list[list[str]]:
        """``n`` rewrites of each prompt, each on one line without outer blanks; empty where the answer is none.

        Args:
            prompts: the users' prompts.
            n: the number of rewrites of each prompt, ≥ 1.
            seed: the seed of the sampling.

        Raises:
            EndpointError: the server cannot be used.
        """
        return [[text for text, _ in row] for row in self.rewrite_flagged(prompts, n, seed)]

    def rewrite_flagged(self, prompts: Sequence[str], n: int, seed: int) -> list[list[tuple[str, bool]]]:
        """Like ``rewrite``, with whether the token budget truncated each text; logs why answers are no rewrites."""
        rows = self.answers(prompts, n, seed)
        reasons = Counter(answer.reason.partition(":")[0] for row in rows for answer in row if answer.reason)
        if reasons:
            log.warning(
                "%d of %d answers of '%s' are no rewrites and count as empty: %s",
                reasons.total(), len(prompts) * n, self.model,
                "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common()),
            )  # fmt: skip
        return [[(answer.text, answer.truncated) for answer in row] for row in rows]

    def answers(self, prompts: Sequence[str], n: int, seed: int) -> list[list[Answer]]:
        """Like ``rewrite``, with why an answer is no rewrite.

        A request that the server refuses is such an answer, unless it refuses all.
        """
        return self._all(prompts, n, seed, answers.read)

    def said(self, prompts: Sequence[str], seed: int) -> list[Answer]:
        """What the model says to each prompt, letter by letter, where that need not be a rewrite."""
        return [row[0] for row in self._all(prompts, 1, seed, lambda text, truncated, _: Answer(text, truncated))]

    def _all(self, prompts: Sequence[str], n: int, seed: int, read: Reading) -> list[list[Answer]]:
        if n < 1:
            raise ModelError(f"n must be at least 1, not {n}")
        asked = [(prompt, index) for prompt in prompts for index in range(n)]
        got = at_once(
            lambda each: self._answer_or_refusal(each[0], each[1], seed, read), asked, self.server.settings.concurrency
        )
        refused = [each for each in got if isinstance(each, RefusedRequestError)]
        if refused and len(refused) == len(got):
            raise refused[0]
        rows = [Answer("", reason=str(each)) if isinstance(each, RefusedRequestError) else each for each in got]
        return [rows[start : start + n] for start in range(0, len(rows), n)]

    def _answer_or_refusal(self, prompt: str, index: int, seed: int, read: Reading) -> Answer | RefusedRequestError:
        try:
            return self._answer(prompt, index, seed, read)
        except RefusedRequestError as error:
            return error

    def _answer(self, prompt: str, index: int, seed: int, read: Reading) -> Answer:
        choice, message = self.server.choice(self._fields(prompt, index, seed))
        end, content, refusal = choice.get("finish_reason"), message.get("content"), message.get("refusal")
        if not isinstance(content, str | None):
            raise EndpointError(self.server.other_form())
        if end == "content_filter":
            return Answer("", reason=WITHHELD)
        if refusal:
            return Answer("", reason=f"{answers.REFUSED}: {shown(refusal)}")
        # A thought that the server keeps apart (``reasoning_content``) is no part of the answer.
        return read(content or "", end == "length", prompt)

    def _fields(self, prompt: str, index: int, seed: int) -> dict[str, Any]:
        """The fields of a request; the body's own come last, and its null leaves a field out."""
        how = self._decoding
        system = [{"role": "system", "content": self.system}] if self.system else []
        fields = {
            "model": self.model,
            "messages": [*system, {"role": "user", "content": prompt.strip()}],
            "max_tokens": how.max_new_tokens,
            "temperature": how.temperature,
            "top_p": how.top_p if how.temperature > 0 else None,
            "seed": content_seed("rewrite", prompt, str(index), str(seed)) % SEEDS,
        } | self.server.settings.body
        return {name: value for name, value in fields.items() if value is not None}
