"""What must not change in a prompt: syntax of image tools, quoted text, numbers, and what the user names.

A rewriter reads the prompt without this syntax: "a (red:1.2) ball <lora:oil:0.8>" becomes "a red ball". Afterwards
each span is put back, letter by letter, where its words stand in the rewrite. A rewrite that lost them is not used.

The syntax is that of AUTOMATIC1111's web UI, ComfyUI, sd-dynamic-prompts and Midjourney.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

_CLOSING = {"(": ")", "[": "]", "{": "}"}
_NUMBER_WORDS = (
    *("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"),
    *("fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty", "dozen", "hundred", "thousand"),
)
_OUTSIDE = r"[^\s,;()\[\]{}<>\"“”„«»|]"  # what a word with a digit may consist of, as in f/1.8, 35mm and 16:9
# What a span looks like, and the part of it that the rewriter reads: its first group.
_SPANS = (
    re.compile(r"<[A-Za-z][\w-]*:[^<>]*>()"),  # <lora:name:0.8>
    re.compile(r"(?<!\w)embedding:[^\s,()\[\]{}]+()"),
    re.compile(r"\\[(\[{](.*?)\\[)\]}]"),  # \(animal\), which is a name and no emphasis
    re.compile(r"(?<!\w)__(?:[^\s_/]{0,99}/)*(\S{1,99}?)__(?!\w)"),  # __wildcard__
    *(re.compile(f"{opening}([^{closing}]+){closing}") for opening, closing in ('""', "“”", "„“", "«»")),
    re.compile(rf"(?<!\w)((?:{'|'.join(_NUMBER_WORDS)})(?!\w))", re.IGNORECASE),
    re.compile(rf"(?<![\w.])({_OUTSIDE}{{0,40}}\d(?:{_OUTSIDE}{{0,40}}\w)?%?)"),
)
_SEPARATOR = re.compile(r"(?<!\S)(?:BREAK|AND)(?!\S)")
_AFTER = re.compile(r"\s--[a-z][\w-]*(?:\s.*)?\Z|\n\s*negative prompt:.*\Z", re.DOTALL | re.IGNORECASE)
_WEIGHT = re.compile(r":\s*[-+]?[\d.]+\s*\Z")  # (word:1.2), and the step of [from:to:0.5]
_CHANCE = re.compile(r"\A[\d.]+::")  # {3::a|b}: how often a choice is taken
_HOW_MANY = re.compile(r"\A\d+(?:-\d+)?\$\$")  # {2$$a|b}: how many of the choices to take
_GAP = " \t\r\n,"
_DEEPEST = 8  # brackets within brackets that are read; what is deeper loses its brackets only


class LostSpanError(Exception):
    """A rewrite does not contain the words of a span; ``text`` is the span."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a prompt that must not change.

    Attributes:
        text: The part as the user typed it.
        words: What the rewriter reads in its place.
        occurrence: How often these words stand in the plain prompt before the span.
    """

    text: str
    words: str
    occurrence: int


@dataclass(frozen=True, slots=True)
class Protected:
    """A prompt without its syntax, and what is put back into a rewrite of it.

    Attributes:
        plain: The text that the rewriter reads, and that drift is measured from.
        spans: The spans whose words stand in ``plain``, in its order.
        before: What stands before the first word, such as a LoRA tag, with its separator.
        after: Later tags without words, options such as ``--ar 16:9``, and a negative prompt.
        texts: All spans, those without words included, as the user typed them.
    """

    plain: str
    spans: tuple[Span, ...] = ()
    before: str = ""
    after: str = ""
    texts: tuple[str, ...] = ()

    def restore(self, rewrite: str) -> str:
        """A rewrite of ``plain`` with every span put back.

        Raises:
            LostSpanError: The rewrite does not contain the words of a span.
        """
        places: list[tuple[int, int, str]] = []
        for words in sorted({span.words.lower() for span in self.spans}, key=len, reverse=True):
            spans = [span for span in self.spans if span.words.lower() == words]
            free = [
                (found.start(), found.end())
                for found in _finder(words).finditer(rewrite)
                if all(found.end() <= start or end <= found.start() for start, end, _ in places)
            ]
            first = 0  # the first of the places that a span may still take
            for k, span in enumerate(spans):
                last = len(free) - (len(spans) - k)  # the others need a place too
                if first > last:
                    raise LostSpanError(span.text)
                first = max(first, min(span.occurrence, last))
                places.append((*free[first], span.text))
                first += 1
        for start, end, text in sorted(places, reverse=True):
            rewrite = rewrite[:start] + text + rewrite[end:]
        return self.before + rewrite + self.after


@dataclass(frozen=True, slots=True)
class _Piece:
    """A piece of a prompt: literal text, or a span with the words that stand for it."""

    text: str
    words: str
    fixed: bool = True


def protect(prompt: str, keep: Sequence[str] = ()) -> list[Protected]:
    """The parts of a prompt, without their syntax.

    Args:
        prompt: The user's prompt.
        keep: Words and phrases that must not change; those that the prompt does not contain have no effect.

    Returns:
        One part, or several where ``BREAK`` or ``AND`` separates them; `join` puts their rewrites together. A part may
        be blank.
    """
    body, tail = _body(prompt)
    parts = [_part(part, keep) for part in _parts(body)[0]]
    if tail:
        parts[-1] = replace(parts[-1], after=parts[-1].after + tail, texts=(*parts[-1].texts, tail.strip()))
    return parts


def join(prompt: str, rewrites: Sequence[str]) -> str:
    """The rewrites of a prompt's parts, with the prompt's separators between them."""
    separators = _parts(_body(prompt)[0])[1]
    return "".join(text for pair in zip(rewrites, [*separators, ""], strict=True) for text in pair)


def contains(prompt: str, phrase: str) -> bool:
    """Whether a prompt contains a phrase, in whole words, whatever its case and the prompt's syntax."""
    return any(_finder(phrase).search(_read(part)) for part in _parts(_body(prompt)[0])[0])


