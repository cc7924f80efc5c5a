"""The folder for transformers: an ordinary one, with adapters added to the weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from semdpo.engine import fingerprint
from semdpo.errors import ModelError, StoreError
from semdpo.exporting.export import export
from semdpo.models import drift_limit
from semdpo.models.loading import quiet
from semdpo.models.rewriter import load_causal, load_rewriter
from tests import tiny_models
from tests.exporting import trained

PROMPTS = ["a red ball", "the cat on a mat", "two blue dogs"]


def _rewrites(folder: Path) -> list[list[str]]:
    return load_rewriter(folder, temperature=0.0, max_new_tokens=12).rewrite(PROMPTS, 1, seed=0)


def test_an_ordinary_folder(tmp_path: Path) -> None:
    rewriter = tiny_models.gpt2(tmp_path / "gpt2")
    (rewriter / "semdpo.json").write_text(json.dumps({"template": "{prompt} Better:", "max_new_tokens": 7}))
    (rewriter / "README.md").write_text("# My own card\n")
    export(str(rewriter), "hf", tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "semdpo.json", "README.md",
    }  # fmt: skip
    for name in ("semdpo.json", "README.md"):
        assert (tmp_path / "out" / name).read_bytes() == (rewriter / name).read_bytes()
    settings = json.loads((tmp_path / "out/generation_config.json").read_text())
    assert (settings["max_new_tokens"], settings["eos_token_id"]) == (7, [0])
    assert _rewrites(tmp_path / "out") == _rewrites(rewriter)


def test_the_measured_limit_of_the_drift_goes_along_with_equal_weights(tmp_path: Path) -> None:
    rewriter, out = tiny_models.gpt2(tmp_path / "gpt2"), tmp_path / "out"
    measured = drift_limit.DriftLimit(0.05, 0.95, 40, "e", fingerprint.model(rewriter))
    drift_limit.write(rewriter, measured)
    export(str(rewriter), "hf", out)
    assert drift_limit.read(out, "e", fingerprint.model(out)) == replace(measured, model=fingerprint.model(out))
    export(str(rewriter), "hf", out, "bf16")
    assert not (out / "guard.json").exists(), "other weights, whose drift nobody measured"
    drift_limit.write(rewriter, replace(measured, model="another"))
    export(str(rewriter), "hf", out)
    assert not (out / "guard.json").exists()


def test_what_float16_cannot_hold_is_refused(tmp_path: Path) -> None:
    model, tokenizer = load_causal(tiny_models.gpt2(tmp_path / "gpt2"))
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.weight[0, 0] = 1e5
    model.save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ModelError, match=r"h.1.mlp.c_fc.weight has the value 100000, which float16 cannot hold"):
        export(str(tmp_path / "gpt2"), "hf", tmp_path / "out", "f16")
    assert [path.name for path in tmp_path.iterdir()] == ["gpt2"], "no part of a folder is left"
    export(str(tmp_path / "gpt2"), "hf", tmp_path / "out", "bf16")


def test_a_model_without_settings_gets_the_default_ones_and_a_card(tmp_path: Path) -> None:
    export("tiny:gpt2", "hf", tmp_path / "out")
    assert json.loads((tmp_path / "out/semdpo.json").read_text()) == {"template": "{prompt} Rephrase:"}
    assert "| exported from | tiny:gpt2 |" in (tmp_path / "out/README.md").read_text()


def test_adapters_are_added_to_their_base(tmp_path: Path) -> None:
    base = tiny_models.gpt2(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    with quiet():  # PEFT asks transformers for names that it will remove
        model = get_peft_model(model, LoraConfig(target_modules=["c_fc"], r=4, fan_in_fan_out=True))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.5)
    with quiet():
        model.save_pretrained(tmp_path / "adapters")
    (tmp_path / "adapters/semdpo.json").write_text((base / "semdpo.json").read_text())
    export(str(tmp_path / "adapters"), "hf", tmp_path / "out")
    assert not (tmp_path / "out/adapter_config.json").exists()
    whole, ids = AutoModelForCausalLM.from_pretrained(tmp_path / "out"), torch.tensor([[5, 9, 40, 2]])
    adapted, untouched = load_causal(tmp_path / "adapters")[0], AutoModelForCausalLM.from_pretrained(base)
    with torch.inference_mode():
        assert torch.equal(whole(ids).logits, adapted(ids).logits)
        assert not torch.allclose(whole(ids).logits, untouched(ids).logits, atol=0.01)


TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


@pytest.mark.parametrize("weights", list(TYPES))
def test_the_type_of_the_weights(weights: str, tmp_path: Path) -> None:
    export("tiny:gpt2", "hf", tmp_path / "out", weights)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == TYPES[weights]


def test_the_chat_template_and_its_settings_are_kept(tmp_path: Path) -> None:
    rewriter = trained.as_chat(trained.qwen3(tmp_path / "qwen3"))
    (rewriter / "README.md").write_text("# Mine\n")
    export(str(rewriter), "hf", tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == trained.CHATML
    assert json.loads((tmp_path / "out/semdpo.json").read_text())["system"] == trained.SYSTEM


def test_only_a_folder_of_semdpo_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match="was not made by semdpo and would be lost"):
        export("tiny:gpt2", "hf", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]
    (tmp_path / "out/thesis.txt").unlink()
    export("tiny:gpt2", "hf", tmp_path / "out")
    export("tiny:gpt2", "hf", tmp_path / "out", "bf16")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
