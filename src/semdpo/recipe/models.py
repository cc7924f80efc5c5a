"""Settings of the models that stages use: how a rewriter decodes, a text-to-image model draws, scorers run."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from semdpo.recipe import defaults
from semdpo.recipe.base import TEMPLATE, Positive, Precision, Seed, Settings, Side, Text, one_slot


class DecodingConfig(Settings):
    """How a rewriter chooses its tokens; the words are those of transformers.

    Attributes:
        temperature: of sampling; 0 is greedy, or beam search.
        top_p: sample from the most probable tokens that make up this share.
        top_k: sample from so many most probable tokens; None from all.
        max_new_tokens: the rewrite's budget.
        num_beams: of beam search, which needs temperature 0.
        length_penalty: of beam search; below 0 it prefers short rewrites.
        repetition_penalty: of tokens that are there already.
        precision: of the weights; ``auto`` is bfloat16 on a GPU that has it natively, and float32 elsewhere.
        seed: of sampling.
        batch_size: prompts at a time.
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
    """Another rewriter to compare with: a published one, or any folder; ``template`` is what it reads."""

    model: Text
    template: str = TEMPLATE

    _template = field_validator("template")(one_slot)


class ScoringConfig(Settings):
    """How scorers of images run, wherever the recipe names one.

    Attributes:
        batch_size: images at a time.
        precision: of their weights; a score is compared with those of other machines, so it is float32 by default.
        allow_remote_code: names of models whose own Python code may run.
    """

    batch_size: Positive = defaults.IMAGES_AT_A_TIME
    precision: Precision = "float32"
    allow_remote_code: tuple[Text, ...] = ()

    def of_results(self) -> dict[str, object]:
        """What a score depends on; trust and memory are no part of it, and may change when a scorer is added."""
        return self.model_dump(mode="json", include={"precision"})


class RendererConfig(Settings):
    """A text-to-image model; ``height`` and ``width`` None are the model's own, in pixels.

    The safety checker blackens images, which then have no score and stand in no pair; it is off unless
    asked for.
    """

    model: Text
    steps: Positive = 20
    guidance: float = Field(default=7.5, ge=0)
    height: Side | None = None
    width: Side | None = None
    batch_size: Positive = defaults.IMAGES_AT_A_TIME
    precision: Precision = "auto"
    safety_checker: bool = False