def _body(prompt: str) -> tuple[str, str]:
    """A prompt without, and with only, the options and the negative prompt at its end."""
    found = _AFTER.search(prompt)
    return (prompt[: found.start()], prompt[found.start() :]) if found else (prompt, "")


def _parts(body: str) -> tuple[list[str], list[str]]:
    """A prompt's parts and the separators between them. A prompt in capitals has words only, no separators."""
    if body.upper() == body:
        return [body], []
    parts, separators, at, begun = [], [], 0, 0
    for piece in _pieces(body):
        for found in _SEPARATOR.finditer(body, at, at + len(piece.text)) if not piece.fixed else ():
            start, end = len(body[: found.start()].rstrip()), len(body) - len(body[found.end() :].lstrip())
            parts.append(body[begun : max(begun, start)])
            separators.append(body[max(begun, start) : end])
            begun = end
        at += len(piece.text)
    return [*parts, body[begun:]], separators


def _finder(words: str) -> re.Pattern[str]:
    """Finds words as whole words, whatever their case and the blanks between them."""
    pattern = r"\s+".join(re.escape(word) for word in words.split())
    start = r"(?<!\w)" if re.match(r"\w", words) else ""
    end = r"(?!\w)" if re.search(r"\w\Z", words) else ""
    return re.compile(start + pattern + end, re.IGNORECASE)


def _closing(text: str) -> dict[int, int]:
    """The place of the closing bracket of each opening one, for those that have one."""
    pairs: dict[int, int] = {}
    opened: list[int] = []
    for place, character in enumerate(text):
        if place and text[place - 1] == "\\":
            continue
        if character in _CLOSING:
            opened.append(place)
        elif character in _CLOSING.values():
            while opened:
                start = opened.pop()
                if _CLOSING[text[start]] == character:
                    pairs[start] = place
                    break
    return pairs


def _pieces(text: str, depth: int = 0) -> Iterator[_Piece]:
    """The pieces of a text, from left to right; their texts together are the whole text."""
    pairs, at, literal = _closing(text), 0, 0
    while at < len(text):
        piece = _bracket(text[at : pairs[at] + 1], depth) if at in pairs else _matched(text, at)
        if piece is None:
            at += 1
            continue
        if literal < at:
            yield _Piece(text[literal:at], text[literal:at], fixed=False)
        yield piece
        at += len(piece.text)
        literal = at
    if literal < len(text):
        yield _Piece(text[literal:], text[literal:], fixed=False)


