"""Reads what a general language model answered as a rewrite, or says why it is none.

A model that was trained to chat puts its answer in quotation marks, writes a heading above it, thinks aloud, refuses,
asks back or explains itself. What surrounds a rewrite is removed. What is no rewrite is refused with a reason. A
rewrite itself is not changed, except that its white space becomes single spaces.

The phrases are English. An answer in another language that is no rewrite is not recognized here; the drift shows it.
"""

from __future__ import annotations

import json
import re
import unicodedata

from semdpo.chat_answers import QUOTES
from semdpo.protocols import Answer
from semdpo.texts import is_visible, shown, trimmed

EMPTY = "the answer is empty"
REFUSED = "the model refused"
ASKED = "the model asked back"
NO_ROOM = "the tokens ended before the answer began; raise max_new_tokens, or turn off the model's thinking"
THINKING = "the model was still thinking when its answer ended; raise max_new_tokens, or turn off its thinking"
JSON = "the answer is JSON, not a prompt"
CODE = "the answer holds a block of code"
PARAGRAPHS = "the answer has several paragraphs, not one line"
LIST = "the answer is a list, not one prompt"
EXPLAINED = "the answer explains itself"
CONTROL = "the answer holds control characters"
LAYERS = 8  # no answer has more around its rewrite, and an endless one is not worth the time

# ------------------------------------------------------------------------------------------------- what surrounds it

# Everything up to the last end of a thought: the beginning may be in the chat template instead of the answer.
_THOUGHT = re.compile(r"\A.*(?:</(?:think|thinking|reasoning)>|\[/THINK\])", re.DOTALL | re.IGNORECASE)
_UNFINISHED = re.compile(r"\A<(?:think|thinking|reasoning)>|<think>|\A\[THINK\]", re.IGNORECASE)
_FENCE = re.compile(r"```(?:[\w-]*\n)?((?:(?!```).)*)```", re.DOTALL)
_TAG = re.compile(r"<(prompt|rewrite|answer|output|result)>(.*)</\1>", re.DOTALL | re.IGNORECASE)
_BOLD = re.compile(r"\*\*([^*]+)\*\*")
_AROUND = {'""', "''", "``", *QUOTES}

_DONE = (
    r"(?:re-?written|re-?phrased|re-?worded|revised|improved|enhanced|optimi[sz]ed|refined|polished|expanded|updated)"
)
_THING = r"(?:prompt|rewrite|version|description)"
_YES = r"(?:sure(?:\ thing)?|certainly|of\ course|absolutely|okay|ok|got\ it)"
_LABEL = re.compile(
    rf"""
    \A(?:\#+\s*)?(?:\*\*\s*)?
    (?:{_YES}\b[!,.]*\s*)?
    (?:
        (?:here(?:['’]s|\ is|\ are)|this\ is|below\ is)\b [^:\n]{{0,60}} \b(?:{_DONE}|prompt|rewrite)\b [^:\n]{{0,60}}
      | (?:the\ |your\ |my\ )? (?:{_DONE}|final|new|better) (?:\ [\w-]+){{0,3}}? \ {_THING}
      | {_DONE}
      | (?:the\ |your\ )? (?:(?:text-to-)?image\ )? prompt
      | (?:rewrite|output|answer|result|response)
    )
    (?:\ \([^)\n]*\))? \s*(?:\*\*)? : \s*(?:\*\*)?
    """,
    re.IGNORECASE | re.VERBOSE,
)
# A line of its own above the rewrite: "Sure!", "Here you go:".
_HEADING = re.compile(
    rf"\A(?:{_YES}\b[^\n]{{0,120}}[:!.]|(?:here|below)\b[^\n]{{0,120}}:)\s*\n", re.IGNORECASE | re.VERBOSE
)

# ------------------------------------------------------------------------------------------------- what is no rewrite

