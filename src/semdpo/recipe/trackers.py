"""The experiment trackers that transformers' Trainer reports to, and whether they are installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from semdpo.errors import ConfigError, did_you_mean

# Name → packages, one of which must be installed; the first is the one to install.
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


def checked_name(name: str) -> str:
    """Returns a tracker's name unchanged.

    Raises:
        ValueError: there is no tracker of that name.
    """
    if name not in TRACKERS:
        raise ValueError(f"there is no tracker '{name}'{did_you_mean(name, TRACKERS)}")
    return name


def refuse_absent(names: Sequence[str]) -> None:
    """Refuses trackers that are not installed, before any model is loaded.

    Raises:
        ConfigError: a tracker is not installed; the message gives the command that installs it.
    """
    for name in names:
        packages = TRACKERS[checked_name(name)]
        if not any(importlib.util.find_spec(package) for package in packages):
            raise ConfigError(f"the tracker '{name}' is not installed; install it with: pip install {packages[0]}")
