"""A renderer behind a URL: any text-to-image model that a server offers as OpenAI's image generations do.

The fields of a request are OpenAI's (``model``, ``prompt``, ``n``, ``size``, ``response_format``, ``output_format``),
and ``seed``, ``num_inference_steps`` and ``guidance_scale``, which vLLM-Omni and SGLang take under these names.
Sources: vLLM-Omni's ``docs/serving/image_generation_api.md`` and ``entrypoints/openai/protocol/images.py`` (December
2025); SGLang's ``docs/diffusion/openai_api.md`` and ``multimodal_gen/runtime/entrypoints/openai/protocol.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from semdpo import extras
from semdpo.errors import EndpointError, ModelError, PartlyRefusedError, RefusedRequestError, UnlistedModelsError
from semdpo.models.image_server import ImageServer
from semdpo.models.server import SEEDS, at_once
from semdpo.recipe.endpoints import ImageEndpointConfig
from semdpo.recipe.models import RendererConfig
from semdpo.texts import shown

if TYPE_CHECKING:
    from PIL import Image

Row = tuple[str, int]  # text, seed
Drawn = tuple["Image.Image", bool]  # image, whether it is black

log = logging.getLogger("semdpo")


def load_endpoint_renderer(config: RendererConfig) -> EndpointRenderer:
    """A renderer behind a URL. The server is asked at once which models it has.

    Args:
        config: the server's URL, how it is asked, and the settings of the images.

    Raises:
        ConfigError: the library ``openai`` is not installed.
        EndpointError: the URL is none, the server is down or refuses the key, or it has one model, which is another.
    """
    server = ImageServer(config.model, config.endpoint or ImageEndpointConfig())
    model = server.settings.model_name or server.only_model()
    _refuse_other_model(server, model, "endpoint.model_name")
    return EndpointRenderer(server, model, config)


def load_named_renderer(url: str, settings: ImageEndpointConfig, option: str) -> EndpointRenderer:
    """A renderer behind a URL for a command, with the server's own steps, guidance and size.

    Args:
        url: the server's URL.
        settings: how it is asked; without a model's name, its only model is taken.
        option: the command's option with the model's name, for messages.

    Raises:
        ConfigError: the library ``openai`` or what images need is not installed.
        EndpointError: the URL is none, the server is down or refuses the key, or it offers several models or other
            ones.
    """
    extras.require(render="rendering")
    server = ImageServer(url, settings)
    model = settings.model_name or _only_model(server, option)
    _refuse_other_model(server, model, option)
    named = settings.model_copy(update={"model_name": model})
    return EndpointRenderer(server, model, RendererConfig(model=server.url, endpoint=named))


def _only_model(server: ImageServer, option: str) -> str:
    try:
        offered = server.models(server.settings.retries)
    except UnlistedModelsError as error:
        raise EndpointError(f"{server.url} does not list its models; say which one to use with {option}") from error
    if len(offered) != 1:
        raise EndpointError(f"{server.url} offers {server.listed(offered)}; say which model to use with {option}")
    return offered[0]


def _refuse_other_model(server: ImageServer, model: str, setting: str) -> None:
    """Refuses a server of one model that is another. vLLM-Omni would render with its own, whatever a request names."""
    try:
        offered = server.models(server.settings.retries)
    except UnlistedModelsError:
        return
    if len(offered) == 1 and offered[0] != model:
        raise EndpointError(f"{server.url} offers {server.listed(offered)}, and not '{model}'; set {setting} to it")


class EndpointRenderer:
    """Asks a server for images; each image is one request.

    A request depends only on its text and seed, never on the others. Whether an equal request has an equal image is up
    to the server.

    Args:
        server: the server.
        model: the model's name on the server.
        config: the settings of the images.
    """

    def __init__(self, server: ImageServer, model: str, config: RendererConfig) -> None:
        self.server, self.model = server, model
        self._config = config
        self._warned: set[str] = set()

    def render(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """One RGB image per prompt; rows with equal prompt and seed are rendered once.

        Args:
            prompts: the texts to render, n.
            seeds: the seeds of the images, n; the server gets them modulo 2³¹.

        Raises:
            PartlyRefusedError: the server works and refuses some of the requests, or gives no image for them.
            EndpointError: the server cannot be used, or gives images of another size than it was asked for.
            ModelError: the numbers of prompts and seeds differ.
        """
        return [image for image, _ in self.render_checked(prompts, seeds)]

    def render_checked(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Drawn]:
        """Like ``render``, each image with whether it is black all over: servers' safety checkers make it so."""
        if len(prompts) != len(seeds):
            raise ModelError(f"an image needs one seed per prompt; got {len(prompts)} prompts and {len(seeds)} seeds")
        rows = list(zip(prompts, seeds, strict=True))
        distinct = list(dict.fromkeys(rows))
        outcomes = at_once(self._attempted, distinct, self.server.settings.concurrency)
        drawn = [each for each in outcomes if not isinstance(each, RefusedRequestError)]
        by_row = dict(zip(distinct, outcomes, strict=True))
        self._warn_of_equal_images(by_row)
        if len(drawn) < len(outcomes):
            raise PartlyRefusedError([by_row[row] for row in rows])
        images = dict(zip(distinct, drawn, strict=True))
        return [images[row] for row in rows]

    def _attempted(self, row: Row) -> Drawn | RefusedRequestError:
        try:
            return self._drawn(*row)
        except RefusedRequestError as error:
            return error

    def _drawn(self, prompt: str, seed: int) -> Drawn:
        answer = self.server.generate(self.fields(prompt, seed))
        config, image = self._config, answer.image
        if config.width and config.height and image.size != (config.width, config.height):
            raise EndpointError(
                f"{self.server.url} gives an image of {image.width}x{image.height} pixels of {shown(prompt)}, and was "
                f"asked for {config.width}x{config.height}; set height and width to a size that '{self.model}' renders"
            )
        if answer.lossy:
            self._warn("jpeg", "its images are JPEG files, which lose details; ask for PNG in endpoint.body")
        return image, image.convert("L").getextrema() == (0, 0)

    def fields(self, prompt: str, seed: int) -> dict[str, Any]:
        """The fields of a request; the body's own come last, and its null leaves a field out."""
        config = self._config
        fields = {
            "model": self.model,
            "prompt": prompt,
            "n": 1,
            "size": f"{config.width}x{config.height}" if config.width and config.height else None,
            "response_format": "b64_json",
            "output_format": "png",  # SGLang's own default is JPEG
            "seed": seed % SEEDS,
            "num_inference_steps": config.steps,
            "guidance_scale": config.guidance,
        } | self.server.settings.body
        return {name: value for name, value in fields.items() if value is not None}

    def _warn_of_equal_images(self, outcomes: dict[Row, Drawn | RefusedRequestError]) -> None:
        """Warns of a server that does not use its seeds, where that shows without a request more."""
        seen: dict[tuple[str, bytes], int] = {}
        for (prompt, seed), each in outcomes.items():
            if isinstance(each, RefusedRequestError) or each[1]:
                continue
            other = seen.setdefault((prompt, each[0].tobytes()), seed)
            if other % SEEDS != seed % SEEDS:
                self._warn("seed", f"two seeds give one image of {shown(prompt)}; the server does not use the seed")

    def _warn(self, kind: str, text: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            log.warning("%s: %s", self.server.url, text)
