"""Small rewriters of real classes, with byte-level BPE tokenizers that split texts as Llama 3 and Qwen2 do.

Those that have learnt the tiny world's rewrites decode greedily without tossing coins between equal logits.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, Qwen2Tokenizer, Qwen3Config

from semdpo.data.prompts import read_prompts
from semdpo.models.loading import load_tokenizer
from semdpo.models.prompting import completion_ids, prompt_ids
from semdpo.recipe.base import TEMPLATE
from semdpo.tiny_world import shipped

TOKENS = 600
STEPS = 200
SYSTEM = "You rewrite prompts.\nKeep every word."
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
CHATML = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
    "{%- endif %}"
)


def held_out(count: int = 200) -> list[str]:
    """Requests that no rewriter learnt from."""
    return read_prompts(str(shipped.DATA / "evaluation.jsonl"))[:count]


def llama(folder: Path, learnt: bool = False, **more: Any) -> Path:
    """Llama 3 in small: slowed frequencies, a head of its own, heads that are wider than their share, a begin token."""
    settings = {
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 20_000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
        },
        "head_dim": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False,
        "rms_norm_eps": 3e-5, "bos_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip
    return _built(folder, LlamaConfig, llama_tokenizer(), settings | more, learnt)


def qwen3(folder: Path, learnt: bool = False, **more: Any) -> Path:
    """Qwen3 in small: heads of 128, norms of queries and keys, one matrix for embeddings and head."""
    settings = {
        "rope_parameters": {"rope_type": "default", "rope_theta": 70_000.0},
        "head_dim": 128, "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True,
        "rms_norm_eps": 2e-6, "bos_token_id": 0, "eos_token_id": 2,
    }  # fmt: skip
    return _built(folder, Qwen3Config, qwen_tokenizer(), settings | more, learnt)


def qwen_tokenizer() -> Any:
    """Qwen2's class with words of the tiny world, and the control tokens of a chat."""
    words = _bpe(pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer = Qwen2Tokenizer(
        vocab={"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2, **{word: i + 3 for word, i in words[0].items()}},
        merges=words[1],
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    tokenizer.add_tokens(["<think>", "</think>"])  # ordinary tokens, as Qwen3's
    tokenizer.chat_template = CHATML
    return tokenizer


def llama_tokenizer() -> Any:
    """Llama 3's rules with words of the tiny world, and a begin token before each text."""
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    vocab, merges = _bpe(split)
    begin, end = "<|begin_of_text|>", "<|end_of_text|>"
    known = {begin: 0, end: 1, **{word: i + 2 for word, i in vocab.items()}}
    tokenizer = Tokenizer(models.BPE(known, merges, ignore_merges=True))
    tokenizer.pre_tokenizer, tokenizer.decoder = split, decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(f"{begin} $A", special_tokens=[(begin, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=begin, eos_token=end)


def _bpe(split: Any) -> tuple[dict[str, int], list[tuple[str, str]]]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([f"{row['prompt']} Rephrase: {row['rewrite']}" for row in _rows()], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def _rows() -> list[dict[str, str]]:
    return [json.loads(line) for line in (shipped.DATA / "rewrites.jsonl").read_text().splitlines()]


def as_chat(folder: Path, system: str | None = SYSTEM) -> Path:
    """The same rewriter, asked in its tokenizer's chat template."""
    values = {"template": "chat", "max_new_tokens": 48} | ({} if system is None else {"system": system})
    (folder / "semdpo.json").write_text(json.dumps(values))
    return folder


def _built(folder: Path, kind: Any, tokenizer: Any, settings: dict[str, Any], learnt: bool) -> Path:
    sizes = {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 2, "max_position_embeddings": 256}
    torch.manual_seed(0)
    # More rows than tokens, as in published models. Large random weights show every mistake in the logits.
    sizes |= {"vocab_size": len(tokenizer) + 5, "initializer_range": 0.02 if learnt else 0.2}
    model = AutoModelForCausalLM.from_config(kind(**sizes, **settings))
    tokenizer.save_pretrained(folder)
    if learnt:
        _learn(model, load_tokenizer(folder))
    model.save_pretrained(folder)
    (folder / "semdpo.json").write_text(json.dumps({"template": TEMPLATE, "max_new_tokens": 48}))
    return folder


def _learn(model: Any, tokenizer: Any) -> None:
    rows = _rows()
    prompts, rewrites = ([row[key] for row in rows] for key in ("prompt", "rewrite"))
    inputs = prompt_ids(tokenizer, TEMPLATE, prompts)
    outputs = completion_ids(tokenizer, TEMPLATE, prompts, rewrites)
    chosen = random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=STEPS)
    model.train()
    for _ in range(STEPS):
        batch = chosen.sample(range(len(rows)), 16)
        length = max(len(inputs[k]) + len(outputs[k]) for k in batch)
        ids = torch.zeros(len(batch), length, dtype=torch.long)
        labels = torch.full_like(ids, -100)
        for row, k in enumerate(batch):
            whole = torch.tensor([*inputs[k], *outputs[k]])
            ids[row, : len(whole)] = whole
            labels[row, len(inputs[k]) : len(whole)] = whole[len(inputs[k]) :]
        loss = model(input_ids=ids, labels=labels).loss  # causal: padding on the right changes nothing
        loss.backward()
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
    model.eval()
