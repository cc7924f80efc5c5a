"""Settings of the models that stages use: rewriters, text-to-image models and scorers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from semdpo.recipe import defaults
from semdpo.recipe.base import TEMPLATE, Positive, Precision, Seed, Settings, Side, Template, Text, known_template
from semdpo.recipe.endpoints import (
    EndpointConfig,
    ImageEndpointConfig,
    ModelName,
    is_url,
    without_credentials,
)
from semdpo.recipe.renderer_call import checked_call

LOCAL_ONLY = ("top_k", "num_beams", "length_penalty", "repetition_penalty")  # chat completions have no such fields
# The settings of a renderer that a server can be asked for.
OF_IMAGES = {"model", "endpoint", "steps", "guidance", "height", "width", "batch_size"}


class DecodingConfig(Settings):
    """How a rewriter chooses its tokens; the settings have the names that transformers gives them.

    Attributes:
        temperature: the temperature of sampling; 0 is greedy decoding, or beam search.
        top_p: sample from the most probable tokens whose probabilities sum to this share.
        top_k: sample from this number of most probable tokens; None samples from all.
        max_new_tokens: the token budget of a rewrite.
        num_beams: the beams of beam search, which needs temperature 0.
        length_penalty: the length penalty of beam search; below 0 it prefers short rewrites.
        repetition_penalty: the penalty of tokens that have already appeared; 1 is none.
        precision: the precision of the weights; ``auto`` is bfloat16 on a GPU with native bfloat16, float32 elsewhere.
        seed: the seed of sampling.
        batch_size: the number of prompts that are rewritten at once.
    """

    temperature: float = Field(default=1.0, ge=0, le=10)
    top_p: float = Field(default=0.95, gt=0, le=1)
    top_k: Positive | None = None
    max_new_tokens: Positive = 40
    num_beams: Positive = 1
    length_penalty: float = 1.0
    repetition_penalty: float = Field(default=1.0, gt=0)
    precision: Precision = "auto"
    seed: Seed = 0
    batch_size: Positive = defaults.TEXTS_AT_A_TIME

    @model_validator(mode="after")
    def _beams_do_not_sample(self) -> DecodingConfig:
        if self.num_beams > 1 and self.temperature > 0:
            raise ValueError("beam search does not sample; set temperature to 0")
        return self

    def refuse_local_only(self) -> None:
        """Refuses settings that a server cannot be asked for.

        Raises:
            ValueError: one of them is not the default.
        """
        for name in LOCAL_ONLY:
            if getattr(self, name) != DecodingConfig.model_fields[name].default:
                raise ValueError(
                    f"a model behind a URL takes no {name}; remove it, or put what your server calls it into "
                    "endpoint.body"
                )


def _refuse_half_named(model: str, endpoint: EndpointConfig | None) -> None:
    """Refuses a server without the name of its model, and a server's settings for a model that is behind no URL."""
    if not is_url(model):
        if endpoint is not None:
            raise ValueError(f"endpoint is for a model behind a URL, and '{model}' is none; remove it")
    elif endpoint is None or endpoint.model_name is None:
        raise ValueError(
            f"'{without_credentials(model)}' is a server; say which of its models to use with "
            "endpoint: {model_name: NAME}"
        )


class RewriterSource(Settings):
    """Another rewriter than the one that this run trains.

    Attributes:
        model: a published model, a folder, or the URL of a server such as ``http://localhost:8000/v1``.
        template: the text that a model here reads, or ``chat``; a model behind a URL reads ``system``, then the prompt.
        system: the system message of a chat. A model behind a URL gets a general one where it is None, and none where
            it is empty.
        endpoint: how the server is asked, for a URL.
    """

    model: ModelName
    template: str = TEMPLATE
    system: str | None = None
    endpoint: EndpointConfig | None = None

    _template = field_validator("template")(known_template)

    @model_validator(mode="after")
    def _of_one_kind(self) -> RewriterSource:
        _refuse_half_named(self.model, self.endpoint)
        if not self.is_remote:
            _ = self.reads
            return self
        if self.template != TEMPLATE:
            raise ValueError("a model behind a URL reads no template; write what it should do into system")
        if isinstance(self, DecodingConfig):
            self.refuse_local_only()
        return self

    @property
    def is_remote(self) -> bool:
        """Whether the model is behind a URL."""
        return is_url(self.model)

    @property
    def reads(self) -> Template:
        """What a model here reads around a prompt."""
        return Template(self.template, self.system)

    def of_results(self) -> dict[str, Any]:
        """The settings that rewrites depend on.

        A server has no files that could be hashed. Its address, the model's name, the instruction and the fields of
        the request stand for it; what the server runs under that name cannot be checked.
        """
        values = self.model_dump(mode="json", exclude={"endpoint"})
        if self.endpoint is None:
            return values
        del values["template"]
        return values | {"system": self.instruction, "endpoint": self.endpoint.of_results()}

    @property
    def instruction(self) -> str:
        """The system prompt of a model behind a URL; empty for none."""
        return defaults.SYSTEM if self.system is None else self.system


