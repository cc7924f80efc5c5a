"""What settings are made of: a base class, and the types of values that several of them have."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1, le=10**9)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
Side = Annotated[int, Field(ge=8, multiple_of=8)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
Text = Annotated[str, Field(min_length=1)]
Precision = Literal["auto", "float32", "bfloat16", "float16"]

TEMPLATE = "{prompt} Rephrase:"


def one_slot(template: str) -> str:
    """A template with one place for the prompt.

    Raises:
        ValueError: it has none, or several.
    """
    if template.count("{prompt}") != 1:
        raise ValueError("it must contain {prompt} exactly once")
    return template


class Stage(BaseModel):
    """Base of all stages' settings: immutable, and closed to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
