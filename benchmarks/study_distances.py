"""Other distances for Sem-DPO's weight than the cosine distance of prompt and chosen rewrite."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semdpo.analysis.semantics import cosine_distance
from semdpo.data.prompts import read_prompts
from semdpo.data.records import Pair
from semdpo.models.text_encoder import load_text_encoder
from semdpo.protocols import Float, TextEncoder
from semdpo.tiny_world.facts import compare, parse
from semdpo.tiny_world.grammar import EMPTY_WORDS, STYLES

ENCODER = "tiny:clip"
SAMPLE = 200  # prompts of the fine-tuning examples, from which the directions of style words are measured


def lost_and_added(prompt: str, rewrite: str) -> float:
    """The share of facts that a rewrite loses or adds, of all that it or its prompt states, in [0, 1]."""
    found = compare(parse(prompt), parse(rewrite))
    return (found.lost + len(found.added)) / max(1, found.stated + len(found.added))


def style_directions(encoder: TextEncoder) -> Float:
    """An orthonormal basis of the directions in which style words move a prompt's embedding, [directions, dim]."""
    prompts = list(read_prompts("tiny:rewrites.jsonl"))[:SAMPLE]
    plain = encoder.encode(prompts).vectors
    moves = [
        (encoder.encode([f"{prompt}, {phrase}" for prompt in prompts]).vectors - plain).mean(axis=0)
        for phrase in (*STYLES, *EMPTY_WORDS)
    ]
    basis, _ = np.linalg.qr(np.stack(moves).T)
    return np.ascontiguousarray(basis.T)


def without(vectors: Float, directions: Float) -> Float:
    """Vectors without their parts along orthonormal directions; cosine distances do not need unit length."""
    return vectors - vectors @ directions.T @ directions


def styleless(pairs: Sequence[Pair]) -> list[float]:
    """The cosine distance of prompt and chosen rewrite after the directions of style words were projected out."""
    encoder = load_text_encoder(ENCODER)
    directions = style_directions(encoder)
    prompts = without(encoder.encode([pair.prompt for pair in pairs]).vectors, directions)
    chosen = without(encoder.encode([pair.chosen for pair in pairs]).vectors, directions)
    return [float(d) for d in cosine_distance(prompts, chosen)]


def factual(pairs: Sequence[Pair]) -> list[float]:
    """The share of facts that the chosen rewrite loses or adds (see `lost_and_added`)."""
    return [lost_and_added(pair.prompt, pair.chosen) for pair in pairs]


def farther(pairs: Sequence[Pair]) -> list[float]:
    """The cosine distance of that rewrite of a pair, chosen or rejected, which drifts farther from the prompt.

    The chosen one's alone keeps pairs whose rejected rewrite adds content, and so teaches to say less than was asked.
    """
    return [max(pair.distance or 0.0, pair.rejected_distance or 0.0) for pair in pairs]
