"""A render budget: which prompts' candidates are rendered, and why the gradient of Sem-DPO keeps its expected value.

The candidates of a prompt are kept with the probability p, the largest W = exp(−α·d(x, y)) among them, because which
of them will be chosen is not known before they are rendered. A kept pair has the weight W/p. A pair is kept with
probability p, so that the expected value of kept/p·W·∇ℓ is W·∇ℓ, as without a budget.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from semdpo.analysis.semantics import semantic_weight
from semdpo.data.records import Pair, RenderDraw, content_seed
from semdpo.errors import DataError

# Largest difference of one text's distances in two batches; a GPU's reduced precision makes most of it.
ROUNDING = 1e-3


def probability(distances: ArrayLike, alpha: float) -> float:
    """p = max exp(−α·d), with which the candidates of one prompt are kept.

    Args:
        distances: cosine distances between the prompt and its candidates, [n], n ≥ 1, in [0, 2].
        alpha: strength of the weight, ≥ 0.

    Raises:
        ValueError: alpha is negative or not finite, or a distance is outside [0, 2] or not a number.

    Source:
        The weight is that of Sem-DPO (arXiv 2507.20133), equation 4.

    Example:
        >>> round(probability([0.3, 0.1], alpha=8.0), 3)
        0.449
    """
    return float(semantic_weight(distances, alpha).max())


def draw(prompt_id: str, seed: int, number: int = 1) -> float:
    """A number in [0, 1) that depends on the prompt, the seed and the round; the prompt is kept if it is below p.

    A later round has a number of its own: the rewriters that write its candidates depend on the numbers of the rounds
    before, so that with these again a prompt would not be kept with the probability p.

    Args:
        prompt_id: id of the prompt.
        seed: the configured seed.
        number: the round's number, counted from 1.
    """
    later = () if number == 1 else (str(number),)
    drawn = content_seed("render_budget", str(seed), prompt_id, *later)
    return (drawn >> 10) / 2**53  # 53 bits: a float holds no more


def kept(draws: Iterable[RenderDraw]) -> dict[str, float]:
    """The prompts whose candidates are rendered: prompt id → p."""
    return {row.prompt_id: row.probability for row in draws if row.kept}


def refuse_heavy(pairs: Sequence[Pair], alpha: float) -> None:
    """Refuses pairs whose weight W/p exceeds 1 by more than rounding, so that p is not that of their candidates.

    Args:
        pairs: pairs with distances, and with 1/p as their own weight.
        alpha: strength of the weight W.

    Raises:
        DataError: a pair has no weight of its own, or W/p is above 1; the message names the pair.
    """
    cure = "make the pairs and their distances again (semdpo run … --only render_budget --fresh, then without --only)"
    if without := [pair.pair_id for pair in pairs if pair.weight is None]:
        raise DataError(f"pair {without[0]} has no probability of the render budget; {cure}")
    weights = semantic_weight([pair.distance or 0.0 for pair in pairs], alpha) * [pair.own_weight for pair in pairs]
    heaviest = int(weights.argmax()) if pairs else 0
    if pairs and weights[heaviest] > np.exp(alpha * ROUNDING):
        raise DataError(
            f"pair {pairs[heaviest].pair_id} has weight {weights[heaviest]:.4g}, but under a render budget no weight "
            f"exceeds 1, so its distance or probability is wrong; {cure}"
        )
