"""Settings of the prompts: those to train on, and those held out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from semdpo.recipe.base import Name, Positive, Settings, Text


class PromptSetConfig(Settings):
    """A set of prompts, of which ``limit`` are chosen by the hash of their words."""

    file: Text
    column: Text | None = None
    limit: Positive | None = None


class PromptsConfig(Settings):
    """Which prompts are trained on and which are held out.

    Attributes:
        file: a txt, jsonl, csv, tsv or parquet file, COCO's captions, ``tiny:FILE`` of the embedded world, or
            ``hub:OWNER/NAME``.
        test_file: the file of held-out prompts; None holds out ``test_share`` of ``file``.
        test_sets: instead of ``test_file``: name → set of prompts to evaluate on.
        column: the column that holds the prompts; None takes prompt, or else Prompt.
        limit: the number of training prompts; None takes all.
        draw: whether the ``first`` prompts are taken, or prompts chosen by the ``hash`` of their words.
        test_limit: the number of held-out prompts, from the top of ``test_file``; None takes all.
        test_share: the share of ``file`` that is held out when there are neither ``test_file`` nor ``test_sets``.
        skip_empty: whether rows without text, such as those of DiffusionDB, are left out; otherwise they are refused.
    """

    file: Text
    test_file: Text | None = None
    test_sets: dict[Name, PromptSetConfig] = Field(default_factory=dict)
    column: Text | None = None
    limit: Positive | None = None
    draw: Literal["first", "hash"] = "first"
    test_limit: Positive | None = None
    test_share: float = Field(default=0.1, gt=0, lt=1)
    skip_empty: bool = False

    @model_validator(mode="after")
    def _one_way_to_hold_out(self) -> PromptsConfig:
        if "all" in self.test_sets:
            raise ValueError("test_sets has a set called 'all', which means all of them together; choose another name")
        if self.test_file is not None and self.test_sets:
            raise ValueError("test_file and test_sets exclude each other; make the file one of the sets")
        return self
