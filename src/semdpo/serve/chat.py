"""OpenAI's chat interface: a conversation becomes a request, and records become an answer, whole or in chunks."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Literal
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from semdpo.prompt_optimizer import Request
from semdpo.serve.wire import ChatAnswer, ChatBody, ChatMessage, Choice, Limits, Message, Prompt, Results
from semdpo.web.errors import RefusedError

_WORD = re.compile(r"\s*\S+|\s+\Z")
_PROMPT: TypeAdapter[str] = TypeAdapter(Prompt)
_HEADER = 2000  # characters; clients refuse answers with very long headers

Records = Sequence[dict[str, Any]]


def request(body: ChatBody, most: int) -> Request:
    """What a conversation asks for: its last user message is the prompt.

    Args:
        body: The conversation.
        most: The most tokens that a rewrite may have. Clients of other models ask for thousands; that means all.

    Raises:
        RefusedError: No message is the user's, or the last one has no text, too much text, or an image.
    """
    said = [message for message in body.messages if message.role == "user"]
    if not said:
        raise RefusedError(400, "no message has the role user; the last one of that role is the prompt", "messages")
    try:
        prompt = _PROMPT.validate_python(_text(said[-1]))
    except ValidationError as error:
        raise RefusedError(400, f"messages: {error.errors(include_input=False)[0]['msg']}", "messages") from None
    limits = body.semdpo or Limits()
    length, budget = limits.length, body.max_completion_tokens or body.max_tokens
    if length is None and budget is not None:
        length = "long" if budget >= most else budget
    keep, banned = tuple(limits.keep), tuple(limits.banned)
    return Request(prompt, keep, length, limits.max_drift, banned, body.n or 1, body.seed or 0)


def _text(message: Message) -> str:
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    if any(part.type != "text" or part.text is None for part in message.content):
        raise RefusedError(400, "the prompt must be text alone; leave images and other parts out", "messages")
    return "".join(part.text or "" for part in message.content)


def headers(records: Records) -> dict[str, str]:
    """Drift, reason and kept spans of the best variant; of very many spans, the first ones."""
    best = records[0]
    kept = ""
    for span in (quote(each, safe="") for each in best["spans"]):
        if len(kept) + len(span) > _HEADER:
            break
        kept += f",{span}" if kept else span
    return {
        "X-Semdpo-Drift": f"{best['drift']:.6f}",
        "X-Semdpo-Reason": quote(best["reason"][: _HEADER // 12]),
        "X-Semdpo-Kept": kept,
    }


def answer(model: str, records: Records) -> ChatAnswer:
    """The whole answer."""
    choices = [
        Choice(index=index, message=ChatMessage(content=each["rewrite"]), finish_reason=_finish(each))
        for index, each in enumerate(records)
    ]
    return ChatAnswer(**_envelope(model), choices=choices, semdpo=Results.model_validate({"results": list(records)}))


def chunks(model: str, records: Records) -> Iterator[str]:
    """The answer as server-sent events: of each variant the role, its words, its end; at last the records.

    The words are known beforehand, as the guard reads the whole rewrite. They come in pieces because clients expect
    pieces.
    """
    envelope = {**_envelope(model), "object": "chat.completion.chunk"}

    def event(index: int, delta: dict[str, str], finish: str | None = None, **more: Any) -> str:
        choices = [{"index": index, "delta": delta, "finish_reason": finish}]
        return f"data: {json.dumps({**envelope, 'choices': choices, **more})}\n\n"

    for index, record in enumerate(records):
        yield event(index, {"role": "assistant", "content": ""})
        for word in _WORD.findall(record["rewrite"]):
            yield event(index, {"content": word})
        more = {"semdpo": {"results": list(records)}} if index == len(records) - 1 else {}
        yield event(index, {}, _finish(record), **more)
    yield "data: [DONE]\n\n"


def _finish(record: dict[str, Any]) -> Literal["stop", "length"]:
    """Why a rewrite ends, in OpenAI's words: by itself, or at the rewriter's token budget."""
    return "length" if record["truncated"] else "stop"


def _envelope(model: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