class RewriterConfig(DecodingConfig, RewriterSource):
    """Another rewriter to compare with, and how it decodes."""


class ScoringConfig(Settings):
    """How scorers of images run, wherever the recipe names one.

    Attributes:
        batch_size: the number of images that are scored at once.
        precision: the precision of the weights; float32 by default, so that scores of different machines agree.
        allow_remote_code: the names of models whose own Python code may run.
        endpoints: how servers are asked, for scorers behind a URL: URL → settings, ``model_name`` among them.
    """

    batch_size: Positive = defaults.IMAGES_AT_A_TIME
    precision: Precision = "float32"
    allow_remote_code: tuple[Text, ...] = ()
    endpoints: dict[ModelName, EndpointConfig] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _every_server_has_a_model(self) -> ScoringConfig:
        for url, settings in self.endpoints.items():
            if not is_url(url):
                raise ValueError(f"endpoints has '{url}', which is no URL; write it as http://localhost:8000/v1")
            _refuse_half_named(url, settings)
        return self

    @model_serializer(mode="wrap")
    def _leave_out_no_endpoints(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if key != "endpoints" or value}

    def of_results(self, *scorers: str) -> dict[str, object]:
        """The settings that scores depend on; the batch size and the allowed code may change without new scores.

        Args:
            scorers: the scorers' names. A server has no files that could be hashed; its address, the model's name and
                the fields of the request stand for it.
        """
        asked = {name: self.endpoints[name].of_results() for name in scorers if is_url(name)}
        return self.model_dump(mode="json", include={"precision"}) | ({"endpoints": asked} if asked else {})


