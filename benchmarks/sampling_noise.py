"""The cost of sampling the next token, compared with computing its scores.

    python benchmarks/sampling_noise.py
    python benchmarks/sampling_noise.py --models qwen --rows 32 --repeats 2

For every model, with random weights and a cache of ``--context`` tokens, one process times the step of all rows and
the sampling of their tokens in turn. Random weights give nearly equal probabilities, so that nearly the whole
vocabulary remains under top-p, which is the sampler's worst case; ``peaked`` samples from the same scores made as
uneven as a trained model's. ``--before`` adds the earlier way to sample: a generator for every row, and a sorted
vocabulary. The last line is one JSON object; all times are medians in seconds per token, for all rows together.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.generation.logits_process import TopPLogitsWarper

from semdpo.models import sampling

TOP_P = 0.95
PEAKED = 10.0  # a trained model's scores spread about this many times as widely as those of random weights


def make_model(name: str) -> Any:
    """A model of a published shape with random weights, float32 on a CPU and bfloat16 on a GPU."""
    from transformers import GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "gpt2":
        model = GPT2LMHeadModel(GPT2Config())
    else:  # Qwen3-0.6B
        shape = {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16}
        more = {"num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True}
        model = Qwen3ForCausalLM(Qwen3Config(vocab_size=151936, **shape, **more))
    return model.eval().to(where, torch.float32 if where.type == "cpu" else torch.bfloat16)


def make_step(model: Any, rows: int, context: int) -> Callable[[], Tensor]:
    """A function that computes the scores of every row's next token, each time from the same cache."""
    ids = torch.arange(1, context + 1, device=model.device)[None]
    cache = model(ids, use_cache=True).past_key_values  # one row, which is repeated for all rows
    cache.batch_repeat_interleave(rows)
    last = torch.arange(rows, device=model.device)[:, None] % 50000

    def step() -> Tensor:
        scores = model(last, past_key_values=cache, use_cache=True).logits[:, -1].float()
        cache.crop(-1)
        return scores

    return step


def draw_before(scores: Tensor) -> Tensor:
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(scores))]
    remaining = TopPLogitsWarper(TOP_P)(torch.empty(0), scores)
    noise = torch.stack([torch.empty(scores.shape[1]).exponential_(generator=generator) for generator in generators])
    return (remaining - noise.log().to(scores.device)).argmax(-1)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    begun = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun, result


def measure(name: str, rows: int, context: int, repeats: int, before: bool) -> dict[str, float]:
    """The median seconds of each way, over repeats after a first one that warms up."""
    step = make_step(make_model(name), rows, context)
    seconds: dict[str, list[float]] = {"step": [], "draw": [], "draw_peaked": []}
    for repeat in range(repeats + 1):
        keys = sampling.keys(range(rows), repeat)
        now = {}
        now["step"], scores = timed(step)
        now["draw"], _ = timed(partial(sampling.sample, scores, keys, top_p=TOP_P))
        now["draw_peaked"], _ = timed(partial(sampling.sample, scores * PEAKED, keys, top_p=TOP_P))
        for key, spent in now.items() if repeat else ():
            seconds[key].append(spent)
    if before:
        seconds["before"] = [timed(partial(draw_before, scores))[0]]
    return {key: statistics.median(values) for key, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=["gpt2", "qwen"], default=["gpt2", "qwen"])
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--context", type=int, default=32, help="number of tokens in the cache")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--before", action="store_true", help="time the earlier, slow way of sampling too")
    options = parser.parse_args()
    times = {}
    with torch.inference_mode():
        for name in options.models:
            times[name] = measure(name, options.rows, options.context, options.repeats, options.before)
            text = ", ".join(f"{key} {seconds:.3g} s" for key, seconds in times[name].items())
            share = times[name]["draw"] / times[name]["step"]
            print(f"{name}, {options.rows} rows: {text}; sampling takes {share:.0%} of a step")
    print(json.dumps({"rows": options.rows, "threads": torch.get_num_threads(), **times}))


if __name__ == "__main__":
    main()
