"""Methods that write with another decoding than ``evaluate.rewrite``: the entries of ``evaluate.also``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from semdpo.recipe.models import DecodingConfig


@dataclass(frozen=True, slots=True)
class Variant:
    """A method's rewriter with another decoding, or that of a later round; it is evaluated as a method of its own.

    Attributes:
        method: the method that it belongs to.
        name: the decoding's name in ``evaluate.also``, or ``round 2``.
        decoding: how it decodes; None where that is not known, as in a table of another program.
        round: the round that trained it, counted from 1.
    """

    method: str
    name: str
    decoding: DecodingConfig | None = None
    round: int = 1


def variants(methods: Iterable[str], also: Mapping[str, DecodingConfig | None]) -> dict[str, Variant]:
    """The methods that further decodings add, decoding by decoding: ``dpo`` and ``sampled`` make ``dpo_sampled``.

    Args:
        methods: the methods that decode.
        also: name → decoding.

    Raises:
        ValueError: two of them would have one name.
    """
    made: dict[str, Variant] = {}
    names = list(methods)
    for name, decoding in also.items():
        for method in names:
            own = f"{method}_{name}"
            if own in made or own in names:
                raise ValueError(
                    f"evaluate.also.{name} makes a method '{own}', which already exists; rename one of them"
                )
            made[own] = Variant(method, name, decoding)
    return made
