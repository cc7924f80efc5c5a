"""What the threads of the models do with a batch: rewrite prompts, or render images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from semdpo import protected_spans
from semdpo.prompt_optimizer import Request
from semdpo.serve.contract import Optimizer, PageRenderer
from semdpo.serve.metrics import Metrics
from semdpo.texts import trimmed

log = logging.getLogger("semdpo.serve")

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rewriting:
    """A request for rewrites: the name of the model, and what is asked of it."""

    model: str
    request: Request


@dataclass(frozen=True, slots=True)
class Rendering:
    """A request for an image, and what its metadata says.

    Attributes:
        prompt: The text to render.
        original: The prompt that was rewritten into it; None where no rewriter wrote it.
        seed: The image's seed.
        model: The name of the rewriter.
    """

    prompt: str
    original: str | None
    seed: int
    model: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image as a PNG file.

    Attributes:
        png: The file.
        truncated: Whether the prompt is longer than the renderer reads.
    """

    png: bytes
    truncated: bool


def rewriting(
    models: Mapping[str, Optimizer], metrics: Metrics, log_prompts: bool
) -> Callable[[Sequence[Rewriting]], list[list[Record]]]:
    """A function that does a batch of requests for one model, and gives each one's records."""

    def work(batch: Sequence[Rewriting]) -> list[list[Record]]:
        rows = models[batch[0].model].optimize_all([each.request for each in batch])
        found = []
        for asked, variants in zip(batch, rows, strict=True):
            parts = protected_spans.protect(trimmed(asked.request.prompt), asked.request.keep)
            spans = [text for part in parts for text in part.texts]
            found.append([{**each.record(), "model": asked.model, "spans": spans} for each in variants])
            for each in variants:
                metrics.results.labels("kept" if each.reason else "rewritten").inc()
                if log_prompts:
                    log.info("%r -> %r (drift %.3f)", asked.request.prompt, each.rewrite, each.drift)
        return found

    return work


def rendering(
    models: Mapping[str, Optimizer], renderer: PageRenderer, name: str, log_prompts: bool
) -> Callable[[Sequence[Rendering]], list[Image]]:
    """A function that renders a batch of prompts, without the syntax of other image tools."""
    from semdpo.before_after import Rendered, png, settings_of

    def work(batch: Sequence[Rendering]) -> list[Image]:
        prompts, seeds = [protected_spans.readable(each.prompt) for each in batch], [each.seed for each in batch]
        images, truncated = renderer.render(prompts, seeds), renderer.too_long(prompts)
        found = []
        for asked, image, cut in zip(batch, images, truncated, strict=True):
            rewriter = ("", "") if asked.original is None else (asked.model, models[asked.model].fingerprint)
            made = Rendered(asked.prompt, asked.original, asked.seed, name, rewriter, settings_of(renderer))
            found.append(Image(png(image, made), bool(cut)))
            if log_prompts:
                log.info("rendered %r (seed %d)", asked.prompt, asked.seed)
        return found

    return work
