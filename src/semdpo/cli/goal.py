"""The objective that ``semdpo train`` was given, by --objective, --alpha and --set."""

from __future__ import annotations

from collections.abc import Sequence

from semdpo.cli.given import refuse_without_effect
from semdpo.errors import ConfigError
from semdpo.recipe.discovery import OBJECTIVES, OneObjective
from semdpo.recipe.load import Key, assignments, options
from semdpo.recipe.objectives import ObjectiveSettings, SemDPOSettings

WITHOUT_BETA = [name for name, each in OBJECTIVES.items() if not each.needs_reference]


def goal_of(name: str, alpha: str | None, own: Sequence[str], typed: Sequence[str]) -> ObjectiveSettings:
    """The objective, with every one of the options in it.

    Args:
        name: of --objective.
        alpha: of --alpha.
        own: each --set.
        typed: which of beta and learning_rate were given as options, and hold for every objective.

    Raises:
        ConfigError: a value is out of range, a setting is given twice, or one has no effect.
    """
    written = {text.partition("=")[0].strip(): text for text in reversed(own)}
    if len(written) < len(own):
        names = [text.partition("=")[0].strip() for text in own]
        twice = next(each for each in names if names.count(each) > 1)
        raise ConfigError(f"--set {twice} is given twice; remove one")
    if "name" in written:
        raise ConfigError(f"--set {written['name']} has no effect; name the objective with --objective")
    for each in [*typed, *([] if alpha is None else ["alpha"])]:
        if each in written:
            option = f"--{each.replace('_', '-')}"
            raise ConfigError(f"{option} and --set {written[each]} are one setting; leave one of them out")
    options(OneObjective, {("objective", "name"): "--objective"}, objective={"name": name})
    if name != "sem_dpo":
        refuse_without_effect({"--alpha": alpha}, f"on {name}")
    if name in WITHOUT_BETA:
        refuse_without_effect({"--beta": "beta" in typed}, f"on {name}, which has no reference")
    if name == "sft":
        refuse_without_effect(
            {f"--set {written.get('nll_coef')}": "nll_coef" in written}, "on sft, which is that term alone"
        )
    settings = assignments(own)
    if alpha is not None:
        settings["alpha"] = alpha
    places: dict[Key, str] = {("objective", key.split(".")[0]): f"--set {text}" for key, text in written.items()}
    places |= {
        ("objective", "name"): "--objective",
        ("objective", "alpha"): places.get(("objective", "alpha"), "--alpha"),
    }
    goal = options(OneObjective, places, objective={"name": name} | settings).objective
    if "kept_share" in written and isinstance(goal, SemDPOSettings) and goal.alpha != "auto":
        raise ConfigError(f"--set {written['kept_share']} has no effect without --alpha auto; leave it out")
    return goal
