"""Half-precision copies of model folders, as the package ships them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file


def halve_into(source: Path, target: Path) -> None:
    """Copies a model's folder, with every floating-point weight in half precision.

    Args:
        source: A folder of transformers or diffusers, or one with only a ``model.safetensors``.
        target: The folder to write; an existing one is replaced.
    """
    unfinished = target.with_name(target.name + ".partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(source, unfinished, ignore=shutil.ignore_patterns("*.partial", "quality.json"))
    for file in unfinished.rglob("*.safetensors"):
        tensors = {key: value.half() if value.is_floating_point() else value for key, value in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
    for file in unfinished.rglob("config.json"):
        settings = json.loads(file.read_text())
        for part in (settings, settings.get("text_config"), settings.get("vision_config")):
            if isinstance(part, dict) and part.get("dtype"):
                part["dtype"] = "float16"
        # The path of the training folder is private, and differs between machines.
        settings.pop("_name_or_path", None)
        file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    shutil.rmtree(target, ignore_errors=True)
    unfinished.replace(target)
