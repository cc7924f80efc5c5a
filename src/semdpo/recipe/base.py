"""The base class of all settings, and the types of values that several settings share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from semdpo.texts import half_character

Positive = Annotated[int, Field(ge=1, le=10**9)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
Side = Annotated[int, Field(ge=8, multiple_of=8)]
Name = Annotated[
    str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,99}$")
]  # it becomes a file's name, which may have 255 bytes
Text = Annotated[str, Field(min_length=1)]
Precision = Literal["auto", "float32", "bfloat16", "float16"]

NO_NUMBER = "no_number"  # the type of the error where true or false is given for a number
SLOT = "{prompt}"
TEMPLATE = "{prompt} Rephrase:"
CHAT = "chat"  # the template that stands for the tokenizer's own chat template
_SLOTS = re.compile(r"\{\s*[\w.:!-]*\s*\}")  # placeholders of other programs


@dataclass(frozen=True, slots=True)
class Template:
    """What a rewriter reads around a prompt.

    Attributes:
        text: a text with ``{prompt}`` in it; or ``chat``, the chat template of the model's tokenizer.
        system: the system message before the prompt, for ``chat`` only; None is none.

    Raises:
        ValueError: the text has no ``{prompt}``, there is a system message without a chat, or one of them cannot be
            written as UTF-8.
    """

    text: str = TEMPLATE
    system: str | None = None

    def __post_init__(self) -> None:  # noqa: D105
        if half := half_character(self.text + (self.system or "")):
            raise ValueError(f"it holds half a character ({half}); write the whole character")
        if self.text != CHAT:
            one_slot(self.text)
            if self.system is not None:
                raise ValueError(f"system is a message of a chat; set template to {CHAT}, or remove system")
        elif self.system is not None and not self.system.strip():
            raise ValueError("system is blank; write what the model shall do, or remove it")

    @classmethod
    def of(cls, template: str | Template) -> Template:
        """A template from its text; a ``Template`` stays as it is."""
        return template if isinstance(template, Template) else cls(template)

    @property
    def is_chat(self) -> bool:
        """Whether the prompt is a message of a chat."""
        return self.text == CHAT


def one_slot(template: str) -> str:
    """Refuses a template unless ``{prompt}`` is its one placeholder.

    Args:
        template: the text that a rewriter reads, with a placeholder for the prompt.

    Raises:
        ValueError: the template has no such placeholder, several, or another one.
    """
    if template.count(SLOT) != 1:
        raise ValueError(f"it must contain {SLOT} exactly once, or be {CHAT!r}, not {template!r}")
    if "{{" + SLOT[1:-1] + "}}" in template:
        raise ValueError(f"it must contain {SLOT}, with one brace on each side, not {template!r}")
    if others := [slot for slot in _SLOTS.findall(template) if slot != SLOT]:
        raise ValueError(f"it contains {others[0]}, but {SLOT} is the only placeholder that is filled in; remove it")
    return template


def known_template(template: str) -> str:
    """Refuses a template that is neither ``chat`` nor a text with one ``{prompt}``; see ``one_slot``."""
    return template if template == CHAT else one_slot(template)


class Settings(BaseModel):
    """The base of all settings: they cannot be changed, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, values: object) -> object:
        for name, value in values.items() if isinstance(values, dict) else ():
            entries = value if isinstance(value, list | tuple) else [value]
            field = cls.model_fields.get(str(name))
            if any(isinstance(entry, bool) for entry in entries) and field is not None and _is_number(field.annotation):
                raise PydanticCustomError(
                    NO_NUMBER, "it must be a number, not true or false", {"name": name, "value": value}
                )
        return values


def _is_number(annotation: object) -> bool:
    """Whether a setting is a number or a list of numbers, where pydantic would read true as 1."""
    return annotation in (int, float) or any(_is_number(inner) for inner in get_args(annotation))


class Templated(Settings):
    """Settings with a rewriter's template.

    Attributes:
        template: the text that the model reads, with ``{prompt}`` in it; or ``chat``, its tokenizer's chat template.
        system: the system message of the chat; None is none.
    """

    template: str = TEMPLATE
    system: str | None = None

    _template = field_validator("template")(known_template)

    @model_validator(mode="after")
    def _system_of_a_chat(self) -> Templated:
        _ = self.reads
        return self

    @property
    def reads(self) -> Template:
        """What the model reads around a prompt."""
        return Template(self.template, self.system)
