"""What must not change in a prompt: syntax of image tools, quoted text, numbers, and what the user names.

A rewriter reads the prompt without this syntax: "a (red:1.2) ball <lora:oil:0.8>" becomes "a red ball". Afterwards
each span is put back, letter by letter, where its words stand in the rewrite. A rewrite that lost them is not used.
`span_syntax` knows the syntax of the tools.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from semdpo.errors import ConfigError
from semdpo.span_syntax import Piece, pieces_of, tail_of, whole_words
from semdpo.texts import is_visible

_SEPARATOR = re.compile(r"\bBREAK\b|(?<!\S)AND(?!\S)")
_WEIGHT_OF_PART = re.compile(r"\s*:-?[\d.]+\s*\Z")  # a cat :1.2 AND a dog :0.8
_GAP = " \t\r\n,"


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
        whole: Whether they stand there as whole words; otherwise they are looked for within words too.
        alone: Whether no hyphen joins them to other words there, unlike the red of infra-red.
    """

    text: str
    words: str
    occurrence: int
    whole: bool = True
    alone: bool = True


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
        taken: list[tuple[int, int, str]] = []
        for group in _by_words(self.spans):
            free = _places(group[0], rewrite, [(start, end) for start, end, _ in taken])
            first = 0  # the first of the places that a span may still take
            for k, span in enumerate(group):
                last = len(free) - (len(group) - k)  # the others need a place too
                if first > last:
                    raise LostSpanError(span.text)
                first = max(first, min(span.occurrence, last))
                taken.append((*free[first], span.text))
                first += 1
        for start, end, text in sorted(taken, reverse=True):
            rewrite = rewrite[:start] + text + rewrite[end:]
        return self.before + rewrite + self.after


def protect(prompt: str, keep: Sequence[str] = ()) -> list[Protected]:
    """The parts of a prompt, without their syntax.

    Args:
        prompt: The user's prompt.
        keep: Words and phrases that must not change; those that the prompt does not contain have no effect.

    Returns:
        One part, or several where ``BREAK`` or ``AND`` separates them; `join` puts their rewrites together. A part may
        be blank.

    Raises:
        ConfigError: ``keep`` is one text instead of a list.
    """
    if isinstance(keep, str):
        raise ConfigError(f"keep is the text '{keep}'; give a list of words and phrases")
    tail = tail_of(prompt)
    body = prompt[: len(prompt) - len(tail)]
    parts = [_part(part, keep) for part in _parts(body)[0]]
    if tail:
        parts[-1] = replace(parts[-1], after=parts[-1].after + tail, texts=(*parts[-1].texts, tail.strip()))
    return parts


def join(prompt: str, rewrites: Sequence[str]) -> str:
    """The rewrites of a prompt's parts, with the prompt's separators between them."""
    after = _parts(prompt[: len(prompt) - len(tail_of(prompt))])[1]
    return "".join(text for pair in zip(rewrites, after, strict=True) for text in pair)


def readable(prompt: str) -> str:
    """A prompt without the syntax of image tools, as a renderer or scorer that does not know it should read it."""
    return " ".join(part.plain for part in protect(prompt) if part.plain)


def contains(prompt: str, phrase: str) -> bool:
    """Whether a prompt contains a phrase, whatever its case: in its words, or in its syntax, which is kept anyway."""
    finder = whole_words(phrase)
    return bool(finder.search(prompt)) or any(finder.search(part.plain) for part in protect(prompt))


def _parts(body: str) -> tuple[list[str], list[str]]:
    """A prompt's parts, and what follows each of them. In a prompt in capitals, AND is a word."""
    capitals = body.upper() == body != body.lower()
    parts, after, at, begun = [], [], 0, 0
    for piece in pieces_of(body):
        for found in _SEPARATOR.finditer(body, at, at + len(piece.text)) if not piece.fixed else ():
            if capitals and found.group() == "AND":
                continue
            start = max(begun, len(body[: found.start()].rstrip(_GAP)))
            end = len(body) - len(body[found.end() :].lstrip(_GAP))
            weight = _WEIGHT_OF_PART.search(body, begun, start)
            parts.append(body[begun : weight.start() if weight else start])
            after.append(body[begun + len(parts[-1]) : end])
            begun = end
        at += len(piece.text)
    weight = _WEIGHT_OF_PART.search(body, begun) if parts else None
    parts.append(body[begun : weight.start()] if weight else body[begun:])
    return parts, [*after, body[begun + len(parts[-1]) :]]


