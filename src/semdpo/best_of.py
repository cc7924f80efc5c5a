"""Best of n: renders the rewrites that passed the guard, and orders them by the scores of their images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from semdpo.before_after import too_long
from semdpo.errors import ConfigError, PartlyRefusedError
from semdpo.protected_spans import readable
from semdpo.protocols import render_checked

if TYPE_CHECKING:
    from PIL import Image

    from semdpo.protocols import Renderer, Scorer

log = logging.getLogger("semdpo")


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
            The indices of the rewrites, at most n. Those whose image a server refuses or blackens come last.

        Raises:
            EndpointError: the renderer's server cannot be used.
        """
        chosen = list(rewrites[: self.n])
        if len(chosen) < 2:
            return list(range(len(chosen)))
        if cut := sum(too_long(self.renderer, chosen)):
            log.warning(
                "the renderer of best-of does not read the end of %d rewrites, which decides nothing; --length "
                "shortens them", cut,
            )  # fmt: skip
        images = self._images([readable(text) for text in chosen], seed)
        shown = [k for k, image in enumerate(images) if image is not None]
        if not shown:
            return list(range(len(chosen)))
        scores = self.scorer.score([image for image in images if image is not None], [readable(prompt)] * len(shown))
        best_first = [shown[k] for k in np.argsort(-scores.values, kind="stable")]
        return [*best_first, *(k for k in range(len(chosen)) if images[k] is None)]

    def _images(self, texts: Sequence[str], seed: int) -> list[Image.Image | None]:
        """The image of each text; None where a server refuses it, or its safety checker blackened it."""
        try:
            found = render_checked(self.renderer, texts, [seed] * len(texts))
        except PartlyRefusedError as error:
            found = error.outcomes
            log.warning("an image of best-of is missing, so its rewrite comes last: %s", error)
        return [None if isinstance(each, Exception) or each[1] else each[0] for each in found]