_HELP = (
    r"(?:help|assist|comply|fulfil\w*|create|generate|provide|rewrite|do\s+(?:that|this)|support|engage|produce|write|"
    r"process|continue|respond|complete|discuss|offer|describe|accommodate|participate|facilitate)\b"
)
_REFUSAL = re.compile(
    rf"""
    \A(?:(?:oh|unfortunately|regrettably)[,.!]?\s+)?
    (?:
        i(?:'m|\ am)\s+(?:so\s+|very\s+|really\s+|truly\s+)?sorry(?:[,.!;:]|\s+(?:but|i|that|for|to)\b|\s*\Z)
      | i(?:'m|\ am)\s+afraid\s+(?:that\s+)?i\b
      | i(?:'m|\ am)\s+(?:unable|not\s+able|not\s+allowed|not\s+going)\s+to\s+{_HELP}
      | sorry[,.!]?\s+(?:but\s+)?i\b
      | i\s+(?:sincerely\s+)?apologi[sz]e\b
      | my\s+apologies\b
      | i\s+(?:can't|cannot|can\ not|won't|will\s+not|could\ not|couldn't)\s+{_HELP}
      | i\s+(?:must|have\s+to|need\s+to)\s+(?:decline|refuse)\b
      | as\s+an?\s+(?:ai|artificial\s+intelligence|(?:large\s+)?language\s+model|assistant)\b[^.\n]{{0,80}}\bi\b
      | (?:this|your|the)\s+(?:request|prompt|content)\s+(?:violates|goes\s+against|is\s+against|is\s+not\s+allowed)\b
    )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_QUESTION = re.compile(
    r"""
    \A(?:sure[,!.]*\s+|hello[,!.]*\s+|hi[,!.]*\s+)?
    (?:
        (?:could|can|would)\s+you\s+(?:please\s+)?(?:provide|clarify|specify|tell\s+me|share|give\s+me|describe)\b
      | please\s+(?:provide|clarify|specify|enter|tell\s+me|give\s+me|send\s+me|share\s+(?:the|your))\b
      | (?:what|which|how|do|would|could|can)\b [^\n]* \byour?\b [^\n]* \?\Z
      | (?:i'd|i\ would)\s+(?:be\s+(?:happy|glad)|love)\s+to\s+help\b
      | i(?:'m|\ am)\s+(?:happy|glad|ready)\s+to\s+help\b
      | i\s+need\s+(?:more|some)\s+(?:information|details|context)\b
      | how\s+(?:can|may)\s+i\s+(?:help|assist)\b
    )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_OBJECT = re.compile(r"""[\[\s]*\{\s*(["'])\w[\w -]*\1\s*:""")  # also one whose end is missing
_PARAGRAPHS = re.compile(r"\n[^\S\n]*\n")
_ENTRY = re.compile(r"^[^\S\n]*(?:[-*•]|\d+[.)])\s+\S", re.MULTILINE)
_EXPLANATION = re.compile(
    r"\n\W{0,99}(?:note|explanation|changes|this\s+(?:rewrite|rewritten|prompt|version)|i(?:'ve|\s+have)?\s+(?:added|kept)|"
    r"let\s+me\s+know|feel\s+free|i\s+hope)\b",
    re.IGNORECASE,
)


def read(raw: str, truncated: bool = False, prompt: str = "") -> Answer:
    """Reads an answer.

    Args:
        raw: the answer's content, without the thoughts that a server puts elsewhere.
        truncated: whether the token budget truncated it.
        prompt: what was to be rewritten. One that itself begins like a refusal or a question, as a title may, has
            rewrites that do.

    Returns:
        The rewrite on one line; or no text, and the reason.
    """
    text = trimmed(_THOUGHT.sub("", raw))
    if _UNFINISHED.search(text):
        return Answer("", truncated, THINKING)
    text = _unwrapped(text)
    reason = NO_ROOM if truncated and not is_visible(text) else _fault(text, prompt)
    return Answer("", truncated, reason) if reason else Answer(" ".join(text.split()), truncated)


def unfenced(raw: str) -> str | None:
    """An answer without the thought before it and a code fence around it; None where the thought has no end.

    Args:
        raw: the answer's content.
    """
    text = trimmed(_THOUGHT.sub("", raw))
    if _UNFINISHED.search(text):
        return None
    fence = _FENCE.fullmatch(text)
    return text if fence is None else trimmed(fence[1])


def _unwrapped(text: str) -> str:
    """A text without fences, tags, headings and quotation marks around it."""
    for _ in range(LAYERS):
        inner = trimmed(_without_layer(text))
        if inner == text:
            break
        text = inner
    return text


def _without_layer(text: str) -> str:
    for pattern in (_FENCE, _TAG, _BOLD):
        if match := pattern.fullmatch(text):
            return match[match.lastindex or 0]
    for pattern in (_LABEL, _HEADING):
        if match := pattern.match(text):
            return text[match.end() :]
    first, last, inner = text[:1], text[-1:], text[1:-1]
    # Inner marks of the same kind would be the ends of two quotations: "OPEN" above "CLOSED".
    if first + last in _AROUND and len(text) > 1 and first not in inner and last not in inner:
        return inner
    return text


def _fault(text: str, prompt: str) -> str:
    """Why a text is no rewrite; empty when it may be one."""
    if not is_visible(text):
        return EMPTY
    if any(unicodedata.category(char) in ("Cc", "Cs") and not char.isspace() for char in text):
        return CONTROL
    plain, asked = text.replace("’", "'"), prompt.strip().replace("’", "'")
    for pattern, what in ((_REFUSAL, REFUSED), (_QUESTION, ASKED)):
        if pattern.match(plain) and not pattern.match(asked):
            return f"{what}: {shown(' '.join(text.split()))}"
    if _is_json(text):
        return JSON
    if "```" in text:
        return CODE
    if len(_ENTRY.findall(text)) > 1:
        return LIST
    if _PARAGRAPHS.search(text):
        return PARAGRAPHS
    return EXPLAINED if _EXPLANATION.search(plain) else ""


def _is_json(text: str) -> bool:
    """Whether a text is a JSON object or list; ``{cat|dog}`` and ``[cat|dog]`` are none."""
    if _OBJECT.match(text):
        return True
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False
