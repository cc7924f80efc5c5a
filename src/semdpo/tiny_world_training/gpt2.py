"""tiny:gpt2, a language model of the world's texts, from which supervised fine-tuning starts."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

from semdpo.progress import Progress
from semdpo.tiny_world import grammar, requests, rewrites, wordings
from semdpo.tiny_world.facts import compare, parse
from semdpo.tiny_world.grammar import HELD_OUT, THING_WORDS
from semdpo.tiny_world_training import pool, tokenizers
from semdpo.tiny_world_training.fit import Plan, fit

PLAN = Plan(steps=0, rate=2.5e-3, muon=0.02, decay=0.01, warmup=40, hold=0.3, average=0.99, seed=61)
BATCH = 64
WIDTH, LAYERS = 128, 4
# The shares of requests that name no colour, and of copied lines with capitals; both more often than users do, so that
# the model learns them.
COLORLESS, CAPITALS = 0.2, 0.25
# What stands between a prompt and its rewrite on different pages, and the share of each.
BETWEEN = {"\n": 0.5, " Rephrase: ": 0.2, " -> ": 0.15, " | ": 0.15}


def new_gpt2(tokenizer: GPT2Tokenizer) -> GPT2LMHeadModel:
    """The untrained model, with 0.9M parameters."""
    end = tokenizer.eos_token_id
    torch.manual_seed(PLAN.seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=tokenizers.GPT2_LENGTH,
            n_embd=WIDTH,
            n_layer=LAYERS,
            n_head=4,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=end,
        )
    )


def document(rng: Random) -> str:
    """One training text, as on a prompt-sharing page: a prompt and its rewrite, copied words, or one caption."""
    kind = rng.choices(("rewrite", "copy", "caption"), (0.57, 0.35, 0.08))[0]
    if kind == "copy":
        return _copied(rng)
    if kind == "caption":
        return wordings.caption(grammar.scene(rng), rng)[0]
    asked = requests.request(rng)
    if rng.random() < COLORLESS:
        asked = replace(asked, items=tuple(replace(item, color=None) for item in asked.items))
    request = requests.worded(asked, rng)
    text = rewrites.add(request, rng).text if rng.random() < 0.3 else replace(request.wording, opening="").text
    return request.prompt + _between(rng) + rewrites.tail(text, rng)


def _between(rng: Random) -> str:
    return rng.choices(list(BETWEEN), list(BETWEEN.values()))[0]


@cache
def _words() -> list[str]:
    return sorted({word for line in tokenizers.world_text(500, 9) for word in re.findall(r"[a-z0-9]+", line.lower())})


def _copied(rng: Random) -> str:
    """Random words, and the same words again with a tail: teaches the model to copy what it has never read before."""
    unseen = {(color, name) for thing, color in HELD_OUT for name in THING_WORDS.get(thing, (thing,))}
    while True:
        words = [rng.choice(_words()) for _ in range(rng.randint(3, 14))]
        if unseen.isdisjoint(pairwise(words)):
            break
    styles = rng.sample(grammar.STYLES, rng.choice((0, 0, 1, 2)))
    first = " ".join(words)
    if rng.random() < CAPITALS:
        first = first.title() if rng.random() < 0.5 else first.capitalize()
    return first + _between(rng) + wordings.decorate(" ".join(words), styles, rng.choice((0, 0, 1, 2)), rng)


def _batch(tokenizer: GPT2Tokenizer, texts: list[str]) -> dict[str, Tensor]:
    end = tokenizer.eos_token_id
    rows = [[*tokenizer(text).input_ids, end] for text in texts]
    longest = max(map(len, rows))
    pad = [[end] * (longest - len(row)) for row in rows]
    return {
        "input_ids": torch.tensor([row + more for row, more in zip(rows, pad, strict=True)]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * len(more) for row, more in zip(rows, pad, strict=True)]),
        "labels": torch.tensor([row + [-100] * len(more) for row, more in zip(rows, pad, strict=True)]),
    }


def build(folder: Path, out: Path, pool_size: int, steps: int, progress: Progress) -> dict[str, float]:
    """Trains tiny:gpt2 and saves it as ``out``; arguments as in `vae.build`.

    Returns:
        The perplexity per token on held-out texts, and the shares of prompts that it continues with a fact changed or
        lost, for ordinary requests and for those with combinations that it has never read.
    """
    tokenizer = tokenizers.gpt2_tokenizer()
    model = new_gpt2(tokenizer)

    def loss(step: int) -> Tensor:
        rng = Random(f"{PLAN.seed}-{step}")
        value: Tensor = model(**_batch(tokenizer, [document(rng) for _ in range(BATCH)])).loss
        return value

    trained = fit(model, loss, replace(PLAN, steps=steps), folder / "gpt2.fit.pt", progress)
    assert isinstance(trained, GPT2LMHeadModel)
    trained.save_pretrained(out)
    tokenizer.save_pretrained(out)
    rng, count = Random("gpt2-held-out"), pool.held_out_count(300, pool_size)
    with torch.no_grad():
        held_out = trained(**_batch(tokenizer, [document(rng) for _ in range(256)])).loss.item()
    return {
        "perplexity": math.exp(held_out),
        "facts_wrong": facts_wrong(trained, tokenizer, count, held_out=False),
        "facts_wrong_held_out_combinations": facts_wrong(trained, tokenizer, count, held_out=True),
    }


@torch.no_grad()
def facts_wrong(model: GPT2LMHeadModel, tokenizer: GPT2Tokenizer, count: int, *, held_out: bool) -> float:
    """The share of prompts that the model, without fine-tuning, continues with a line that changes or loses a fact.

    Args:
        model: The model, in evaluation mode.
        tokenizer: Its tokenizer.
        count: The number of prompts.
        held_out: Whether the prompts name combinations that no text in training has.
    """
    rng = Random(f"gpt2-copies-{held_out}")
    prompts = [requests.ask(rng, held_out=held_out).prompt for _ in range(count)]
    wrong = 0
    for prompt in prompts:
        ids = torch.tensor([tokenizer(prompt + "\n").input_ids])
        written = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=48, do_sample=False)
        line = tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)
        wrong += bool(compare(parse(prompt), parse(line)).wrong)
    return wrong / count
