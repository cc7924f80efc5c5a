"""The file for ComfyUI: its names, and the refusal of everything that ComfyUI would compute differently.

ComfyUI's sizes are those of the published models; here, a small size stands among them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from semdpo.errors import ModelError, StoreError
from semdpo.exporting import comfy
from semdpo.exporting.export import export
from tests import tiny_models
from tests.exporting import trained

SMALL = {"num_key_value_heads": 1, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "rms_norm_eps": 1e-6}


def _size(**more: Any) -> comfy.Size:
    return comfy.Size(**{"layers": 2, "inner": 192, "heads": 2, "tied": True, "template": None} | more)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A small rewriter of a size that ComfyUI knows."""
    rewriter = trained.qwen3(tmp_path / "qwen3", **SMALL)
    tokenizer = AutoTokenizer.from_pretrained(rewriter)
    words = {token: tokenizer.get_vocab()[token] for token in comfy.TOKENS}
    monkeypatch.setattr(comfy, "SIZES", {96: _size()})
    rows = len(tokenizer) + 5
    monkeypatch.setattr(comfy, "SHARED", comfy.SHARED | {"num_key_value_heads": 1, "vocab_size": rows})
    monkeypatch.setattr(comfy, "TOKENS", words)
    monkeypatch.setattr(comfy, "STOPS", {words["<|endoftext|>"], words["<|im_end|>"]})
    return rewriter


def test_the_weights_and_what_to_type(known: Path, tmp_path: Path) -> None:
    hint = export(str(known), "comfy", tmp_path / "x.safetensors")
    assert hint.endswith("write as prompt: '{prompt} Rephrase:'")
    model = AutoModelForCausalLM.from_pretrained(known)
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        assert json.loads(file.metadata()["semdpo.settings"])["max_new_tokens"] == 48
    expected = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}
    assert weights.keys() == expected.keys()
    assert {"model.layers.0.self_attn.q_norm.weight", "model.embed_tokens.weight"} <= weights.keys()
    assert all(torch.equal(weights[name], value) for name, value in expected.items())
    export(str(known), "comfy", tmp_path / "x.safetensors", "bf16")  # replaces it
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.get_tensor("model.norm.weight").dtype == torch.bfloat16


def test_what_float16_cannot_hold_is_refused(known: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(known)
    with torch.no_grad():
        model.model.norm.weight[0] = -1e5
    model.save_pretrained(known)
    with pytest.raises(ModelError, match=r"model.norm.weight has the value 100000, which float16 cannot hold"):
        export(str(known), "comfy", tmp_path / "x.safetensors", "f16")
    assert not (tmp_path / "x.safetensors").exists()


def test_a_chat_is_typed_as_a_whole_where_comfyui_adds_nothing(known: Path, tmp_path: Path) -> None:
    hint = export(str(trained.as_chat(known)), "comfy", tmp_path / "x.safetensors")
    typed = f"<|im_start|>system\n{trained.SYSTEM}<|im_end|>\n{comfy._CHAT}"
    assert hint.endswith(repr(typed))


def test_a_head_of_its_own_lies_inside_the_model(known: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained.as_chat(trained.qwen3(known, **SMALL, tie_word_embeddings=False), None)
    monkeypatch.setattr(comfy, "SIZES", {96: _size(tied=False, template=comfy._CHAT)})
    assert export(str(known), "comfy", tmp_path / "x.safetensors").endswith("'{prompt}'")
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        head = AutoModelForCausalLM.from_pretrained(known).lm_head.weight
        assert torch.equal(file.get_tensor("model.lm_head.weight"), head)


@pytest.mark.parametrize("chat", [False, True])
def test_another_text_than_comfyuis_own_is_refused(
    chat: bool, known: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comfy, "SIZES", {96: _size(template=comfy._CHAT)})
    if chat:
        trained.as_chat(known)  # with a system text
    with pytest.raises(ModelError, match="not asked in Qwen3's chat template without a system text"):
        export(str(known), "comfy", tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rms_norm_eps": 1e-5}, r"\(rms_norm_eps of its configuration\)"),
        ({"num_hidden_layers": 1, "layer_types": ["full_attention"]}, r"\(num_hidden_layers of its configuration\)"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e5}}, r"\(rope_parameters of its configuration\)"),
    ],
)
def test_another_computation_is_refused(change: dict[str, Any], said: str, known: Path, tmp_path: Path) -> None:
    config = json.loads((known / "config.json").read_text())
    (known / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelError, match=f"differs from the Qwen3 that ComfyUI knows {said}"):
        export(str(known), "comfy", tmp_path / "x.safetensors")


def test_another_tokenizer_is_refused(known: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comfy, "STOPS", {comfy.TOKENS["<|endoftext|>"]})
    with pytest.raises(ModelError, match="is not Qwen3's, and ComfyUI uses Qwen3's"):
        export(str(known), "comfy", tmp_path / "x.safetensors")
    monkeypatch.setattr(comfy, "TOKENS", comfy.TOKENS | {"<think>": 7})
    with pytest.raises(ModelError, match="is not Qwen3's, and ComfyUI uses Qwen3's"):
        export(str(known), "comfy", tmp_path / "x.safetensors")


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3"])
def test_other_models_are_refused(kind: str, tmp_path: Path) -> None:
    rewriter = tiny_models.gpt2(tmp_path / kind) if kind == "gpt2" else tiny_models.causal(tmp_path / kind, kind)
    with pytest.raises(ModelError, match=r"not of a kind .* \(ComfyUI generates text with Qwen3-0.6B, 4B and 8B\)"):
        export(str(rewriter), "comfy", tmp_path / "x.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == [kind]


def test_only_an_export_is_replaced(known: Path, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"mine")
    with pytest.raises(StoreError, match="was not exported by semdpo"):
        export(str(known), "comfy", tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").read_bytes() == b"mine"


def test_the_sizes_are_those_of_the_published_models() -> None:
    """Number of parameters, as the models' pages give it: 0.6, 4.0 and 8.2 billion."""
    counts = []
    for width, size in comfy.SIZES.items():
        config = Qwen3Config(
            hidden_size=width,
            num_hidden_layers=size.layers,
            intermediate_size=size.inner,
            num_attention_heads=size.heads,
            num_key_value_heads=8,
            head_dim=128,
            vocab_size=151936,
            tie_word_embeddings=size.tied,
        )
        with torch.device("meta"):
            counts.append(Qwen3ForCausalLM(config).num_parameters())
    assert [round(count / 1e9, 1) for count in counts] == [0.6, 4.0, 8.2]
