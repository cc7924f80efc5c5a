"""The section ``rounds``: training that goes on with candidates of the rewriters that the round before trained."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pydantic import Field

from semdpo.errors import did_you_mean
from semdpo.recipe.base import Name, Settings


class RoundsConfig(Settings):
    """How often the rewriters are trained, each time on pairs of their own new candidates.

    The first round is the run without this section. In every later one, each method's rewriter of the round before
    writes the candidates, and is where the training starts and its reference.

    Attributes:
        count: the number of rounds, the first included.
        methods: the methods that are trained in the later rounds; None takes all.
    """

    count: int = Field(default=1, ge=1, le=99)
    methods: list[Name] | None = Field(default=None, min_length=1)


@dataclass(frozen=True, slots=True)
class LaterRound:
    """A round after the first of one method.

    Attributes:
        method: the method's name.
        number: the round's number, ≥ 2.
    """

    method: str
    number: int

    @property
    def name(self) -> str:
        """The name under which the rewriter that this round trains is evaluated, such as ``dpo_round2``."""
        return name_in_round(self.method, self.number)

    @property
    def folder(self) -> str:
        """The folder of this round's stages, in the run's folder."""
        return f"rounds/{self.number}/{self.method}"

    @property
    def trained(self) -> str:
        """The stage that trains this round's rewriter."""
        return f"{self.folder}/train"

    @property
    def before(self) -> str:
        """The stage that trained the rewriter of the round before."""
        return trained_in(self.method, self.number - 1)


def name_in_round(method: str, number: int) -> str:
    """The name under which the rewriter is evaluated that a round trains; in the first round, the method's own."""
    return method if number == 1 else f"{method}_round{number}"


def trained_in(method: str, number: int) -> str:
    """The stage that trains a method in a round, counted from 1."""
    return f"train/{method}" if number == 1 else LaterRound(method, number).trained


def work_of(stage: str) -> str:
    """The stage of the first round that does the same work: ``label`` for ``rounds/2/dpo/label``; others stay."""
    first, *rest = stage.split("/")
    if first != "rounds" or len(rest) != 3:
        return stage
    _, method, work = rest
    return f"train/{method}" if work == "train" else work


def later_rounds(config: RoundsConfig | None, methods: Iterable[str]) -> list[LaterRound]:
    """The rounds after the first, round by round, and in each the methods in their order.

    Args:
        config: the recipe's section; None has no later rounds.
        methods: the recipe's methods.
    """
    if config is None:
        return []
    going_on = [name for name in methods if config.methods is None or name in config.methods]
    return [LaterRound(name, number) for number in range(2, config.count + 1) for name in going_on]


def refuse_unknown_methods(config: RoundsConfig | None, methods: Collection[str]) -> None:
    """Refuses rounds of a method that the recipe does not train, or trains twice.

    Args:
        config: the recipe's section.
        methods: the recipe's methods.

    Raises:
        ValueError: there is such a method.
    """
    named = [] if config is None else config.methods or []
    for name in named:
        if name not in methods:
            raise ValueError(f"rounds.methods names '{name}', which train.methods has not{did_you_mean(name, methods)}")
        if named.count(name) > 1:
            raise ValueError(f"rounds.methods names '{name}' twice; remove one of them")


def refuse_taken_names(rounds: Iterable[LaterRound], taken: Collection[str]) -> None:
    """Refuses rounds whose rewriters would be evaluated under the name of another method.

    Args:
        rounds: the rounds after the first.
        taken: the names of all other methods.

    Raises:
        ValueError: a name is taken.
    """
    for each in rounds:
        if each.name in taken:
            raise ValueError(f"rounds makes a method '{each.name}', which already exists; rename that one")
