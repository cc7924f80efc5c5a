"""The syntax of image tools, quoted text and numbers in a prompt, and the words that stand for it.

The syntax is that of AUTOMATIC1111's web UI, ComfyUI, InvokeAI, NovelAI, sd-dynamic-prompts and Midjourney.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from semdpo.chat_answers import QUOTES

# Scripts without blanks between words: there, a word begins and ends anywhere.
_NO_BLANKS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uffdc"
LETTER = rf"[^\W{_NO_BLANKS}]"  # a letter, digit or underscore of the other scripts
_GAP = " \t\r\n,"

_TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
_ONES = "one|two|three|four|five|six|seven|eight|nine"
_NUMBER_WORDS = (
    rf"(?:{_TENS})-(?:{_ONES})|{_TENS}|{_ONES[4:]}|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|"
    "eighteen|nineteen|zero|dozen|dozens|hundred|hundreds|thousand|thousands|million|millions"
)
_DIGIT = r"[\d¼-¾⅐-⅞]"
_SIGN = rf"(?:{LETTER}|[¼-¾⅐-⅞./:×+°$€£#&-]|(?<=\d),(?=\d))"  # what a number may consist of, as in f/1.8, 35mm, 16:9
# What a span looks like; its first group is what the rewriter reads.
_SPANS = (
    re.compile(r"<(?:lora|lyco|lycoris|locon|loha|lokr|dora|hypernet|hypernetwork|lbw|segment):[^<>]*>()", re.I),
    re.compile(r"\\[(\[{](.*?)\\[)\]}]"),  # \(animal\), which is a name and no emphasis
    re.compile(r"__(?:[^\s_/]{0,99}/)*([^\s/]{1,99}?)__"),  # __wildcard__
    re.compile(r'(?<!\w)"([^"]+)"'),
    re.compile(r"(?<!\w)'(\S(?:[^'\n]|'(?=\w)){0,300}?)'(?!\w)"),
    *(re.compile(f"{pair[0]}([^{pair}]+){pair[1]}") for pair in QUOTES),
    re.compile(r"-?\d[\d.]*::([^:]+)::"),  # NovelAI's 1.5::red hair::
    re.compile(rf"(?<!{LETTER})({LETTER}+)::(?:-?\d[\d.]*)?"),  # Midjourney's hot::2 dog
    re.compile(r"(?<![\w&#])(#(?:[0-9a-f]{8}|[0-9a-f]{6}|[0-9a-f]{3,4}))(?!\w)", re.I),  # a colour: #ffcc00, #fab
    re.compile(rf"(?<!{LETTER})((?:{_NUMBER_WORDS})(?!{LETTER}))", re.I),
    re.compile(rf"(?<!{LETTER})(?<!\d[.,:/])({_SIGN}{{0,40}}?{_DIGIT}(?:{_SIGN}{{0,40}}(?:{LETTER}|[%°+]))?)"),
)
# Names of what was learnt from a few images. Between commas they are tags, elsewhere they stand for a thing.
_NAMES = (
    re.compile(r"(?<![A-Za-z0-9_])embedding:([^\s,()\[\]{}:]+)(?::[\d.]+)?"),
    re.compile(r"<[A-Za-z][\w-]*:\s*([^<>:]+)[^<>]*>"),
    re.compile(r"<([A-Za-z][\w-]*)>"),
)
# Phones write -- as one dash. A dash before any other word than one of Midjourney's options is a writer's.
_DASHED = (
    "ar|aspect|c|chaos|cref|cw|iw|niji|no|oref|ow|q|s|seed|sref|style(?=\\s+raw)|stylize|sw|tile|v|version|w|weird"
)
_TAIL = re.compile(
    rf"\s(?:--[a-z][\w-]*|—(?:{_DASHED}))(?=\s|\Z)|(?:\A|\n|[.,;])\s*negative prompt\s*:|\n\s*steps:\s", re.IGNORECASE
)
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_AFTER_BRACKET = re.compile(r"\.(?:blend|and|swap)\([^()]*\)|[+-]+(?!\w)|\d+(?:\.\d+)?(?!\w)")  # (red)1.2, (red)++
_EYES = re.compile(r"(?<!\S)[:;]-?\Z")  # of an emoticon, whose mouth is no bracket
_AFTER_MOUTH = ("", " ", ",", ".", "\n")
_WEIGHT = re.compile(r":\s*[-+]?[\d.]+\s*\Z")  # (word:1.2), and the step of [from:to:0.5]
_CHANCE = re.compile(r"\A[\d.]+::")  # {3::a|b}: how often a choice is taken
_HOW_MANY = re.compile(r"\A\d*-?\d*\$\$(?:[^|$]*\$\$)?")  # {2$$ and $$a|b}: how many are taken, and what joins them
_LOOK_BACK = 100  # open brackets among which the one that a closing bracket belongs to is looked for
_DEEPEST = 8  # brackets within brackets that are read; what is deeper loses its brackets only


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a prompt.

    Attributes:
        text: The piece as the user typed it.
        words: What the rewriter reads; of literal text, the text; empty for a tag without words.
        fixed: Whether it must not change; otherwise it is literal text.
    """

    text: str
    words: str
    fixed: bool = True


