"""Settings of labelling: how candidates are rendered and scored."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from semdpo.recipe import defaults
from semdpo.recipe.base import Positive, Seed, Settings
from semdpo.recipe.endpoints import ModelName
from semdpo.recipe.models import RendererConfig


class LabelConfig(Settings):
    """How candidates are rendered and scored.

    Attributes:
        renderer: the text-to-image model.
        scorer: the preference scorer, whose scores decide the pairs: a model's name or folder, or the URL of a server
            of a model that reads images; ``scoring.endpoints`` says how it is asked.
        fidelity: a scorer of whether the image shows the prompt, which the additive objective needs; one that does not
            read the prompt is refused.
        batch_size: the number of images in memory at once.
        seed: the seed of the images.
        shard_size: the number of prompts per file, here and in the stages pairs and drift.
        max_failed: the share of a shard's candidates that may stay without a score, because their image cannot be
            rendered or scored; more stop the run. One of a shard always may, unless the share is 0.
        reuse_scores: whether scores that earlier runs on this machine got for the same image are used, and new ones
            kept for later runs.
        reuse_images: whether images that earlier runs on this machine rendered in the same batch are used, and new ones
            kept for later runs, so that another scorer needs no new images.
        kept_images_gb: the gigabytes that the kept images of all runs may take; the oldest are removed first.
    """

    renderer: RendererConfig
    scorer: ModelName
    fidelity: ModelName | None = None
    batch_size: Positive = defaults.IMAGES_AT_A_TIME
    seed: Seed = 0
    shard_size: Positive = 64
    max_failed: float = Field(default=0.01, ge=0, le=1)
    reuse_scores: bool = False
    reuse_images: bool = False
    kept_images_gb: float = Field(default=20.0, gt=0)

    @model_validator(mode="after")
    def _two_scorers(self) -> LabelConfig:
        if self.fidelity == self.scorer:
            raise ValueError("fidelity and scorer are the same model, so that their scores are equal; name another one")
        return self

    def of_results(self) -> dict[str, Any]:
        """The settings that scores depend on; the others can change in the middle of a run."""
        changeable = {"max_failed", "reuse_scores", "reuse_images", "kept_images_gb"}
        return self.model_dump(mode="json", exclude=changeable) | {"renderer": self.renderer.of_results()}
