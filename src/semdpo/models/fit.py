"""Whether a recipe's settings fit a renderer, from its folder alone: no weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semdpo.models.families import Family, family_of
from semdpo.models.loading import read_json
from semdpo.recipe.models import RendererConfig


def refuse_unfit_renderer(config: RendererConfig, folder: Path) -> None:
    """Refuses settings that a renderer cannot be used with.

    Diffusers is imported only where the pipeline's signature or its sampler's class must be asked.

    Args:
        config: The renderer's settings.
        folder: The folder of the diffusers pipeline.

    Raises:
        ModelError: A setting does not fit the pipeline or this machine.
    """
    if config.offload is not None or config.quantization is not None:
        from semdpo.models.device import compute
        from semdpo.models.memory import refuse_without_gpu

        refuse_without_gpu(compute().device.type, config.offload, config.quantization)
    family = family_of(folder, config.model)
    if _is_plain(config, family, folder):
        return
    from semdpo.models.pipeline_call import arguments, pipeline_class

    size = config.height, config.width
    arguments(pipeline_class(folder), family, config.steps, config.guidance, size, config.call)
    _refuse_sampler(config, folder)


def described(config: RendererConfig, folder: Path) -> str:
    """How a renderer will render, in a line for people.

    Args:
        config: The renderer's settings.
        folder: The folder of the diffusers pipeline.
    """
    family = family_of(folder, config.model)
    sampler = "its own sampler" if config.scheduler == "own" else config.scheduler
    if family is None:
        return f"{read_json(folder / 'model_index.json').get('_class_name')}, of no known family; {sampler}"
    schedule = config.call.get("sigmas") or config.call.get("timesteps")
    steps = len(schedule) if isinstance(schedule, list) else config.steps or family.steps
    guidance = family.guidance if config.guidance is None else config.guidance
    if family.argument is not None:
        guidance = config.call.get(family.argument, guidance)
    parts = [
        family.name,
        f"{steps} step{'' if steps == 1 else 's'}",
        f"guidance {guidance} ({family.argument})" if guidance is not None else "no guidance",
        sampler,
        f"reads {config.call.get('max_sequence_length', family.reads)} tokens",
    ]
    return ", ".join(parts)


def _is_plain(config: RendererConfig, family: Family | None, folder: Path) -> bool:
    """Whether the family's data say that all settings fit; samplers of diffusions have a schedule of betas."""
    guided = config.guidance is None or (family is not None and family.argument is not None)
    settings = _sampler(folder)
    flows = settings.get("use_flow_sigmas") or settings.get("prediction_type") == "flow_prediction"
    sampled = config.scheduler == "own" or ("beta_schedule" in settings and not flows)
    scheduled = family is not None and family.scheduled and config.steps is not None
    return family is not None and guided and sampled and not scheduled and not config.call


def _refuse_sampler(config: RendererConfig, folder: Path) -> None:
    settings = _sampler(folder)
    if config.scheduler == "own" or not settings:
        return
    import diffusers

    from semdpo.models.faster import refuse_sampler

    own = getattr(diffusers, str(settings.get("_class_name")), None)
    if isinstance(own, type):
        refuse_sampler(own, settings, config.scheduler)


def _sampler(folder: Path) -> Mapping[str, Any]:
    path = folder / "scheduler/scheduler_config.json"
    return read_json(path) if path.is_file() else {}
