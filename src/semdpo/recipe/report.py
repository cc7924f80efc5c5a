"""Settings of the report."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from semdpo.recipe import defaults
from semdpo.recipe.base import Name, Settings, Text


class ReportConfig(Settings):
    """What the report shows.

    Attributes:
        title: the report's heading.
        fidelity: the metrics of whether an image shows the prompt.
        preference: the metrics of whether people would like the image.
        subject: the method that the report is about.
        baseline: the method that the subject is first compared with.
        drift_threshold: τ, a distance; a rewrite at this distance from its prompt, or farther, has drifted.
        images: the methods whose images are shown side by side; empty shows all.
        facts: ``tiny`` compares the facts of prompts and rewrites in the words of the embedded world; None does not.
        study: ``tiny`` lets nine simulated raters of the embedded world compare the images of subject and baseline on
            up to 20 prompts, as a study with people would; None does not.
    """

    title: Text = defaults.TITLE
    fidelity: list[Name] = Field(default_factory=list)
    preference: list[Name] = Field(default_factory=list)
    subject: Name = defaults.SUBJECT
    baseline: Name = defaults.BASELINE
    drift_threshold: float = Field(default=0.2, ge=0, le=2)
    images: list[Name] = Field(default_factory=list)
    facts: Literal["tiny"] | None = None
    study: Literal["tiny"] | None = None
