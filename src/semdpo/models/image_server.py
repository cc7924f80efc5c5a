"""A server that answers OpenAI's image generations: one request, one image."""

from __future__ import annotations

from typing import Any

from semdpo.errors import EndpointError, RefusedRequestError
from semdpo.models.image_answer import Answered, answered, fetched
from semdpo.models.server import Server
from semdpo.recipe.endpoints import EndpointConfig
from semdpo.texts import shown


class ImageServer(Server):
    """A server of image generations; see ``Server``.

    Status 500 counts as a refusal of the one request: vLLM-Omni gives it, with the reason, whenever a generation fails.
    """

    offers = "image generations"
    cure_of_missing = "name a server that renders images"
    about_the_request = (*Server.about_the_request, 500)

    def __init__(self, url: str, settings: EndpointConfig) -> None:
        super().__init__(url, settings, "a renderer behind a URL")

    def generate(self, fields: dict[str, Any]) -> Answered:
        """Asks for one image. An answer without a readable image is asked for once more.

        Args:
            fields: the fields of the request, ``model`` and ``prompt`` among them.

        Raises:
            RefusedRequestError: the server works and refuses this request, or gives no image.
            EndpointError: the server is down, refuses the key or rewrites prompts, or its answer has another form.
        """
        tries = 2 if self.settings.retries else 1
        while True:
            tries -= 1
            try:
                return self._image(fields)
            except ValueError as error:
                if not tries:
                    raise RefusedRequestError(
                        f"{self.url} gives no image of {shown(fields['prompt'])}: {self.shown(error)}; look into the "
                        "server's log"
                    ) from error

    def _image(self, fields: dict[str, Any]) -> Answered:
        first = {"model": fields["model"], "prompt": fields["prompt"]}
        rest = {name: value for name, value in fields.items() if name not in first}
        ask = self._client.images.with_raw_response.generate
        body = self._asked(
            lambda: ask(**first, extra_headers=self._headers, extra_body=rest).content, str(fields["model"])
        )
        entries = body.get("data") if isinstance(body, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise EndpointError(self.other_form())
        if len(entries) != 1:
            raise ValueError(f"it sent {len(entries)} images for one")
        self._refuse_other_prompt(fields["prompt"], entries[0].get("revised_prompt"))
        return self._read(entries[0])

    def _read(self, entry: dict[str, Any]) -> Answered:
        encoded, place = entry.get("b64_json"), entry.get("url")
        if isinstance(encoded, str) and encoded:
            return answered(encoded)
        if isinstance(place, str) and place:
            return fetched(place, self.url, self._key, self.settings.timeout)
        raise ValueError("the answer has neither b64_json nor url")

    def _refuse_other_prompt(self, asked: str, used: object) -> None:
        """Refuses a server that draws another text than the one that it was given, as DALL-E 3 does."""
        if isinstance(used, str) and used.split() and used.split() != asked.split():
            raise EndpointError(
                f"{self.url} rewrites prompts before it renders them ({shown(asked)} became {self.shown(shown(used))}),"
                " so that its images say nothing of the rewrites; switch that off there, or use another model"
            )
