"""Seven pairs for tests of ``PreferenceTrainer``, and settings that train on them in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from semdpo.training.config import PreferenceConfig

COLOURS = ["red", "blue", "green", "white", "black", "gold", "pink"]
ROWS = [
    {"prompt": f"a {c} cat", "chosen": f"a {c} cat, oil" + "!" * k, "rejected": "a dog", "distance": 0.1 * k}
    for k, c in enumerate(COLOURS)
]


def settings_for(folder: Path, **more: Any) -> PreferenceConfig:
    """Settings that write nothing but the model, with any of them replaced."""
    usual = {"learning_rate": 1e-3, "per_device_train_batch_size": 3, "save_strategy": "no", "bf16": False}
    return PreferenceConfig(output_dir=str(folder), report_to="none", disable_tqdm=True, **(usual | more))
