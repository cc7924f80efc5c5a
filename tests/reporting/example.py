"""Rows of an invented evaluation, for tests of the report."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from semdpo.data.records import Curve, EvaluationRow, Pair, content_id

METHODS = ("human", "sft", "dpo", "sem_dpo")
FIDELITY, PREFERENCE = ["clip", "clip_b", "blip_itm"], ["hps", "pickscore", "image_reward"]
EVIL = "<script>alert('x')</script> & a \"red\" ball"
THEORY = ("bound", "drift")
LEVEL = {"human": 0.70, "sft": 0.60, "dpo": 0.58, "sem_dpo": 0.66}


def image(seed: int) -> bytes:
    colour = tuple(int(v) for v in np.random.default_rng(seed).integers(0, 255, 3))
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


def evaluation(prompts: int = 24, seeds: int = 2, kept: int = 5) -> list[EvaluationRow]:
    random = np.random.default_rng(0)
    rows = []
    hard = random.normal(0, 0.2, prompts)
    for method in METHODS:
        for i in range(prompts):
            prompt = EVIL if i == 0 else f"a red ball number {i}"
            rewrite = prompt if method == "human" else f"{prompt}, oil painting by {method}"
            for seed in range(seeds):
                score = LEVEL[method] + hard[i] + random.normal(0, 0.01)
                rows.append(
                    EvaluationRow(
                        method=method,
                        prompt_id=content_id(prompt),
                        prompt=prompt,
                        source="tiny",
                        image_seed=seed,
                        rewrite=rewrite,
                        tokens=len(rewrite.split()),
                        distance=0.0 if method == "human" else float(random.uniform(0, 0.4)),
                        truncated=method == "sft" and i == 3,
                        metrics={
                            name: float(score if name in FIDELITY else hard[i] + random.normal(0, 0.1))
                            for name in [*FIDELITY, *PREFERENCE]
                        },
                        image=image(i) if i < kept else None,
                        consistency=0.5,
                    )
                )
    return rows


def pairs(n: int = 60) -> list[Pair]:
    distances = np.random.default_rng(1).uniform(0, 0.8, n)
    return [
        Pair(f"{i:04d}", f"a cat {i}", f"a cat {i} in the snow", f"a dog {i}", 1.0, 0.0, float(d), 0.3, i == 2)
        for i, d in enumerate(distances)
    ]


def curves(steps: int = 40) -> list[Curve]:
    names = ["loss", "reward_margin", "reward_accuracy", "chosen_logp_change", "rejected_logp_change"]
    tuned = [Curve(m, s, name, s / steps) for m in METHODS[2:] for name in names for s in range(steps)]
    return [*tuned, *(Curve("sft", s, "loss", 3.0 - s / steps) for s in range(steps))]
