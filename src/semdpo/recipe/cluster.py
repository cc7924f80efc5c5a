"""The settings of the workers on a cluster, where a recipe has ``engine: ray``."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from semdpo.recipe.base import Settings


def _whole_above_one(gpus: float) -> float:
    if gpus > 1 and not gpus.is_integer():
        raise ValueError(f"{gpus:g} GPUs are more than one and no whole number; round it")
    return gpus


GPUs = Annotated[float, Field(ge=0, le=64), AfterValidator(_whole_above_one)]


class RayConfig(Settings):
    """The workers on a Ray cluster. They change no result.

    Attributes:
        gpus: the number of GPUs of a worker that rewrites or renders; it may be a fraction: at 0.5, two workers share a
            GPU. None is 1 if the cluster has GPUs, and else 0: a CPU for each worker.
        score_gpus: the same for a worker that only scores images; None takes ``gpus``.
    """

    gpus: GPUs | None = None
    score_gpus: GPUs | None = None
