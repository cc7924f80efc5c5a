"""Takes the rewrite out of what a chat model answers, and refuses answers that are no rewrite.

It needs the standard library of Python 3.10 only; `semdpo.client` says why.
"""

import json
import re
from collections.abc import Sequence

MOST_ADDED = 4000  # characters by which a rewrite may be longer than its prompt

_THOUGHT = r"(?:think|thinking|thought|reasoning)"
_LABEL_WORD = (
    "sure|certainly|of|course|ok|okay|here|here['’]s|is|the|a|my|your|final|new|re-?written|rephrased|improved|enhanced|"
    "optimi[sz]ed|revised|refined|expanded|detailed|image|text-to-image"
)
# "Rewritten prompt:", "**Prompt:**", "Sure! Here is the improved prompt:"
_LABEL = re.compile(
    rf"(\*\*)?(?:(?:{_LABEL_WORD})[\s,!.]+)*(?:prompt|rewrite|version|output|answer|result|response)"
    r"(?:\*\*)?\s*:(?(1)(?:\*\*)?)\s*",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"(?:i['’]?m|i am)\s+(?:(?:very|really|so)\s+)?(?:sorry|unable|not able|afraid)|sorry\b|(?:my\s+)?apolog|"
    r"as an ai\b|i\s+(?:can['’]?t|can\s?not|won['’]?t|will not|must decline|do not feel|don['’]t feel|apologi)|"
    r"unfortunately,?\s+i\b",
    re.IGNORECASE,
)
# What begins and ends a quotation, other than " and ', which also stand for inches and apostrophes.
QUOTES = (
    *("“”", "„“", "„”", "””", "‘’", "‚‘", "‚’", "«»", "»«", "‹›", "›‹"),
    *("「」", "『』", "《》", "〈〉", "〝〟", "〝〞", "＂＂"),
)
_AROUND = (('"', '"'), ("'", "'"), ("`", "`"), ("**", "**"), *map(tuple, QUOTES))  # around a whole answer
# Syntax of image tools, and quoted text; `_groups` finds brackets.
_SYNTAX = re.compile(
    r"""<[^<>\n]+>|__[^\s_](?:\S*[^\s_])?__|\bBREAK\b|(?<!\S)AND(?!\S)|embedding:[^\s,()\[\]{}]+|"""
    r""""[^"\n]+"|(?<!\w)'[^'\n]+'(?!\w)|""" + "|".join(f"{pair[0]}[^{pair[1]}\n]+{pair[1]}" for pair in QUOTES)
)
_BRACKETS = {")": "(", "]": "[", "}": "{"}


class NoRewriteError(Exception):
    """There is no rewrite; the message is one sentence that says why, and what to do."""


def rewrite_in(answer: str, prompt: str, keep: Sequence[str] = ()) -> str:
    """The rewrite in a chat model's answer, without thoughts, a label, a code fence and quotation marks around it.

    Args:
        answer: What the model wrote.
        prompt: The prompt that it was asked to rewrite.
        keep: Words and phrases that must not change.

    Raises:
        NoRewriteError: The answer is no rewrite, or it lost something that must not change.
    """
    text = re.split(rf"</{_THOUGHT}>", answer, flags=re.IGNORECASE)[-1].strip()
    if re.search(rf"<{_THOUGHT}>|<\|", text, re.IGNORECASE):
        raise NoRewriteError("the model did not finish its thoughts; raise the server's limit of tokens")
    text = _unwrapped(text, prompt)
    if (label := _LABEL.match(text)) and not _LABEL.match(prompt):
        text = _unwrapped(text[label.end() :].strip(), prompt)
    if not text:
        raise NoRewriteError("the model's answer is empty")
    if _REFUSAL.match(text) and not _REFUSAL.match(prompt):
        raise NoRewriteError(f"the model refused: {one_line(text)}")
    if len(text.splitlines()) > len(prompt.strip().splitlines()):
        raise NoRewriteError("the model's answer has several lines, so it is more than a rewrite")
    if len(text) > len(prompt) + MOST_ADDED:
        raise NoRewriteError("the model's answer is longer than a rewrite can be")
    if _is_json(text):
        raise NoRewriteError("the model's answer is JSON, not a rewrite")
    for span in lost(prompt, text, keep):
        raise NoRewriteError(f"the model's rewrite lost '{one_line(span)}'")
    return text


def lost(prompt: str, rewrite: str, keep: Sequence[str] = ()) -> list[str]:
    """What must not change in a prompt, and what a rewrite does not have as often as the prompt has it.

    These are tags such as ``<lora:x:0.8>``, brackets, wildcards, ``BREAK``, quoted text, and what ``keep`` names.
    """
    spans = dict.fromkeys([*_SYNTAX.findall(prompt), *_groups(prompt)])
    missing = [span for span in spans if rewrite.count(span) < prompt.count(span)]
    for phrase in keep:
        words = r"\s+".join(map(re.escape, phrase.split()))
        finder = re.compile(rf"(?<![A-Za-z0-9_]){words}(?![A-Za-z0-9_])", re.IGNORECASE)
        if words and finder.search(prompt) and not finder.search(rewrite):
            missing.append(phrase)
    return missing


def one_line(text: str) -> str:
    """A text of somebody else as one short line without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= 300 else f"{line[:300]}…"


def _unwrapped(text: str, prompt: str) -> str:
    """A text without a code fence and without quotation marks around the whole, unless the prompt begins with them."""
    if fence := re.fullmatch(r"```\w*\n(.*?)\n?```", text, re.DOTALL):
        text = fence[1].strip()
    for left, right in _AROUND:
        inner = text[len(left) : -len(right)]
        whole = text.startswith(left) and text.endswith(right) and left not in inner and right not in inner
        if whole and not prompt.strip().startswith(left):
            return inner.strip()
    return text


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def _groups(text: str) -> list[str]:
    """The outermost pairs of brackets, each with what is between them."""
    opened: list[int] = []
    found: list[tuple[int, int]] = []
    for place, character in enumerate(text):
        if character in _BRACKETS.values():
            opened.append(place)
        elif opened and text[opened[-1]] == _BRACKETS.get(character):
            start = opened.pop()
            while found and found[-1][0] > start:
                found.pop()
            found.append((start, place + 1))
    return [text[start:end] for start, end in found]
