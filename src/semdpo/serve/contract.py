"""What the server asks of its models; ``PromptOptimizer`` and ``DiffusionRenderer`` have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from semdpo.protocols import Bool

if TYPE_CHECKING:
    from PIL import Image

    from semdpo.prompt_optimizer import Optimized, Request


class Optimizer(Protocol):
    """A rewriter with a measured drift and a guard."""

    fingerprint: str
    encoder_name: str
    max_drift: float

    @property
    def reads(self) -> int:
        """The most tokens of a rewrite that may be asked for."""
        ...

    def optimize_all(self, requests: Sequence[Request]) -> list[list[Optimized]]:
        """Rewrites many prompts at a time: one row a request, with its variants, the best first."""
        ...


class PageRenderer(Protocol):
    """A text-to-image model that knows which prompts it reads only the beginning of."""

    def render(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """Renders one image per prompt."""
        ...

    def too_long(self, prompts: Sequence[str]) -> Bool:
        """Which prompts are longer than the model reads, [n]."""
        ...