class RendererConfig(Settings):
    """A text-to-image model.

    Attributes:
        model: the model's name or folder, or the URL of a server such as ``http://localhost:8000/v1``. A server is
            asked with ``steps``, ``guidance``, ``height`` and ``width``, and takes none of the settings below them.
        steps: the denoising steps of an image; None takes those of the model's family (docs/models.md), or of a server.
        guidance: the scale of guidance, in the argument that the model's family takes it in; None takes the family's,
            or a server's.
        height: the images' height in pixels; None takes the model's own.
        width: the images' width in pixels; None takes the model's own.
        batch_size: the number of images that are rendered at once.
        precision: the precision of the weights; ``auto`` is bfloat16 on a GPU with native bfloat16, float32 elsewhere.
        safety_checker: whether the model's safety checker blackens images, which then have no score and are in no
            pair.
        scheduler: the sampler: ``own`` is the model's own; ``ddim`` is the paper's; ``dpm++``, ``unipc``, ``euler`` or,
            for models distilled for it, ``lcm`` need fewer steps. One that cannot sample the model is refused.
        tiny_vae: a small decoder of the latents, such as TAESD (an ``AutoencoderTiny``), in place of the model's.
        channels_last: whether convolutions store the channels last; faster on many GPUs in half precision.
        compiled: whether torch compiles the model, which takes a minute or more before the first image.
        call: further arguments of the pipeline's call, such as ``negative_prompt`` or ``max_sequence_length``; a text
            for a negative prompt is used for every image.
        offload: keeps the weights in the CPU's memory: ``model`` moves one part of the model at a time to the GPU,
            ``sequential`` one layer, which needs least of the GPU's memory and is slow.
        vae_slicing: whether the images of a batch are decoded one after another, which needs less memory.
        vae_tiling: whether an image is decoded in overlapping tiles, which needs less memory and changes images
            slightly.
        quantization: smaller weights of the denoiser and of encoders other than CLIP: ``fp8`` (torchao), ``8bit`` or
            ``4bit`` (bitsandbytes); None leaves them as they are.
        endpoint: how the server is asked, for a URL.
    """

    model: ModelName
    steps: Positive | None = None
    guidance: float | None = Field(default=None, ge=0)
    height: Side | None = None
    width: Side | None = None
    batch_size: Positive = defaults.IMAGES_AT_A_TIME
    precision: Precision = "auto"
    safety_checker: bool = False
    scheduler: Literal["ddim", "dpm++", "unipc", "euler", "lcm", "own"] = "own"
    tiny_vae: Text | None = None
    channels_last: bool = False
    compiled: bool = False
    call: dict[Text, Any] = Field(default_factory=dict)
    offload: Literal["model", "sequential"] | None = None
    vae_slicing: bool = False
    vae_tiling: bool = False
    quantization: Literal["fp8", "8bit", "4bit"] | None = None
    endpoint: ImageEndpointConfig | None = None

    _call = field_validator("call")(checked_call)

    @model_validator(mode="after")
    def _parts_that_fit_together(self) -> RendererConfig:
        if self.offload == "sequential" and self.quantization is not None:
            raise ValueError("sequential offload cannot move quantised layers; use offload: model")
        return self

    @model_validator(mode="after")
    def _what_a_server_takes(self) -> RendererConfig:
        _refuse_half_named(self.model, self.endpoint)
        if not self.is_remote:
            return self
        for name, field in RendererConfig.model_fields.items():
            if name not in OF_IMAGES and getattr(self, name) != field.get_default(call_default_factory=True):
                raise ValueError(
                    f"a renderer behind a URL takes no {name}; remove it, or put what your server calls it into "
                    "endpoint.body"
                )
        if (self.height is None) != (self.width is None):
            raise ValueError("a renderer behind a URL takes height and width together; give both, or none of them")
        return self

    @model_serializer(mode="wrap")
    def _leave_out_no_endpoint(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if key != "endpoint" or value is not None}

    @property
    def is_remote(self) -> bool:
        """Whether the model is behind a URL."""
        return is_url(self.model)

    def models(self, key: str) -> dict[str, str]:
        """Key in the recipe → the models that render; none for a model behind a URL, which has no files.

        Args:
            key: the key of this renderer, such as ``label.renderer``.
        """
        if self.is_remote:
            return {}
        small = {} if self.tiny_vae is None else {f"{key}.tiny_vae": self.tiny_vae}
        return {f"{key}.model": self.model} | small

    def of_results(self) -> dict[str, Any]:
        """The settings that images depend on.

        Where weights wait does not change images, so ``offload`` is not among them. Settings that came later are left
        out where they have their defaults, so that what was made before them stays valid. Where the family's defaults
        are taken, their version stands beside them. A server has no files that could be hashed: its address, the
        model's name and the fields of the request stand for it; what it runs under that name cannot be checked.
        """
        values = self.model_dump(mode="json", exclude={"offload"})
        for name in ("call", "vae_slicing", "vae_tiling", "quantization"):
            if not values[name]:
                del values[name]
        if self.endpoint is not None:
            return values | {"endpoint": self.endpoint.of_results()}
        of_family = self.steps is None or self.guidance is None or defaults.RENDERER_FAMILIES > 1
        return values | ({"family_defaults": defaults.RENDERER_FAMILIES} if of_family else {})


class LoRAConfig(Settings):
    """Low-rank adapters, which are trained instead of all weights; the reference is the model without them.

    Attributes:
        rank: the rank of the adapters.
        alpha: the scale of the adapters, times the rank: they are multiplied by alpha / rank.
        target_modules: the names of the layers that get an adapter; None takes PEFT's choice for the architecture.
    """

    rank: Positive = 16
    alpha: Positive = 32
    target_modules: list[Text] | None = Field(default=None, min_length=1)
