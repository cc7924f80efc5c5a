"""The speed of preference training compared with the newest TRL: GPT-2 124M's configuration on this machine's CPU.

    python benchmarks/train_speed.py

Every run is its own process. The kinds are interleaved, one run after the other; all have the same pairs, weights,
precision and optimiser. ``trl`` is TRL at its best (reference precomputed, no gradient checkpointing), ``trl_default``
has TRL's defaults. The seconds of training and of the reference pass are separate, so that the reference pass can be
counted for both or for neither. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from typing import Any

BATCH = 8
BETA = 0.05
RATE = 5e-6
KINDS = ("ours", "sem_dpo", "trl", "trl_default")
SUBJECTS = ["a castle", "a red fox", "portrait of an old sailor", "the harbor at night", "a small robot", "two dancers"]
STYLES = ["oil painting", "highly detailed", "golden hour", "trending on artstation", "sharp focus", "soft light", "8k"]


def make_pairs(count: int) -> list[tuple[str, str, str]]:
    """Prompts and two rewrites with DiffusionDB's lengths (median 13 and 36 tokens of GPT-2)."""
    rng = random.Random(0)

    def rewrite(prompt: str) -> str:
        return f"{prompt}, " + ", ".join(rng.choices(STYLES, k=rng.randint(3, 9)))

    pairs = []
    for _ in range(count):
        prompt = f"{rng.choice(SUBJECTS)} {rng.choice(['near', 'under', 'beside'])} {rng.choice(SUBJECTS)}"
        pairs.append((f"{prompt} Rephrase:", f" {rewrite(prompt)}", f" {rewrite(prompt)}"))
    return pairs


def make_model() -> Any:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(bos_token_id=0, eos_token_id=0, pad_token_id=0))