def pieces_of(text: str) -> list[Piece]:
    """The pieces of a text, from left to right; their texts together are the whole text."""
    return _joined(_scanned(text, 0))


def tail_of(prompt: str) -> str:
    """The options (``--ar 16:9``), negative prompt and settings at the end of a prompt; empty where there are none."""
    at = 0
    for piece in _scanned(prompt, 0):
        if not piece.fixed and (found := _TAIL.search(prompt, at, at + len(piece.text))):
            return prompt[found.start() :]
        at += len(piece.text)
    return ""


def _scanned(text: str, depth: int) -> list[Piece]:
    """The pieces of a text; words that syntax divides are not joined yet."""
    pieces, pairs, at, literal = list[Piece](), _closing(text), 0, 0
    while at < len(text):
        piece = _bracketed(text, pairs, at, depth) or _matched(text, at)
        if piece is None:
            at += 1
            continue
        if literal < at:
            pieces.append(Piece(text[literal:at], text[literal:at], fixed=False))
        pieces.append(piece)
        at += len(piece.text)
        literal = at
    if literal < len(text):
        pieces.append(Piece(text[literal:], text[literal:], fixed=False))
    return pieces


def _joined(pieces: list[Piece]) -> list[Piece]:
    """The pieces, where syntax within a word, as in re(d:1.2)dish, makes one span of the word."""
    joined: list[Piece] = []
    for k, piece in enumerate(pieces):
        piece = _without_name(piece, pieces[k - 1].text if k else "", pieces[k + 1].text if k + 1 < len(pieces) else "")
        last = joined[-1] if joined else Piece("", "")
        if not (re.search(LETTER + r"\Z", last.words) and re.match(LETTER, piece.words)):
            joined.append(piece)
            continue
        joined.pop()
        start = 0 if last.fixed else len(re.sub(LETTER + r"+\Z", "", last.text))
        end = len(piece.text) if piece.fixed else len(piece.text) - len(re.sub(rf"\A{LETTER}+", "", piece.text))
        if start:
            joined.append(Piece(last.text[:start], last.text[:start], fixed=False))
        words = (last.words if last.fixed else last.text[start:]) + (piece.words if piece.fixed else piece.text[:end])
        joined.append(Piece(last.text[start:] + piece.text[:end], words))
        if end < len(piece.text):
            joined.append(Piece(piece.text[end:], piece.text[end:], fixed=False))
    return joined


def _without_name(piece: Piece, before: str, after: str) -> Piece:
    """A learnt name that stands alone between commas is a tag without words; elsewhere it stands for a thing."""
    alone = before.rstrip()[-1:] in ("", ",") and after.lstrip()[:1] in ("", ",")
    if piece.fixed and alone and any(name.fullmatch(piece.text) for name in _NAMES):
        return Piece(piece.text, "")
    return piece


