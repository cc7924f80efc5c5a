"""Settings of the sweep over α."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from semdpo.recipe.base import Name, Seed, Settings
from semdpo.recipe.prompts import PromptSetConfig


class SweepConfig(Settings):
    """Sem-DPO with several values of α, compared on prompts and images that no report shows.

    Attributes:
        alphas: the values of α to train with, ≥ 0.
        prompts: the tuning prompts; prompts that are trained on or held out are left out.
        image_seeds: the seeds of their images; none of evaluate.image_seeds, and none of a benchmark.
        fidelity: one of evaluate.metrics, of whether an image shows the prompt.
        preference: one of evaluate.metrics, of whether people would like the image.
        floor: the method whose fidelity the chosen α must reach.
    """

    alphas: list[Annotated[float, Field(ge=0)]] = Field(default=[0.0, 1.0, 2.0, 4.0, 8.0, 16.0], min_length=2)
    prompts: PromptSetConfig
    image_seeds: list[Seed] = Field(min_length=1)
    fidelity: Name
    preference: Name
    floor: Literal["human", "sft"] = "human"

    @field_validator("alphas", "image_seeds")
    @classmethod
    def _distinct(cls, values: list[float]) -> list[float]:
        if len(set(values)) != len(values):
            raise ValueError("every value may appear only once")
        return values
