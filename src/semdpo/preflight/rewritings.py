"""The uses of rewriters in a run, whose cost ``semdpo doctor`` measures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from semdpo.recipe.base import Template
from semdpo.recipe.models import DecodingConfig
from semdpo.recipe.schema import Recipe


@dataclass(frozen=True, slots=True)
class Rewriting:
    """One use of a rewriter in a run.

    Attributes:
        what: the name of the work, ``rewrite/…``.
        model: the rewriter, or the model that it is trained from.
        template: what the rewriter reads around a prompt; None is the template in its folder.
        decoding: how the rewriter decodes.
        n: the number of rewrites per prompt.
        trained: whether the run trains it, so that its rewrites are as long as those of the examples.
    """

    what: str
    model: str
    template: Template | None
    decoding: DecodingConfig
    n: int
    trained: bool


def rewritings(recipe: Recipe) -> Iterator[Rewriting]:
    """The uses of rewriters in a run, without those behind a URL: their answers may cost money.

    Args:
        recipe: the validated recipe.
    """
    config, start, template = recipe.candidates, recipe.sft.model, recipe.sft.reads
    other = config.rewriter
    if other is None:
        yield Rewriting("rewrite/candidates", start, template, config, config.n, True)
    elif not other.is_remote:
        yield Rewriting("rewrite/candidates", other.model, other.reads, config, config.n, False)
    if other is not None and recipe.later_rounds:
        yield Rewriting("rewrite/own candidates", start, template, config, config.n, True)
    yield Rewriting("rewrite/evaluation", start, template, recipe.evaluate.rewrite, 1, True)
    for name, decoding in recipe.evaluate.also.items():
        yield Rewriting(f"rewrite/also {name}", start, template, decoding, 1, True)
    for name, rewriter in recipe.evaluate.rewriters.items():
        if not rewriter.is_remote:
            yield Rewriting(f"rewrite/other {name}", rewriter.model, rewriter.reads, rewriter, 1, False)
