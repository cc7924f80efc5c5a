"""The card of the embedded world: what each model is, its quality on held-out data, and its hash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from semdpo.tiny_world.shipped import CARD

WHAT = {
    "vae": "AutoencoderKL inside `tiny:sd`",
    "clip": "CLIPModel: the encoder of the pipeline, and `tiny:sd`'s text tower",
    "clip-b": "CLIPModel of other sizes, activation and seed: a fidelity scorer that takes no part in training",
    "judge": "convolutional classifier that checks `tiny:sd`",
    "gpt2": "GPT2LMHeadModel: what supervised fine-tuning starts from",
    "sd": "StableDiffusionPipeline, DDIM",
    "blip-itm": "BlipForImageTextRetrieval: a second fidelity scorer that takes no part in training",
    "image-reward": "ImageReward's structure, trained on the labellers' choices",
    "pickscore": "CLIPModel, trained on the pickers' choices; takes no part in labelling",
    "hps": "CLIPModel, trained on the HPS raters' choices; takes no part in labelling",
}


def read(path: Path = CARD) -> dict[str, Any]:
    """The card that `build.ship` wrote."""
    return dict(json.loads(path.read_text()))


def markdown(card: dict[str, Any]) -> str:
    """The card as two Markdown tables: the models, and their quality on held-out data."""
    lines = ["| model | what it is | MB | updates | seconds to build | SHA-256 |", "|---|---|---|---|---|---|"]
    for name, record in card.items():
        size, digest = record.get("megabytes", "–"), record.get("sha256", "–")[:12]
        steps, seconds = record["configuration"]["steps"], record["seconds"]
        lines.append(f"| `{name}` | {WHAT[name]} | {size} | {steps} | {seconds} | `{digest}` |")
    lines += ["", "| model | measured on held-out data | value |", "|---|---|---|"]
    for name, record in card.items():
        for quality, value in record["quality"].items():
            lines.append(f"| `{name}` | {quality.replace('_', ' ')} | {value} |")
    return "\n".join(lines) + "\n"