def _matched(text: str, at: int) -> Piece | None:
    """The span that begins at a place and has no brackets."""
    for pattern in (*_SPANS, *_NAMES):
        found = pattern.match(text, at)
        if found and (found.group(1).strip(_GAP) or not found.group(1)):  # an empty quotation is no span
            words = found.group(1).replace("_", " ") if found.group().startswith("__") else found.group(1)
            return Piece(found.group(), words.strip(_GAP))
    return None


def _bracketed(text: str, pairs: dict[int, int], at: int, depth: int) -> Piece | None:
    """The span that begins at a place with a bracket, or with ${; `_closing` gives the pairs."""
    opening = at + 1 if text.startswith("${", at) else at
    if opening not in pairs:
        return None
    end = pairs[opening] + 1
    inner = text[opening + 1 : end - 1]
    if not inner.strip(_GAP):
        return None
    if text[opening] == "(" and (suffix := _AFTER_BRACKET.match(text, end)):
        end = suffix.end()
    words = "" if opening > at and "=" in inner else _meaning(text[opening], inner, depth)  # ${a=cat} draws nothing
    return Piece(text[at:end], words)


def _meaning(opening: str, inner: str, depth: int) -> str:
    """The words that a bracket stands for: of several choices the first."""
    if depth >= _DEEPEST:
        return re.sub(r"[()\[\]{}]", "", inner).strip(_GAP)
    weight, choices = _WEIGHT.search(inner), _split(inner, "|")
    if opening == "{" or len(choices) > 1:
        choices = [_CHANCE.sub("", choice) for choice in _split(_HOW_MANY.sub("", inner), "|")]
    elif weight and opening == "[":  # [from:to:step]
        choices = _split(inner[: weight.start()], ":")[::-1]
    elif weight:
        choices = [inner[: weight.start()]]
    first = next((choice for choice in choices if choice.strip()), "")
    return " ".join("".join(piece.words for piece in _joined(_scanned(first, depth + 1))).split()).strip(_GAP)


def _split(text: str, separator: str) -> list[str]:
    """A text split at a separator that stands in no bracket."""
    pairs, parts, begun, at = _closing(text), list[str](), 0, 0
    while at < len(text):
        if text[at] == separator:
            parts.append(text[begun:at])
            begun = at + 1
        at = pairs.get(at, at) + 1
    return [*parts, text[begun:]]


def _closing(text: str) -> dict[int, int]:
    """The place of the closing bracket of each opening one, for those that have one."""
    pairs: dict[int, int] = {}
    opened: list[int] = []
    for place, character in enumerate(text):
        is_opening, is_closing = character in _CLOSING, character in _CLOSING.values()
        if not (is_opening or is_closing) or text[place - 1 : place] == "\\" or _is_mouth(text, place):
            continue
        if is_opening:
            opened.append(place)
        while is_closing and any(_CLOSING[text[start]] == character for start in opened[-_LOOK_BACK:]):
            start = opened.pop()
            if _CLOSING[text[start]] == character:
                pairs[start] = place
                break
    return pairs


def _is_mouth(text: str, place: int) -> bool:
    """Whether a bracket belongs to an emoticon such as :("""
    return bool(_EYES.search(text[max(0, place - 3) : place])) and text[place + 1 : place + 2] in _AFTER_MOUTH


@lru_cache(20_000)  # every rewrite is searched for the same words
def whole_words(words: str) -> re.Pattern[str]:
    """Finds words as whole words, whatever their case and the blanks between them.

    A number is not found within a larger one: 4 is neither in 4.5 nor in f/4. In scripts without blanks between words,
    a word begins and ends anywhere.

    Args:
        words: one or more words.
    """
    words = words.strip()
    before = r"(?<![\w/])(?<!\d[.,:])" if words[:1].isdigit() else f"(?<!{LETTER})" * bool(re.match(LETTER, words))
    ends_in_letter = bool(re.match(LETTER, words[-1:]))
    after = r"(?![\w/])(?![.,:]\d)" if words[-1:].isdigit() else f"(?!{LETTER})" * ends_in_letter
    return re.compile(before + r"\s+".join(map(re.escape, words.split())) + after, re.IGNORECASE)