def make_tokenizer() -> Any:
    """Byte pairs trained on the pairs themselves: as many tokens per word as GPT-2's own, without a download."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator([" ".join(pair) for pair in make_pairs(400)], trainer)
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=end, bos_token=end, pad_token=end)


def run_ours(count: int, precision: str, folder: str, alpha: float | None) -> dict[str, Any]:
    from pathlib import Path

    from semdpo.recipe.schema import TrainConfig
    from semdpo.training.arguments import training_arguments
    from semdpo.training.batches import Example, draw_batches, encode
    from semdpo.training.memory import keep_freed_memory
    from semdpo.training.precision import autocast
    from semdpo.training.prepare import prepare
    from semdpo.training.reference import reference_logps
    from semdpo.training.trainer import ExampleTrainer

    keep_freed_memory()  # as every command that trains does
    model, tokenizer, pairs = make_model(), make_tokenizer(), make_pairs(count)
    groups = encode(tokenizer, "{prompt}", [p for p, _, _ in pairs], [(c, r) for _, c, r in pairs])
    # TRL gets the pairs in semdpo's order, so that both have the same batches.
    can_pack = prepare(model)
    begun = time.monotonic()
    with autocast(precision):
        logps = reference_logps(model, groups, can_pack)
    reference = time.monotonic() - begun
    named = {"name": "dpo"} if alpha is None else {"name": "sem_dpo", "alpha": alpha}
    objective = TrainConfig.model_validate({"methods": {"m": named}}).methods["m"]
    examples = [
        Example(str(k), group, values, distance=0.01 * k)
        for k, (group, values) in enumerate(zip(groups, logps, strict=True))
    ]
    trainer = ExampleTrainer(
        model,
        training_arguments(Path(folder), learning_rate=RATE, precision=precision),
        examples,
        objective=objective,
        beta=BETA,
        batch_size=BATCH,
        can_pack=can_pack,
    )
    begun = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - begun
    order = draw_batches([group.tokens for group in groups], BATCH, 1, 0)
    body = sum(p.numel() for name, p in model.named_parameters() if ".h." in name)
    head = model.lm_head.weight.numel()
    tokens = sum(group.tokens for group in groups)
    predicted = sum(len(completion) for group in groups for completion in group.completions)
    return {
        "seconds": seconds,
        "reference": reference,
        "losses": [c.value for c in trainer.curves if c.name == "loss"],
        "order": [k for step in order for k in step],
        "flops": 6 * (body * tokens + head * predicted),
    }


def run_trl(count: int, precision: str, folder: str, at_its_best: bool) -> dict[str, Any]:
    from datasets import Dataset, disable_progress_bars
    from trl import DPOConfig, DPOTrainer

    from semdpo.training.batches import draw_batches, encode

    disable_progress_bars()
    model, tokenizer, pairs = make_model(), make_tokenizer(), make_pairs(count)
    groups = encode(tokenizer, "{prompt}", [p for p, _, _ in pairs], [(c, r) for _, c, r in pairs])
    order = [k for step in draw_batches([group.tokens for group in groups], BATCH, 1, 0) for k in step]
    rows = [dict(zip(("prompt", "chosen", "rejected"), pairs[k], strict=True)) for k in order]
    best = {"precompute_ref_log_probs": True, "precompute_ref_batch_size": 16, "gradient_checkpointing": False}
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
        bf16=precision == "bfloat16",
        use_cpu=True,
        disable_tqdm=True,
        beta=BETA,
        train_sampling_strategy="sequential",
        dataloader_pin_memory=False,
        **(best if at_its_best else {}),
    )
    model.save_pretrained(f"{folder}/model")
    tokenizer.save_pretrained(f"{folder}/model")
    model = type(model).from_pretrained(f"{folder}/model")  # TRL loads its reference from where the policy came
    begun = time.monotonic()
    trainer = DPOTrainer(model=model, args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    built = time.monotonic() - begun
    begun = time.monotonic()
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    # The reference is computed while the trainer is built; tokenising these few rows takes almost no time.
    return {"seconds": time.monotonic() - begun, "reference": built if at_its_best else 0.0, "losses": losses}


def measure(kind: str, count: int, precision: str) -> None:
    """Measures one run in this process, and prints the results."""
    warnings.simplefilter("ignore")
    from transformers.utils import logging

    logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        if kind in ("ours", "sem_dpo"):
            result = run_ours(count, precision, folder, alpha=4.0 if kind == "sem_dpo" else None)
        else:
            result = run_trl(count, precision, folder, at_its_best=kind == "trl")
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(result))


def matmul_peak(precision: str) -> float:
    """The operations per second of this machine's matrix product, at a layer's size."""
    import torch

    dtype = getattr(torch, precision)
    a, b = torch.randn(704, 768).to(dtype), torch.randn(768, 3072).to(dtype)
    best = 0.0
    for _ in range(30):
        begun = time.monotonic()
        for _ in range(10):
            a @ b
        best = max(best, 10 * 2 * 704 * 768 * 3072 / (time.monotonic() - begun))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=160)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--precision", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--measure", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.pairs, options.precision)
        return
    results: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for run in range(options.runs):
        for kind in KINDS:
            command = [sys.executable, __file__, "--measure", kind, "--pairs", str(options.pairs)]
            command += ["--precision", options.precision]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
            results[kind].append(json.loads(done.stdout.splitlines()[-1]))
            last = results[kind][-1]
            print(f"run {run} {kind}: {options.pairs / last['seconds']:.2f} pairs/s, loss {last['losses'][-1]:.6f}")

    def middle(kind: str, *names: str) -> float:
        return statistics.median(sum(row[name] for name in names) for row in results[kind])

    peak = matmul_peak(options.precision)
    print(f"pairs: {options.pairs}, batch {BATCH}, {options.precision}; matmul peak {peak / 1e9:.0f} GFLOP/s")
    for kind in KINDS:
        losses = ", ".join(f"{loss:.5f}" for loss in results[kind][0]["losses"])
        print(
            f"{kind}: {options.pairs / middle(kind, 'seconds'):.2f} pairs/s training, "
            f"{options.pairs / middle(kind, 'seconds', 'reference'):.2f} with the reference pass, "
            f"{middle(kind, 'peak_mb'):.0f} MB; losses {losses}"
        )
    both = ("seconds", "reference")
    print(
        json.dumps(
            {
                "ratio": round(middle("trl", "seconds") / middle("ours", "seconds"), 3),
                "ratio_with_reference": round(middle("trl", *both) / middle("ours", *both), 3),
                "ratio_default": round(middle("trl_default", "seconds") / middle("ours", *both), 3),
                "ratio_memory": round(middle("ours", "peak_mb") / middle("trl", "peak_mb"), 3),
                "ratio_sem_dpo": round(middle("sem_dpo", "seconds") / middle("ours", "seconds"), 3),
                "share_of_peak": round(results["ours"][0]["flops"] / middle("ours", "seconds") / peak, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
