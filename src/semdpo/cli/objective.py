"""The objective of ``semdpo train``, from --objective, --alpha and --set or from the file of --config."""

from __future__ import annotations

from semdpo.cli.given import Given
from semdpo.cli.options import refuse_without_effect
from semdpo.errors import ConfigError
from semdpo.recipe.discovery import OneObjective
from semdpo.recipe.load import Key, options
from semdpo.recipe.objectives import ObjectiveSettings, SemDPOSettings

SHARED = ("beta", "learning_rate", "alpha")  # settings that have their own option, and --set too


def objective_of(given: Given) -> ObjectiveSettings:
    """The objective with all of its settings.

    Args:
        given: The settings that the user gave.

    Raises:
        ConfigError: A value is out of range, a setting is given twice, or one has no effect.
    """
    own, written = given.own, given.written
    if "name" in own:
        raise ConfigError(f"{own['name'].named('set.name')} has no effect; name the objective with --objective")
    for name in SHARED:
        if name in written and name in own:
            both = f"{written[name].named(name)} and {own[name].named(f'set.{name}')}"
            raise ConfigError(f"{both} are the same setting; leave one of them out")
    name, chosen = given.values["objective"], written.get("objective")
    places: dict[Key, str] = {("objective", "name"): "--objective" if chosen is None else chosen.place}
    _refuse_without_effect(options(OneObjective, places, objective={"name": name}).objective, given)
    settings = {key: setting.value for key, setting in own.items()}
    places |= {("objective", key): setting.place for key, setting in own.items()}
    if (alpha := given.values["alpha"]) is not None:
        settings["alpha"] = alpha
        places[("objective", "alpha")] = written["alpha"].place if "alpha" in written else "--alpha"
    objective = options(OneObjective, places, objective={"name": name} | settings).objective
    if "kept_share" in own and isinstance(objective, SemDPOSettings) and objective.alpha != "auto":
        share = own["kept_share"].named("set.kept_share")
        raise ConfigError(f"{share} has no effect without --alpha auto; leave it out")
    return objective


def _refuse_without_effect(objective: ObjectiveSettings, given: Given) -> None:
    """Refuses options that the objective does not have.

    Args:
        objective: The objective, with default settings.
        given: The settings that the user gave.
    """

    def named(key: str) -> str:
        return given.written[key].named(key) if key in given.written else f"--{key}"

    if "alpha" not in type(objective).model_fields:
        refuse_without_effect({named("alpha"): given.values["alpha"]}, f"on {objective.name}")
    if not objective.needs_reference:
        because = f"on {objective.name}, which has no reference"
        refuse_without_effect({named("beta"): "beta" in given.written}, because)
    if not objective.needs_rejected and (own := given.own.get("nll_coef")) is not None:
        refuse_without_effect({own.named("set.nll_coef"): True}, f"on {objective.name}, whose whole loss is that term")