def _span(text: str, words: str) -> _Piece:
    """A span; words without a letter or digit are none."""
    return _Piece(text, words.strip() if re.search(r"\w", words) else "")


def _matched(text: str, at: int) -> _Piece | None:
    for pattern in _SPANS:
        if found := pattern.match(text, at):
            return _span(found.group(), found.group(1).replace("_", " ") if "__" in found.group() else found.group(1))
    return None


def _bracket(text: str, depth: int) -> _Piece:
    """The span of a bracket, whose words are what it stands for: of several choices the first."""
    inner = text[1:-1]
    if depth >= _DEEPEST:
        return _span(text, re.sub(r"[()\[\]{}]", "", inner))
    weight = _WEIGHT.search(inner)
    if text[0] == "{" or "|" in inner:
        inner = _CHANCE.sub("", _HOW_MANY.sub("", inner).split("|")[0])
    elif weight and text[0] == "[":  # [from:to:step]
        inner = next((choice for choice in reversed(inner[: weight.start()].split(":")) if choice.strip()), "")
    elif weight:
        inner = inner[: weight.start()]
    return _span(text, _read(inner, depth + 1))


def _read(text: str, depth: int = 0) -> str:
    """What a rewriter reads of a text."""
    return _plain(_pieces(text, depth))[0]


def _plain(pieces: Iterable[_Piece]) -> tuple[str, list[int]]:
    """The pieces' words as one text, and the place in it of each piece.

    Where a piece without words stood, one gap remains of the two around it.
    """
    plain, places, dropped, fixed = "", [], False, False
    for piece in pieces:
        words = piece.words
        if (piece.fixed or fixed) and re.match(r"\w", words) and re.search(r"\w\Z", plain):
            plain += " "  # ball(red:1.2) is two words
        fixed = piece.fixed
        dropped = dropped or not words
        rest = words.lstrip(_GAP)
        if dropped and rest:
            kept = plain.rstrip(_GAP)
            around = plain[len(kept) :] + words[: len(words) - len(rest)]
            plain, words, dropped = kept + (", " if "," in around else " ") * bool(kept), rest, False
        places.append(len(plain))
        plain += words
    return (plain.rstrip(_GAP) if dropped else plain), places


def _part(text: str, keep: Sequence[str]) -> Protected:
    """One part of a prompt, without its syntax."""
    pieces = list(_pieces(text))
    for phrase in keep:
        pieces = _with_phrase(pieces, phrase)
    plain, places = _plain(pieces)
    spans, before, after, at = [], "", "", 0
    for piece, place in zip(pieces, places, strict=True):
        gap = text[len(text[:at].rstrip(_GAP)) : at]
        at += len(piece.text)
        if piece.fixed and piece.words:
            spans.append(Span(piece.text, piece.words, len(_finder(piece.words).findall(plain[:place]))))
        elif piece.fixed and not plain[:place]:
            before = text[: len(text) - len(text[at:].lstrip(_GAP))]
        elif piece.fixed:
            after += (", " if "," in gap else " ") + piece.text
    return Protected(plain, tuple(spans), before, after, tuple(piece.text for piece in pieces if piece.fixed))


def _with_phrase(pieces: list[_Piece], phrase: str) -> list[_Piece]:
    """The pieces with each occurrence of a phrase as a span of its own; syntax within it stays in it."""
    finder, done = _finder(phrase), list[_Piece]()
    while found := finder.search("".join(piece.words for piece in pieces)):
        inside, later, at = list[_Piece](), list[_Piece](), 0
        for piece in pieces:
            start, end = found.start() - at, found.end() - at
            at += len(piece.words)
            if end <= 0:
                later.append(piece)
            elif start >= len(piece.words):
                done.append(piece)
            elif piece.fixed:
                inside.append(piece)
            else:
                cuts = (0, max(0, start), min(end, len(piece.text)), len(piece.text))
                texts = [piece.text[a:b] for a, b in pairwise(cuts)]
                for text, into in zip(texts, (done, inside, later), strict=True):
                    into += [_Piece(text, text, fixed=False)] if text else []
        done.append(_Piece("".join(piece.text for piece in inside), "".join(piece.words for piece in inside)))
        pieces = later
    return done + pieces
