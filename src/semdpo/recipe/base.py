"""What settings are made of: a base class, and the types of values that several of them have."""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Positive = Annotated[int, Field(ge=1, le=10**9)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
Side = Annotated[int, Field(ge=8, multiple_of=8)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,99}$")]  # it becomes a file's, of 255 bytes at most
Text = Annotated[str, Field(min_length=1)]
Precision = Literal["auto", "float32", "bfloat16", "float16"]

NO_NUMBER = "no_number"  # pydantic's name for the error of true where a number must be
SLOT = "{prompt}"
TEMPLATE = "{prompt} Rephrase:"
_SLOTS = re.compile(r"\{\s*[\w.:!-]*\s*\}")  # what other programs would fill in


def one_slot(template: str) -> str:
    """A template with one place for the prompt, and no other place.

    Raises:
        ValueError: it has none, or several, or one for something else.
    """
    if template.count(SLOT) != 1:
        raise ValueError(f"it must contain {SLOT} exactly once, not {template!r}")
    if "{{" + SLOT[1:-1] + "}}" in template:
        raise ValueError(f"it must contain {SLOT}, with one brace on each side, not {template!r}")
    if others := [each for each in _SLOTS.findall(template) if each != SLOT]:
        raise ValueError(f"nothing is filled in for {others[0]}; {SLOT} is the only placeholder of a template")
    return template


class Settings(BaseModel):
    """Base of all stages' settings: immutable, and closed to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, values: object) -> object:
        for name, value in values.items() if isinstance(values, dict) else ():
            each = value if isinstance(value, list | tuple) else [value]
            known = cls.model_fields.get(str(name))
            if any(isinstance(one, bool) for one in each) and known is not None and _is_number(known.annotation):
                raise PydanticCustomError(NO_NUMBER, "true and false are no numbers", {"name": name, "value": value})
        return values


def _is_number(annotation: object) -> bool:
    """Whether a setting is a number, or several; pydantic would take true for 1."""
    return annotation in (int, float) or any(_is_number(each) for each in get_args(annotation))
