"""Settings of the models that stages use: rewriters, text-to-image models and scorers."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from semdpo.recipe import defaults
from semdpo.recipe.base import TEMPLATE, Positive, Precision, Seed, Settings, Side, Text, one_slot


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


class RewriterConfig(DecodingConfig):
    """Another rewriter to compare with: a published model or any folder; ``template`` is the text that it reads."""

    model: Text
    template: str = TEMPLATE

    _template = field_validator("template")(one_slot)


class ScoringConfig(Settings):
    """How scorers of images run, wherever the recipe names one.

    Attributes:
        batch_size: the number of images that are scored at once.
        precision: the precision of the weights; float32 by default, so that scores of different machines agree.
        allow_remote_code: the names of models whose own Python code may run.
    """

    batch_size: Positive = defaults.IMAGES_AT_A_TIME
    precision: Precision = "float32"
    allow_remote_code: tuple[Text, ...] = ()

    def of_results(self) -> dict[str, object]:
        """The settings that scores depend on; the batch size and the allowed code may change without new scores."""
        return self.model_dump(mode="json", include={"precision"})


class RendererConfig(Settings):
    """A text-to-image model.

    Attributes:
        model: the model's name or folder.
        steps: the denoising steps of an image.
        guidance: the scale of classifier-free guidance.
        height: the images' height in pixels; None takes the model's own.
        width: the images' width in pixels; None takes the model's own.
        batch_size: the number of images that are rendered at once.
        precision: the precision of the weights; ``auto`` is bfloat16 on a GPU with native bfloat16, float32 elsewhere.
        safety_checker: whether the model's safety checker blackens images, which then have no score and are in no
            pair.
    """

    model: Text
    steps: Positive = 20
    guidance: float = Field(default=7.5, ge=0)
    height: Side | None = None
    width: Side | None = None
    batch_size: Positive = defaults.IMAGES_AT_A_TIME
    precision: Precision = "auto"
    safety_checker: bool = False