def _places(span: Span, text: str, taken: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Where a span's words stand in a text, outside of places that are taken.

    If they stood alone in the prompt, those that a hyphen joins to others count only where there are no others.
    """
    finder = whole_words(span.words) if span.whole else re.compile(re.escape(span.words), re.IGNORECASE)
    found = [match.span() for match in finder.finditer(text)]
    found = [(a, b) for a, b in found if all(b <= start or end <= a for start, end in taken)]
    alone = [(a, b) for a, b in found if not _is_joined(text, a, b)]
    return alone if span.alone and alone else found


def _is_joined(text: str, start: int, end: int) -> bool:
    return text[start - 1 : start] == "-" or text[end : end + 1] == "-"


def _by_words(spans: Sequence[Span]) -> list[list[Span]]:
    """The spans, grouped by their words; longer words first, for they may contain shorter ones."""
    groups: dict[tuple[str, bool, bool], list[Span]] = {}
    for span in spans:
        groups.setdefault((" ".join(span.words.lower().split()), span.whole, span.alone), []).append(span)
    return [groups[key] for key in sorted(groups, key=lambda key: (-len(key[0]), not key[1], key[2]))]


def _plain(pieces: Iterable[Piece]) -> tuple[str, list[int]]:
    """The pieces' words as one text, and the place in it of each piece.

    Where a piece without words stood, one gap remains of the two around it.
    """
    plain, places, dropped = "", [], False
    for piece in pieces:
        words = piece.words
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
    pieces = pieces_of(text)
    for phrase in keep:
        if is_visible(phrase):
            pieces = _with_phrase(pieces, phrase)
    plain, places = _plain(pieces)
    spans, before, after, at = [], "", "", 0
    for piece, place in zip(pieces, places, strict=True):
        gap = text[len(text[:at].rstrip(_GAP)) : at]
        at += len(piece.text)
        if piece.fixed and piece.words:
            spans.append(Span(piece.text, piece.words, place))
        elif piece.fixed and not plain[:place]:
            before = text[: len(text) - len(text[at:].lstrip(_GAP))]
        elif piece.fixed:
            after += (", " if "," in gap else " ") + piece.text
    texts = tuple(piece.text for piece in pieces if piece.fixed)
    return Protected(plain, tuple(_counted(spans, plain)), before, after, texts)


def _counted(spans: Sequence[Span], plain: str) -> list[Span]:
    """The spans with their occurrences instead of their places in the plain text."""
    shaped: list[Span] = []
    for span in spans:
        place, end = span.occurrence, span.occurrence + len(span.words)
        whole = any(found.start() == place for found in whole_words(span.words).finditer(plain))
        shaped.append(replace(span, whole=whole, alone=not _is_joined(plain, place, end)))
    counted: dict[int, Span] = {}
    taken: list[tuple[int, int]] = []
    for group in _by_words(shaped):
        starts = [start for start, _ in _places(group[0], plain, taken)]
        for span in group:
            place = span.occurrence
            counted[place] = replace(span, occurrence=sum(start < place for start in starts))
            taken.append((place, place + len(span.words)))
    return [counted[place] for place in sorted(counted)]


def _with_phrase(pieces: list[Piece], phrase: str) -> list[Piece]:
    """The pieces with each occurrence of a phrase as a span of its own; syntax within it stays in it."""
    finder, done = whole_words(phrase), list[Piece]()
    while found := finder.search("".join(piece.words for piece in pieces)):
        inside, later, at = list[Piece](), list[Piece](), 0
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
                    into += [Piece(text, text, fixed=False)] if text else []
        done.append(Piece("".join(piece.text for piece in inside), "".join(piece.words for piece in inside)))
        pieces = later
    return done + pieces
