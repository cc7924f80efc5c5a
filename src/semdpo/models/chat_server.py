"""A server that answers OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semdpo.errors import EndpointError
from semdpo.models.server import Server


class ChatServer(Server):
    """A server of chat completions; see ``Server``."""

    offers = "chat completions"

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

    def choice(self, fields: dict[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Asks for one completion, as ``complete`` does.

        Returns:
            The answer's first choice and its message.

        Raises:
            EndpointError: as for ``complete``; or the answer has another form.
        """
        completion = self.complete(fields)
        try:
            choice = completion["choices"][0]
            message = choice["message"]
        except (TypeError, KeyError, IndexError) as error:
            raise EndpointError(self.other_form()) from error
        if not isinstance(choice, dict) or not isinstance(message, dict):
            raise EndpointError(self.other_form())
        return choice, message
