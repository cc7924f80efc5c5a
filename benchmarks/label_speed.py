"""The speed of labelling: against the loop that is usually written, and as a share of the bare renderer's.

    python benchmarks/label_speed.py                     # the embedded world, 64 prompts, 4 rounds
    python benchmarks/label_speed.py --set label.renderer.precision=bfloat16

The loop does for one prompt after the other: ``generate`` twice, the pipeline twice with one image, each image as a PNG
on the disk, and a call of the scorer for each. It renders the same rewrites with the same seeds as ``semdpo`` does, so
that the scores can be compared. Both take turns, on other prompts in every round, with the same models, settings and
threads. The last line is one JSON object:

    times_as_fast       prompts a second of semdpo, divided by those of the loop
    of_bare_renderer    images a second of the label stage, divided by the renderer's alone at its best batch size
    shares              of semdpo's time: rewriting, rendering, scoring
    largest_difference  between two scores of one candidate; the exit code is 1 where it is above 0.01

``worker_speed.py`` measures one and several processes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from semdpo import load_recipe
from semdpo.data.records import Candidate, Prompt, Score
from semdpo.engine.providers import own_models
from semdpo.models.loading import quiet
from semdpo.models.registry import resolve
from semdpo.models.scorers.registry import load_scorer
from semdpo.protocols import render_checked
from semdpo.recipe.schema import Recipe
from semdpo.stages.candidates import sample
from semdpo.stages.label import label
from semdpo.stages.prompts import collect

BATCH_SIZES = (8, 16, 32, 64)


class Timed:
    """A model that counts the seconds of its calls."""

    def __init__(self, model: Any, *methods: str) -> None:
        self.seconds = 0.0
        for name in methods:
            setattr(self, name, self._timed(getattr(model, name)))

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            begun = time.perf_counter()
            try:
                return call(*arguments)
            finally:
                self.seconds += time.perf_counter() - begun

        return timed


class Semdpo:
    """The stages candidates and label."""

    def __init__(self, recipe: Recipe) -> None:
        own, self.recipe = own_models(), recipe
        scoring, config = recipe.scoring, recipe.label
        rewriter = own.rewriter(recipe.sft.model, recipe.sft.reads, recipe.candidates)
        self.rewriter = Timed(rewriter, "rewrite_flagged", "rewrite")
        self.renderer = Timed(own.renderer(config.renderer), "render_checked", "render", "too_long")
        self.scorer = Timed(own.scorer(config.scorer, scoring), "score")

    def __call__(self, prompts: Sequence[Prompt]) -> list[tuple[Candidate, Score]]:
        candidates, _ = sample(prompts, self.rewriter, self.recipe.candidates)
        scores = label(candidates, self.renderer, {self.recipe.label.scorer: self.scorer}, self.recipe.label)
        return list(zip(candidates, scores, strict=True))


class Loop:
    """What is usually written: one text, one image, one score after the other."""

    def __init__(self, recipe: Recipe, scorer: Any) -> None:
        from diffusers import DDIMScheduler, StableDiffusionPipeline
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = resolve(recipe.sft.model).folder()
        self.tokenizer, self.model = (
            AutoTokenizer.from_pretrained(folder),
            AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        )
        self.pipeline = StableDiffusionPipeline.from_pretrained(
            resolve(recipe.label.renderer.model).folder(), dtype=torch.float32
        )
        self.pipeline.scheduler = DDIMScheduler.from_config(self.pipeline.scheduler.config, clip_sample=False)
        self.pipeline.set_progress_bar_config(disable=True)
        self.recipe, self.scorer = recipe, scorer

    def __call__(self, rows: Sequence[tuple[Candidate, Score]], place: Path) -> list[float]:
        """Scores of the same rewrites, rendered with the same seeds."""
        config, render, scores = self.recipe.candidates, self.recipe.label.renderer, []
        for number, (candidate, score) in enumerate(rows):
            text = self.recipe.sft.reads.text.replace("{prompt}", candidate.prompt)
            ids = self.tokenizer(text, return_tensors="pt")
            with torch.inference_mode():
                self.model.generate(
                    **ids, do_sample=True, temperature=config.temperature, top_p=config.top_p, top_k=0,
                    max_new_tokens=config.max_new_tokens, pad_token_id=self.model.config.eos_token_id,
                )  # fmt: skip
            image = self.pipeline(
                candidate.rewrite,
                num_inference_steps=render.steps,
                guidance_scale=render.guidance,
                generator=torch.Generator().manual_seed(score.image_seed),
            ).images[0]
            image.save(place / f"{number}.png")
            scores.append(float(self.scorer.score([image], [candidate.prompt]).values[0]))
        return scores


def bare(renderer: Any, rows: Sequence[tuple[Candidate, Score]], size: int) -> float:
    """Seconds in which a renderer renders the rows in batches of a size, and nothing else is done."""
    keys = list(dict.fromkeys((candidate.rewrite, score.image_seed) for candidate, score in rows))
    begun = time.perf_counter()
    for start in range(0, len(keys), size):
        batch = keys[start : start + size]
        render_checked(renderer, [text for text, _ in batch], [seed for _, seed in batch])
    return time.perf_counter() - begun


def timed(call: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    begun = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - begun, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--prompts", type=int, default=64, help="in one round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe, ["candidates.n=2", *arguments.overrides])
    prompts = [prompt for prompt in collect(recipe.prompts)[0] if prompt.split == "train"]
    ours = Semdpo(recipe)
    with quiet():
        loop = Loop(recipe, load_scorer(recipe.label.scorer))
    plain = own_models().renderer(recipe.label.renderer)
    seconds: dict[str, list[float]] = {"semdpo": [], "loop": [], "label": []}
    alone: dict[int, list[float]] = {size: [] for size in BATCH_SIZES}
    parts: dict[str, float] = {"rewriting": 0.0, "rendering": 0.0, "scoring": 0.0}
    largest = 0.0
    ours(prompts[:4])  # what is loaded or chosen at the first call
    with tempfile.TemporaryDirectory() as place:
        for number in range(arguments.rounds):
            chosen = prompts[(number * arguments.prompts) % len(prompts) :][: arguments.prompts]
            models = {"rewriting": ours.rewriter, "rendering": ours.renderer, "scoring": ours.scorer}
            before = {name: model.seconds for name, model in models.items()}
            took, rows = timed(ours, chosen)
            seconds["semdpo"].append(took)
            for name, model in models.items():
                parts[name] += model.seconds - before[name]
            seconds["label"].append(took - (ours.rewriter.seconds - before["rewriting"]))
            took, scores = timed(loop, rows, Path(place))
            seconds["loop"].append(took)
            largest = max(largest, *(abs(a - (b.score or 0.0)) for a, (_, b) in zip(scores, rows, strict=True)))
            for size in BATCH_SIZES:
                alone[size].append(bare(plain, rows, size))
            print(f"round {number + 1}: " + ", ".join(f"{k} {v[-1]:.2f} s" for k, v in seconds.items()), flush=True)
    best = min(BATCH_SIZES, key=lambda size: sum(alone[size]))
    ratios = [a / b for a, b in zip(seconds["loop"], seconds["semdpo"], strict=True)]
    result = {
        "seconds": seconds,
        "times_as_fast": round(statistics.median(ratios), 2),
        "in_the_rounds": [round(ratio, 2) for ratio in ratios],
        "best_batch_size": best,
        "of_bare_renderer": round(sum(alone[best]) / sum(seconds["label"]), 3),
        "shares": {name: round(each / sum(seconds["semdpo"]), 3) for name, each in parts.items()},
        "largest_difference": round(largest, 6),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(result))
    sys.exit(largest > 0.01)


if __name__ == "__main__":
    main()
