"""The speed of preference training compared with the newest TRL, on one GPU: GPT-2's and Qwen3-0.6B's configurations.

    python benchmarks/train_speed_gpu.py

Every run is its own process, and the kinds are interleaved; all have the same pairs, random weights, order, optimiser
and bfloat16. TRL runs at its best (reference precomputed, no gradient checkpointing). The first steps, in which kernels
are compiled, are not counted for either. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from train_speed import BETA, RATE, make_pairs, make_tokenizer

BATCH = 32
SKIPPED = 5  # steps
MODELS = ("gpt2", "qwen3-0.6b")
KINDS = ("ours", "trl")


def make_model(name: str) -> Any:
    """The published configuration with random weights, on the GPU."""
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config, Qwen3Config

    torch.manual_seed(0)
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    if name == "gpt2":
        config: Any = GPT2Config(**ends)
    else:
        config = Qwen3Config(
            vocab_size=151936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
            num_key_value_heads=8, head_dim=128, tie_word_embeddings=True, rope_theta=1e6, **ends,
        )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).cuda()


def make_clock() -> Any:
    """A callback that records when each step ended, including the GPU's work."""
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            torch.cuda.synchronize()
            self.times.append(time.monotonic())

    return Clock()


def run_ours(name: str, count: int, folder: str) -> tuple[list[float], list[float]]:
    from semdpo.recipe.objectives import DPOSettings
    from semdpo.training.arguments import training_arguments
    from semdpo.training.batches import Example, encode
    from semdpo.training.precision import autocast
    from semdpo.training.prepare import prepare
    from semdpo.training.reference import reference_logps
    from semdpo.training.trainer import ExampleTrainer

    model, tokenizer, pairs = make_model(name), make_tokenizer(), make_pairs(count)
    groups = encode(tokenizer, "{prompt}", [p for p, _, _ in pairs], [(c, r) for _, c, r in pairs])
    can_pack = prepare(model)
    if not can_pack:
        raise SystemExit(f"{name} is not accepted for packing on this GPU, which is a bug in semdpo; report it")
    with autocast("bfloat16"):
        logps = reference_logps(model, groups, can_pack)
    clock = make_clock()
    trainer = ExampleTrainer(
        model,
        training_arguments(Path(folder), learning_rate=RATE, precision="bfloat16"),
        [Example(str(k), group, values) for k, (group, values) in enumerate(zip(groups, logps, strict=True))],
        objective=DPOSettings(name="dpo"),
        beta=BETA,
        batch_size=BATCH,
        can_pack=can_pack,
        callbacks=[clock],
    )
    trainer.train()
    return clock.times, [c.value for c in trainer.curves if c.name == "loss"]


def run_trl(name: str, count: int, folder: str) -> tuple[list[float], list[float]]:
    from datasets import Dataset, disable_progress_bars
    from trl import DPOConfig, DPOTrainer

    from semdpo.training.batches import draw_batches, encode

    disable_progress_bars()
    model, tokenizer, pairs = make_model(name), make_tokenizer(), make_pairs(count)
    groups = encode(tokenizer, "{prompt}", [p for p, _, _ in pairs], [(c, r) for _, c, r in pairs])
    order = [k for step in draw_batches([group.tokens for group in groups], BATCH, 1, 0) for k in step]
    rows = [dict(zip(("prompt", "chosen", "rejected"), pairs[k], strict=True)) for k in order]
    clock = make_clock()
    args = DPOConfig(
        output_dir=folder,
        per_device_train_batch_size=BATCH,
        num_train_epochs=1,
        learning_rate=RATE,
        warmup_steps=round(0.1 * -(-count // BATCH)),
        optim="adamw_torch_fused",
        weight_decay=0.0,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        bf16=True,
        disable_tqdm=True,
        beta=BETA,
        train_sampling_strategy="sequential",
        precompute_ref_log_probs=True,
        precompute_ref_batch_size=64,
        gradient_checkpointing=False,
    )
    trainer = DPOTrainer(
        model=model, args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[clock]
    )
    trainer.train()
    return clock.times, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def measure(kind: str, name: str, count: int) -> None:
    """Measures one run in this process, and prints the results."""
    warnings.simplefilter("ignore")
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        times, losses = (run_ours if kind == "ours" else run_trl)(name, count, folder)
    seconds = (times[-1] - times[SKIPPED - 1]) / (len(times) - SKIPPED)
    print(json.dumps({"step": seconds, "losses": losses, "peak_mb": torch.cuda.max_memory_allocated() / 2**20}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=40 * BATCH)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--measure", nargs=2, metavar=("KIND", "MODEL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure, options.pairs)
        return
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a CUDA GPU; benchmarks/train_speed.py measures on a CPU")
    results: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in range(options.runs):
        for name in MODELS:
            for kind in KINDS:
                command = [sys.executable, __file__, "--pairs", str(options.pairs), "--measure", kind, name]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                row = json.loads(done.stdout.splitlines()[-1])
                results.setdefault((name, kind), []).append(row)
                print(f"run {run} {name} {kind}: {BATCH / row['step']:.0f} pairs/s, loss {row['losses'][-1]:.5f}")
    result: dict[str, Any] = {"device": torch.cuda.get_device_name(0)}
    for name in MODELS:
        ours, theirs = results[name, "ours"], results[name, "trl"]
        step, other = (statistics.median(row["step"] for row in rows) for rows in (ours, theirs))
        memory, other_memory = (statistics.median(row["peak_mb"] for row in rows) for rows in (ours, theirs))
        result[name] = {
            "ratio": round(other / step, 3),
            "pairs_per_second": round(BATCH / step, 1),
            "ratio_memory": round(memory / other_memory, 3),
            "loss_difference": round(abs(ours[0]["losses"][-1] - theirs[0]["losses"][-1]), 5),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
