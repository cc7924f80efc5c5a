"""Stand-ins of the published models and data sets: small random folders of the same classes, by the same names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from tests import tiny_models, tiny_multimodal

REWRITERS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "paper/gpt2": ("gpt2", tiny_models.gpt2),
    "paper/qwen1.5-1.8b": ("qwen1.5-1.8b", lambda folder: tiny_models.causal(folder, "qwen2")),
    "paper/llama3.2-1b": ("llama3.2-1b", lambda folder: tiny_models.causal(folder, "llama")),
    "paper/qwen3-0.6b": ("qwen3-0.6b", lambda folder: tiny_models.causal(folder, "qwen3")),
    "paper/qwen3-1.7b": ("qwen3-1.7b", lambda folder: tiny_models.causal(folder, "qwen3")),
}
OTHERS: dict[str, Callable[[Path], Path]] = {
    "image-reward": tiny_models.image_reward,
    "hpsv2.1": lambda folder: tiny_models.clip(folder, "hpsv2.1", seed=1),
    "pickscore": lambda folder: tiny_models.clip(folder, seed=2),
    "clip-vit-large-patch14": tiny_models.clip,
    "blip-itm-base-coco": tiny_models.blip_itm,
    "jina-embeddings-v4": tiny_multimodal.jina,
    "qwen2.5-vl-3b": tiny_multimodal.llava,
    "stable-diffusion-v1-4": tiny_models.stable_diffusion,
    "promptist": lambda folder: tiny_models.gpt2(folder, seed=5),
    "beautiful-prompt": lambda folder: tiny_models.causal(folder, "bloom"),
}
# What a small run changes: sizes, never names.
SMALL = [
    "prompts.limit=10",
    "prompts.test_sets.coco.limit=2",
    "prompts.test_sets.diffusiondb.limit=2",
    "prompts.test_sets.lexica.limit=2",
    "sft.steps=3",
    "sft.batch_size=4",
    "sft.micro_batch_size=2",
    "candidates.n=2",
    "candidates.max_new_tokens=6",
    "evaluate.rewrite.max_new_tokens=6",
    "evaluate.rewriters.promptist.max_new_tokens=6",
    "evaluate.rewriters.beautiful_prompt.max_new_tokens=6",
    "label.renderer.steps=1",
    "evaluate.renderer.steps=1",
]


def build_models(folder: Path) -> Path:
    """A user's own folder of models, by their published names."""
    for name, build in [*OTHERS.items(), *REWRITERS.values()]:
        build(folder / name)
        (folder / name / "semdpo.json").unlink(missing_ok=True)
    return folder


def write_prompts(data: Path) -> None:
    """The public sets of prompts in their own schemas, and examples of rewrites."""
    for name in ("diffusiondb", "lexica", "coco"):
        (data / name).mkdir(parents=True)
    prompts = [
        f"a {c} fox in the {p}, oil" for c in ("red", "blue", "old") for p in ("sea", "wood", "town", "hall", "sky")
    ]
    pd.DataFrame({"prompt": [*prompts, None], "seed": 1}).to_parquet(data / "diffusiondb/metadata.parquet")
    pd.DataFrame({"Prompt": [f"portrait of {i}" for i in range(5)]}).to_parquet(data / "lexica/train.parquet")
    captions = [{"image_id": i, "id": i, "caption": f"A man with {i} dogs.\n"} for i in range(5)]
    (data / "coco/captions_val2017.json").write_text(json.dumps({"annotations": captions}))
    rewrites = [{"prompt": f"a {c}", "rewrite": f"a {c}, art"} for c in ("cat", "dog", "hut", "sea")]
    (data / "sft.jsonl").write_text("\n".join(json.dumps(each) for each in rewrites))
