"""Which objectives there are: those of this package, and those that other installed packages bring.

A package brings an objective by an entry point of the group ``semdpo.objectives``. It names a subclass of
``ObjectiveSettings``; the formula's ``OBJECTIVE`` stands in the same module. In that package's pyproject.toml:

    [project.entry-points."semdpo.objectives"]
    toy = "my_package.toy:ToySettings"
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Annotated, Union, get_args

from pydantic import Field

from semdpo.errors import ConfigError
from semdpo.recipe.base import Settings
from semdpo.recipe.objectives import ObjectiveSettings

GROUP = "semdpo.objectives"


def _of_other_packages() -> list[type[ObjectiveSettings]]:
    found = []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            found.append(entry.load())
        except Exception as error:
            raise ConfigError(
                f"the objective '{entry.name}' ({entry.value}) cannot be loaded ({error}); repair or uninstall the "
                "package that brings it"
            ) from error
    return found


def name_of(settings: type[ObjectiveSettings]) -> str:
    """The objective's name, as a recipe writes it."""
    return str(get_args(settings.model_fields["name"].annotation)[0])


def _known() -> dict[str, type[ObjectiveSettings]]:
    own = [each for each in ObjectiveSettings.__subclasses__() if each.__module__ == ObjectiveSettings.__module__]
    return {name_of(each): each for each in [*own, *_of_other_packages()]}


OBJECTIVES = _known()

if TYPE_CHECKING:
    AnyObjective = ObjectiveSettings
else:
    AnyObjective = Annotated[Union[tuple(OBJECTIVES.values())], Field(discriminator="name")]  # noqa: UP007


class OneObjective(Settings):
    """An objective on its own, as a command names it."""

    objective: AnyObjective
