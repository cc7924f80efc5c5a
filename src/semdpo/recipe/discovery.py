"""Finds the training objectives: those of semdpo, and those of other installed packages.

A package adds an objective with an entry point in the group ``semdpo.objectives``. The entry point names a subclass of
``ObjectiveSettings``, whose module also defines the formula as ``OBJECTIVE``. In that package's pyproject.toml:

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
    settings = []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            settings.append(entry.load())
        except Exception as error:
            raise ConfigError(
                f"the objective '{entry.name}' ({entry.value}) cannot be loaded ({error}); repair or uninstall its "
                "package"
            ) from error
    return settings


def name_of(settings: type[ObjectiveSettings]) -> str:
    """The objective's name, as a recipe writes it."""
    return str(get_args(settings.model_fields["name"].annotation)[0])


def _all_objectives() -> dict[str, type[ObjectiveSettings]]:
    module = ObjectiveSettings.__module__
    shipped = [kind for kind in ObjectiveSettings.__subclasses__() if kind.__module__ == module]
    return {name_of(kind): kind for kind in [*shipped, *_of_other_packages()]}


OBJECTIVES = _all_objectives()

if TYPE_CHECKING:
    AnyObjective = ObjectiveSettings
else:
    AnyObjective = Annotated[Union[tuple(OBJECTIVES.values())], Field(discriminator="name")]  # noqa: UP007


class OneObjective(Settings):
    """An objective on its own, as a command names it."""

    objective: AnyObjective
