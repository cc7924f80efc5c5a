"""The trackers that transformers' Trainer reports to: which there are, and whether they are installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from semdpo.errors import ConfigError, did_you_mean

# Name to the packages of which one must be there; the first is the one to install.
TRACKERS = {
    "azure_ml": ("azureml",),
    "clearml": ("clearml",),
    "codecarbon": ("codecarbon",),
    "comet_ml": ("comet_ml",),
    "dagshub": ("dagshub",),
    "dvclive": ("dvclive",),
    "flyte": ("flytekit",),
    "kubeflow": ("kubeflow",),
    "mlflow": ("mlflow",),
    "neptune": ("neptune",),
    "swanlab": ("swanlab",),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}


def known(name: str) -> str:
    """A tracker's name.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in TRACKERS:
        raise ValueError(f"there is no tracker '{name}'{did_you_mean(name, TRACKERS)}")
    return name


def refuse_absent(names: Sequence[str]) -> None:
    """Refuses trackers that are not installed, before anything is loaded.

    Raises:
        ConfigError: with the command that installs one.
    """
    for name in names:
        packages = TRACKERS[known(name)]
        if not any(importlib.util.find_spec(each) for each in packages):
            raise ConfigError(f"the tracker '{name}' is not installed; install it (pip install {packages[0]})")
