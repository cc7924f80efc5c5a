"""Rewriters of other classes and of other people: their templates and decoding are data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from semdpo.engine.providers import own_models
from semdpo.errors import ModelError
from semdpo.models.rewriter import load_rewriter
from semdpo.recipe.models import RewriterConfig
from tests import tiny_models

PROMPTS = ["a red ball", "two cats on a hill", "sea"]
PROMPTIST = {"temperature": 0.0, "num_beams": 8, "length_penalty": -1.0, "max_new_tokens": 20}
BEAUTIFUL = {"temperature": 0.0, "repetition_penalty": 1.2, "max_new_tokens": 20}
INSTRUCTION = (
    "Instruction: Give a simple description of the image to generate a drawing prompt.\nInput: {prompt}\nOutput:"
)


@pytest.mark.parametrize("kind", ["qwen2", "llama", "qwen3", "bloom"])
def test_a_rewrite_does_not_depend_on_its_neighbours(kind: str, tmp_path: Path) -> None:
    """Padding stands on the left; a model that minded it would answer otherwise in company."""
    folder = tiny_models.causal(tmp_path, kind)
    together = load_rewriter(folder, max_new_tokens=10).rewrite(PROMPTS, 2, seed=3)
    alone = load_rewriter(folder, max_new_tokens=10, batch_size=1)
    assert together == [alone.rewrite([prompt], 2, seed=3)[0] for prompt in PROMPTS]
    assert len({text for row in together for text in row}) > 3


def _by_transformers(folder: Path, text: str, **options: object) -> str:
    """One sequence, by the library alone, as the model's page shows it."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        output = model.generate(**inputs, max_new_tokens=20, do_sample=False, pad_token_id=0, **options)
    read = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return " ".join(read.split())


def test_promptists_beam_search(tmp_path: Path) -> None:
    folder = tiny_models.gpt2(tmp_path, seed=4)
    found = load_rewriter(folder, template="{prompt} Rephrase:", **PROMPTIST).rewrite(
        [*PROMPTS, "  padded "], 1, seed=0
    )
    wanted = [
        _by_transformers(folder, prompt.strip() + " Rephrase:", num_beams=8, length_penalty=-1.0)
        for prompt in [*PROMPTS, "  padded "]
    ]
    assert [row[0] for row in found] == wanted


def test_beautiful_prompts_greedy_search_with_a_repetition_penalty(tmp_path: Path) -> None:
    folder = tiny_models.causal(tmp_path, "bloom")
    found = load_rewriter(folder, template=INSTRUCTION, **BEAUTIFUL).rewrite(PROMPTS, 1, seed=0)
    wanted = [_by_transformers(folder, INSTRUCTION.format(prompt=each), repetition_penalty=1.2) for each in PROMPTS]
    assert [row[0] for row in found] == wanted
    assert found != load_rewriter(folder, INSTRUCTION, temperature=0.0, max_new_tokens=20).rewrite(PROMPTS, 1, seed=0)


def test_a_recipes_entry_is_all_that_a_third_rewriter_needs(tmp_path: Path) -> None:
    folder = tiny_models.causal(tmp_path, "llama")
    entry = RewriterConfig(model=str(folder), template="Make it nice: {prompt} ->", max_new_tokens=6, top_k=3)
    rewriter = own_models().rewriter(entry.model, entry.template, entry)
    assert rewriter.rewrite(PROMPTS, 1, seed=0) == load_rewriter(
        folder, template="Make it nice: {prompt} ->", max_new_tokens=6, top_k=3
    ).rewrite(PROMPTS, 1, seed=0)


def test_a_model_that_thinks_aloud_is_kept_from_it(tmp_path: Path) -> None:
    folder = tiny_models.causal(tmp_path, "qwen3", words=("<think>", "</think>"))
    model = AutoModelForCausalLM.from_pretrained(folder)
    thinks = AutoTokenizer.from_pretrained(folder).get_vocab()["<think>"]
    with torch.no_grad():
        model.lm_head.weight[thinks] = model.lm_head.weight.sum(0)
    model.save_pretrained(folder)
    sampled = load_rewriter(folder, temperature=3.0, top_p=1.0, max_new_tokens=40)
    plain = load_rewriter(folder, temperature=3.0, top_p=1.0, max_new_tokens=40)
    plain._suppressed = []
    assert "<think>" in " ".join(text for row in plain.rewrite(PROMPTS, 4, seed=0) for text in row)
    assert "<think>" not in " ".join(text for row in sampled.rewrite(PROMPTS, 4, seed=0) for text in row)


def test_decoding_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    folder = tiny_models.gpt2(tmp_path)
    with pytest.raises(ModelError, match="beam search does not sample; set temperature to 0"):
        load_rewriter(folder, num_beams=4)
    with pytest.raises(ModelError, match="repetition_penalty must be > 0"):
        load_rewriter(folder, repetition_penalty=0.0)
    with pytest.raises(ValueError, match="beam search does not sample"):
        RewriterConfig(model="m", num_beams=2)


def test_a_model_in_torchs_own_form_is_read_without_running_what_is_in_it(tmp_path: Path) -> None:
    """Promptist has no safetensors file; its tokenizer is GPT-2's and lies elsewhere."""
    folder = tiny_models.gpt2(tmp_path / "model")
    wanted = load_rewriter(folder, temperature=0.0, max_new_tokens=5).rewrite(PROMPTS, 1, seed=0)
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()
    assert load_rewriter(folder, temperature=0.0, max_new_tokens=5).rewrite(PROMPTS, 1, seed=0) == wanted
    torch.save({"a": Path("x")}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="does not hold a readable model"):
        load_rewriter(folder)
