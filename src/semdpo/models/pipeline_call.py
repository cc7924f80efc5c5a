"""The arguments of a diffusers pipeline's call, from its signature, its family and the recipe."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from semdpo.errors import ModelError, did_you_mean
from semdpo.models.families import GUIDANCE, TRUE_CFG, Family
from semdpo.models.loading import quiet, read_json

NEGATIVE = "negative_prompt"
STEPS = "num_inference_steps"
MIDDLE = "intermediate_timesteps"  # Sana-Sprint's time between its two steps
_NEEDED = ("prompt", "generator", "output_type")
_SCHEDULES = ("sigmas", "timesteps")  # each of them says the number of steps


def pipeline_class(folder: Path) -> type:
    """The class of the pipeline in a folder; nothing but diffusers is loaded.

    Raises:
        ModelError: The folder names no class, or one that is no text-to-image pipeline of the installed diffusers.
    """
    name = read_json(folder / "model_index.json").get("_class_name")
    with quiet():
        import diffusers
    kind = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not isinstance(kind, type):
        raise ModelError(
            f"'{folder}' is for {name if isinstance(name, str) else 'Python code of its own'}, which is no pipeline of "
            f"diffusers {diffusers.__version__}; install a newer diffusers, or use another model"
        )
    if missing := [each for each in _NEEDED if each not in _parameters(kind)]:
        raise ModelError(f"{name} takes no {missing[0]}, so it is no text-to-image pipeline; use another model")
    return kind


def arguments(
    kind: type,
    family: Family | None,
    steps: int | None = None,
    guidance: float | None = None,
    size: tuple[int | None, int | None] = (None, None),
    call: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The keyword arguments of every call, except for the prompts, their seeds and the output's form.

    Args:
        kind: The pipeline's class.
        family: The model's family; None leaves what is not given to the pipeline's own defaults.
        steps: The denoising steps; None is the family's.
        guidance: The scale of guidance; None is the family's.
        size: The images' height and width in pixels; None is the family's.
        call: Further arguments, which come before the family's.

    Raises:
        ModelError: The pipeline takes no such argument, or two settings give the same one.
    """
    known, given = _parameters(kind), dict(call or {})
    for name in given:
        if name not in known:
            settable = [each for each in known if not each.startswith("callback")]
            raise ModelError(f"renderer.call: {kind.__name__} takes no {name!r}{did_you_mean(name, settable)}")
    own = {} if family is None else {name: value for name, value in family.call.items() if name in known}
    sides = [side or (None if family is None else family.side) for side in size]
    found = own | _steps(kind, family, steps, given) | _guidance(kind, family, guidance, given)
    found |= {name: side for name, side in zip(("height", "width"), sides, strict=True) if side is not None}
    for name, side in zip(("height", "width"), size, strict=True):
        if name not in known:
            if side is not None:
                raise ModelError(f"{kind.__name__} takes no {name}; remove renderer.{name}")
            found.pop(name, None)
    found |= given
    found |= _between(known, found, given)
    scale = found.get(TRUE_CFG)
    guided = isinstance(scale, int | float) and scale > 1
    if guided and NEGATIVE in known and found.get(NEGATIVE) is None:
        found[NEGATIVE] = " "  # without one, such pipelines compute no guidance; a space is Qwen-Image's own
    return found


def guidance_argument(kind: type, family: Family | None) -> str | None:
    """The argument in which a pipeline takes guidance; None for none.

    A pipeline whose ``guidance_scale`` is None by default has it for distilled models alone, and is guided by
    ``true_cfg_scale``.

    Args:
        kind: The pipeline's class.
        family: The model's family, which says it where it is known.
    """
    if family is not None:
        return family.argument
    known = _parameters(kind)
    if GUIDANCE in known and (known[GUIDANCE].default is not None or TRUE_CFG not in known):
        return GUIDANCE
    return TRUE_CFG if TRUE_CFG in known else None


def for_rows(call: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """A call's arguments for a batch: a negative prompt is repeated for every row, as most pipelines demand.

    Values are copied, because some pipelines change the lists that they are given.

    Args:
        call: The keyword arguments of every call.
        rows: The number of rows.
    """
    return {
        name: [value] * rows if name.startswith(NEGATIVE) and isinstance(value, str) else deepcopy(value)
        for name, value in call.items()
    }


def _steps(kind: type, family: Family | None, steps: int | None, given: Mapping[str, Any]) -> dict[str, Any]:
    if scheduled := [name for name in _SCHEDULES if given.get(name) is not None]:
        if steps is not None:
            raise ModelError(f"renderer.call.{scheduled[0]} has one entry a step; remove renderer.steps")
        return {}
    if STEPS not in _parameters(kind):
        if steps is not None:
            raise ModelError(f"{kind.__name__} takes no number of steps; remove renderer.steps")
        return {}
    if family is not None and family.scheduled and steps not in (None, family.steps):
        raise ModelError(
            f"{family.name} has a schedule of its own, of {family.steps} steps; remove renderer.steps, or give "
            "renderer.call.sigmas, with one entry a step"
        )
    steps = steps or (None if family is None else family.steps)
    return {} if steps is None else {STEPS: steps}


def _between(
    known: Mapping[str, inspect.Parameter], found: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Leaves out Sana-Sprint's time between two steps where there are not two, which its pipeline would refuse."""
    if MIDDLE not in known:
        return {}
    if given.get("timesteps") is not None:  # diffusers 0.42 does not tell the sampler how many steps they are
        raise ModelError(
            "renderer.call.timesteps cannot be used with this pipeline; use renderer.steps, and in renderer.call "
            f"max_timesteps and {MIDDLE}"
        )
    steps = found.get(STEPS, known[STEPS].default)
    if steps == 2:
        return {}
    if given.get(MIDDLE) is not None:
        raise ModelError(f"renderer.call.{MIDDLE} is the time between two steps, and there are {steps}; remove it")
    return {MIDDLE: None}


def _guidance(kind: type, family: Family | None, guidance: float | None, given: Mapping[str, Any]) -> dict[str, Any]:
    argument = guidance_argument(kind, family)
    if argument is None:
        if guidance is not None:
            what = kind.__name__ if family is None else family.name
            raise ModelError(f"{what} takes no guidance; remove renderer.guidance")
        return {}
    if argument in given:
        if guidance is not None:
            raise ModelError(
                f"renderer.guidance and renderer.call.{argument} are the same argument; remove one of them"
            )
        return {}
    guidance = guidance if guidance is not None or family is None else family.guidance
    return {} if guidance is None else {argument: guidance}


def _parameters(kind: type) -> Mapping[str, inspect.Parameter]:
    """The named arguments of a pipeline's call; what it collects in ``**kwargs`` is deprecated or ignored."""
    every = inspect.signature(inspect.getattr_static(kind, "__call__", kind)).parameters.items()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: each for name, each in every if each.kind in named and name != "self"}
