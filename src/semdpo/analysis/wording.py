"""How rewrites are worded, whatever their images: repetition, and the stock phrases of prompt writing."""

from __future__ import annotations

import re

# Phrases that writers of prompts add by habit; they stand at the top of every count of DiffusionDB's modifiers.
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
    """.split()  # noqa: SIM905 - as a list literal it could not be read
)


def words(text: str) -> list[str]:
    """A text's words in small letters, without marks of punctuation."""
    return re.findall(r"[^\W_]+", text.casefold())


def content_words(text: str) -> list[str]:
    """A text's words but function words, each once, in their order."""
    return [word for word in dict.fromkeys(words(text)) if word not in FUNCTION_WORDS]


def repetition(text: str, n: int = 3) -> float:
    """Share of a text's n-word sequences that occurred in it before, in [0, 1]; 0 for a shorter text.

    Source: seq-rep-n of Welleck et al. 2020, "Neural Text Generation with Unlikelihood Training".
    """
    found = words(text)
    grams = [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def cliches(prompt: str, rewrite: str) -> list[str]:
    """The stock phrases of a rewrite that the user did not write, each once, in their order."""
    asked = f" {' '.join(words(prompt))} "
    return list(dict.fromkeys(each for each in _CLICHE.findall(" ".join(words(rewrite))) if f" {each} " not in asked))
