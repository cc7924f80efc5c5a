"""The wording of rewrites: repetition, and the stock phrases of prompt writing."""

from __future__ import annotations

import re
import unicodedata

# Phrases that prompt writers add by habit; they are the most frequent modifiers in DiffusionDB.
CLICHES = (
    "4k",
    "8k",
    "artgerm",
    "artstation",
    "award winning",
    "beautiful",
    "cgsociety",
    "cinematic lighting",
    "concept art",
    "deviantart",
    "digital painting",
    "dramatic lighting",
    "elegant",
    "extremely detailed",
    "fantasy",
    "greg rutkowski",
    "high quality",
    "highly detailed",
    "hyper realistic",
    "hyperdetailed",
    "hyperrealistic",
    "illustration",
    "intricate",
    "intricate details",
    "masterpiece",
    "matte painting",
    "octane render",
    "photorealistic",
    "sharp focus",
    "smooth",
    "trending on artstation",
    "ultra detailed",
    "ultra realistic",
    "unreal engine",
    "vivid colors",
    "volumetric lighting",
)
_CLICHE = re.compile(r"\b(?:" + "|".join(sorted(map(re.escape, CLICHES), key=len, reverse=True)) + r")\b")

# Words that carry no content of their own: articles, prepositions, conjunctions, pronouns, auxiliary verbs.
FUNCTION_WORDS = frozenset(
    """
    a an the this that these those some any each every no
    about above across after against along among around as at before behind below beneath beside between beyond by
    down during for from in inside into like near of off on onto out outside over past through to toward towards under
    up upon with within without
    and but if nor or so than then though while yet because
    i me my mine we us our ours you your yours he him his she her hers it its they them their theirs
    who whom whose which what where when how why there here
    am is are was were be been being do does did have has had having can could may might must shall should will would
    not only very too also just
    """.split()  # noqa: SIM905 - a list literal would be hard to read
)


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation; signs of vowels and accents belong to their words."""
    folded = text.casefold()
    if not folded.isascii():
        folded = "".join(char if char.isalnum() or _is_mark(char) else " " for char in folded)
        return [word for word in folded.split() if any(map(str.isalnum, word))]
    return re.findall(r"[^\W_]+", folded)


def _is_mark(char: str) -> bool:
    """Whether a character changes the letter before it; those that only choose an emoji's form do not."""
    return unicodedata.category(char) in ("Mn", "Mc") and not "\ufe00" <= char <= "\ufe0f"


def content_words(text: str) -> list[str]:
    """The distinct words of a text without function words, in their order."""
    return [word for word in dict.fromkeys(words(text)) if word not in FUNCTION_WORDS]


def repetition(text: str, n: int = 3) -> float:
    """The share of a text's n-word sequences that occur earlier in it, in [0, 1]; 0 for a text of fewer than n words.

    Source: seq-rep-n of Welleck et al. 2020, "Neural Text Generation with Unlikelihood Training".
    """
    sequence = words(text)
    grams = [tuple(sequence[i : i + n]) for i in range(len(sequence) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def cliches(prompt: str, rewrite: str) -> list[str]:
    """The distinct stock phrases that are in a rewrite but not in its prompt, in their order."""
    in_prompt = f" {' '.join(words(prompt))} "
    phrases = dict.fromkeys(_CLICHE.findall(" ".join(words(rewrite))))
    return [phrase for phrase in phrases if f" {phrase} " not in in_prompt]
