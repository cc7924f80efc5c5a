"""What clients send and get: every field with its type and limits. OpenAPI is made from these classes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from semdpo.prompt_optimizer import LONGEST_PROMPT, MOST_VARIANTS, Request
from semdpo.texts import is_visible

MOST_TOKENS = 10_000  # no encoder reads as many; each optimizer has its own limit
LENGTH = "it must be 'short', 'medium', 'long', or the most tokens of a rewrite, from 1 to 10,000"


def _visible(text: str) -> str:
    if not is_visible(text):
        raise PydanticCustomError("empty", "the prompt is empty, or shows nothing; say what the image should show")
    return text


def _one_sentence(value: Any, inner: ValidatorFunctionWrapHandler) -> Any:
    """One message in place of one for every type that the value could have had."""
    try:
        return inner(value)
    except ValidationError:
        raise PydanticCustomError("length", LENGTH) from None


Prompt = Annotated[
    str,
    Field(max_length=LONGEST_PROMPT, description="What the image should show.", examples=["a red ball"]),
    AfterValidator(_visible),
]
Phrases = Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=100)]
Length = Annotated[
    Literal["short", "medium", "long"] | Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None,
    WrapValidator(_one_sentence),
    Field(description="How long a rewrite may be: a word, or its most tokens. null: as the rewriter was trained."),
]
Drift = Annotated[float | None, Field(ge=0, le=2, description="The largest drift; null: the server's limit.")]
Variants = Annotated[int, Field(ge=1, le=MOST_VARIANTS, description="The number of variants.")]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Model = Annotated[str | None, Field(max_length=1000, description="A name from /v1/models; null: the first.")]


class Typed(BaseModel):
    """An object of which no field is converted and none is unknown."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Limits(Typed):
    """What a rewrite must keep to."""

    keep: Annotated[Phrases, Field(description="Words and phrases that must not change.")] = []
    length: Length = None
    max_drift: Drift = None
    banned: Annotated[Phrases, Field(description="Whole words that a rewrite must not contain.")] = []


class OptimizeBody(Limits):
    """The body of /v1/optimize."""

    prompt: Prompt
    n: Variants = 1
    seed: Seed = 0
    model: Model = None

    def request(self) -> Request:
        """The same for an optimizer."""
        return Request(
            self.prompt, tuple(self.keep), self.length, self.max_drift, tuple(self.banned), self.n, self.seed
        )


class RenderBody(Typed):
    """The body of /v1/render."""

    prompt: Prompt
    original: Annotated[
        str | None, Field(max_length=LONGEST_PROMPT, description="The prompt that was rewritten, for the metadata.")
    ] = None
    seed: Seed = 0
    model: Annotated[Model, Field(description="The model that rewrote it, for the metadata.")] = None


class Part(BaseModel):
    """A part of a chat message; text is all that a rewriter reads."""

    model_config = ConfigDict(strict=True)

    type: str
    text: str | None = None


class Message(BaseModel):
    """A chat message. Fields that other servers know are ignored."""

    model_config = ConfigDict(strict=True)

    role: str
    content: str | list[Part] | None = None


class ChatBody(BaseModel):
    """The body of /v1/chat/completions. OpenAI's other fields, such as temperature, are ignored."""

    model_config = ConfigDict(strict=True)

    messages: Annotated[list[Message], Field(min_length=1, description="The last one of the user is the prompt.")]
    model: Model = None
    n: Variants | None = None
    seed: Seed | None = None
    max_tokens: Annotated[int | None, Field(ge=1, description="The most tokens of a rewrite.")] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1, description="The same, by its newer name.")] = None
    stream: bool | None = None
    semdpo: Limits | None = None


class Record(BaseModel):
    """One variant of a prompt."""

    model_config = ConfigDict(extra="allow")

    prompt: str
    rewrite: str
    drift: Annotated[float, Field(description="1 - cos(prompt, rewrite); 0 where the prompt is returned.")]
    kept: Annotated[list[str], Field(description="The prompt's words that the rewrite has.")]
    added: Annotated[list[str], Field(description="The rewrite's words that the prompt has not.")]
    lost: Annotated[list[str], Field(description="The prompt's words that the rewrite has not.")]
    reason: Annotated[str, Field(description="Why the prompt is returned; empty where the rewriter's text is.")]
    seed: int
    truncated: bool
    model: str
    fingerprint: str
    spans: Annotated[list[str], Field(description="The parts of the prompt that were protected, as typed.")]


class OptimizeAnswer(BaseModel):
    """The answer of /v1/optimize: the best variant comes first."""

    model: str
    results: list[Record]


class Results(BaseModel):
    """What a chat answer says beyond OpenAI's fields."""

    results: list[Record]


class ChatMessage(BaseModel):
    """A rewrite."""

    role: Literal["assistant"] = "assistant"
    content: str


class Choice(BaseModel):
    """One variant."""

    index: int
    message: ChatMessage
    finish_reason: Literal["stop", "length"] = "stop"


class ChatAnswer(BaseModel):
    """The answer of /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    semdpo: Results


class ModelFacts(BaseModel):
    """What is known of a model."""

    fingerprint: str
    encoder: str
    max_drift: float


class ModelEntry(BaseModel):
    """A model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["semdpo"] = "semdpo"
    semdpo: ModelFacts


class ModelList(BaseModel):
    """The answer of /v1/models; the first model is used where a request names none."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]


class Health(BaseModel):
    """The answer of /healthz."""

    status: Literal["ok"] = "ok"
    renderer: str | None
