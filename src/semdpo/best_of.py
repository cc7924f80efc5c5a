"""Best of n: renders the rewrites that passed the guard, and orders them by the scores of their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from semdpo.errors import ConfigError
from semdpo.protected_spans import readable

if TYPE_CHECKING:
    from semdpo.protocols import Renderer, Scorer


@dataclass(frozen=True)
class BestOf:
    """A renderer and a scorer that choose among rewrites.

    Attributes:
        renderer: the text-to-image model.
        scorer: scores each image against the user's prompt; higher is better.
        n: the largest number of rewrites that are rendered for a prompt, ≥ 2.

    Raises:
        ConfigError: n is below 2.
    """

    renderer: Renderer
    scorer: Scorer
    n: int = 4

    def __post_init__(self) -> None:  # noqa: D105
        if self.n < 2:
            raise ConfigError(f"best of {self.n} is no choice; use at least 2")

    def order(self, prompt: str, rewrites: Sequence[str], seed: int) -> list[int]:
        """The order of the first n rewrites by the scores of their images, best first; equal scores stay in theirs.

        Args:
            prompt: the user's prompt, against which images are scored.
            rewrites: rewrites that passed the guard.
            seed: the seed of all images.

        Returns:
            The indices of the rewrites, at most n.
        """
        chosen = list(rewrites[: self.n])
        if len(chosen) < 2:
            return list(range(len(chosen)))
        images = self.renderer.render([readable(text) for text in chosen], [seed] * len(chosen))
        scores = self.scorer.score(images, [readable(prompt)] * len(images)).values
        return [int(k) for k in np.argsort(-scores, kind="stable")]
