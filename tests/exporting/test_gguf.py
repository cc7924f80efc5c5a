"""The GGUF file, read back by transformers' own reader: the same logits, the same ids, the same settings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import jinja2
import pytest
import torch
from tokenizers import AddedToken, normalizers, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from semdpo.errors import ModelError, StoreError
from semdpo.exporting import export as exporting
from semdpo.exporting import source
from semdpo.exporting.vocabulary import vocabulary
from semdpo.models.registry import resolve
from semdpo.models.rewriter import load_causal
from tests import tiny_models
from tests.exporting import trained

BUILDERS = {"llama": trained.llama, "qwen3": trained.qwen3}
# The largest difference of logits whose standard deviation is 1 or more. With f32 the weights are equal; but they lie
# in memory in another order, for which some processors add in another order.
ROUNDING = {"f32": 1e-4, "f16": 0.05, "bf16": 0.4, "q8_0": 1.0}


@pytest.fixture(scope="module")
def rewriters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("rewriters")
    return {"gpt2": resolve("tiny:gpt2").folder()} | {name: make(folder / name) for name, make in BUILDERS.items()}


def _exported(model: str | Path, folder: Path, weights: str = "f32") -> Path:
    exporting.export(str(model), "gguf", folder / "m.gguf", weights)
    return folder


def _fields(folder: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(folder / "m.gguf").fields.items()}


@pytest.mark.parametrize("weights", list(ROUNDING))
@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3"])
def test_transformers_reads_the_same_weights(
    kind: str, weights: str, rewriters: dict[str, Path], tmp_path: Path
) -> None:
    folder = _exported(rewriters[kind], tmp_path, weights)
    model, tokenizer = load_causal(rewriters[kind])
    # With the rewriter's own configuration, since transformers reads neither GPT-2's nor the slowed frequencies.
    config = AutoConfig.from_pretrained(rewriters[kind])
    again = AutoModelForCausalLM.from_pretrained(folder, gguf_file="m.gguf", config=config, dtype=torch.float32).eval()
    ids = [tokenizer(f"{prompt} Rephrase:")["input_ids"] for prompt in trained.held_out(20)]
    with torch.inference_mode():
        logits = [[each(torch.tensor([row])).logits for row in ids] for each in (model, again)]
    differences = [(ours - theirs).abs().max().item() for ours, theirs in zip(*logits, strict=True)]
    assert max(differences) <= ROUNDING[weights]
    assert torch.cat([each[0] for each in logits[0]]).std() > 1
    if weights == "f32":
        theirs = again.state_dict()
        assert theirs.keys() == model.state_dict().keys()
        assert all(torch.equal(weight, theirs[name]) for name, weight in model.state_dict().items())
    if weights != "f32" and kind != "gpt2":  # the shipped weights of GPT-2 are float16
        assert max(differences) > 0, "the weights were not rounded"


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3"])
def test_transformers_reads_the_same_ids(kind: str, rewriters: dict[str, Path], tmp_path: Path) -> None:
    folder = _exported(rewriters[kind], tmp_path)
    ours = AutoTokenizer.from_pretrained(rewriters[kind])
    theirs = AutoTokenizer.from_pretrained(folder, gguf_file="m.gguf")
    for prompt in trained.held_out(200):
        assert theirs(prompt)["input_ids"] == ours(prompt)["input_ids"], prompt


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_transformers_reads_the_same_settings(kind: str, rewriters: dict[str, Path], tmp_path: Path) -> None:
    ours = AutoConfig.from_pretrained(rewriters[kind])
    theirs = AutoConfig.from_pretrained(_exported(rewriters[kind], tmp_path), gguf_file="m.gguf")
    for name in (
        *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
        *("max_position_embeddings", "tie_word_embeddings", "vocab_size", "bos_token_id", "eos_token_id", "head_dim"),
    ):
        assert getattr(theirs, name) == getattr(ours, name), name
    assert theirs.rms_norm_eps == pytest.approx(ours.rms_norm_eps)
    assert theirs.rope_parameters["rope_theta"] == ours.rope_parameters["rope_theta"]


def test_what_the_file_says_of_gpt2(rewriters: dict[str, Path], tmp_path: Path) -> None:
    fields = _fields(_exported("tiny:gpt2", tmp_path))
    config = AutoConfig.from_pretrained(rewriters["gpt2"])
    assert (fields["gpt2.context_length"], fields["gpt2.embedding_length"]) == (config.n_positions, config.n_embd)
    assert (fields["gpt2.block_count"], fields["gpt2.attention.head_count"]) == (config.n_layer, config.n_head)
    assert fields["gpt2.feed_forward_length"] == 4 * config.n_embd
    assert fields["gpt2.attention.layer_norm_epsilon"] == pytest.approx(config.layer_norm_epsilon)
    assert (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"]) == ("gpt2", "gpt-2")
    assert (fields["tokenizer.ggml.bos_token_id"], fields["tokenizer.ggml.eos_token_id"]) == (0, 0)
    assert fields["tokenizer.ggml.add_bos_token"] is False
    assert fields["tokenizer.ggml.token_type"][:2] == [gguf.TokenType.CONTROL, gguf.TokenType.NORMAL]
    assert json.loads(fields["semdpo.settings"]) == {
        "template": "{prompt} Rephrase:", "system": None, "max_new_tokens": 40
    }  # fmt: skip


def test_what_the_file_says_of_tokens(rewriters: dict[str, Path], tmp_path: Path) -> None:
    for kind in BUILDERS:
        (tmp_path / kind).mkdir()
    llama = _fields(_exported(rewriters["llama"], tmp_path / "llama"))
    assert (llama["tokenizer.ggml.pre"], llama["tokenizer.ggml.add_bos_token"]) == ("llama-bpe", True)
    assert (llama["tokenizer.ggml.bos_token_id"], llama["tokenizer.ggml.eos_token_id"]) == (0, 1)
    assert "tokenizer.ggml.suppress_tokens" not in llama
    qwen = _fields(_exported(rewriters["qwen3"], tmp_path / "qwen3"))
    tokens, types = qwen["tokenizer.ggml.tokens"], qwen["tokenizer.ggml.token_type"]
    assert (qwen["tokenizer.ggml.pre"], qwen["tokenizer.ggml.add_bos_token"]) == ("qwen2", False)
    assert [tokens[qwen[f"tokenizer.ggml.{name}_token_id"]] for name in ("eos", "padding")] == [
        "<|im_end|>", "<|endoftext|>"
    ]  # fmt: skip
    kinds = {token: types[tokens.index(token)] for token in ("<|im_start|>", "<think>", "Ġred")}
    assert kinds == {
        "<|im_start|>": gguf.TokenType.CONTROL, "<think>": gguf.TokenType.USER_DEFINED, "Ġred": gguf.TokenType.NORMAL
    }  # fmt: skip
    assert types[-5:] == [gguf.TokenType.UNUSED] * 5
    assert len(set(tokens)) == len(tokens) == qwen["qwen3.vocab_size"]
    assert qwen["tokenizer.ggml.suppress_tokens"] == [tokens.index("<think>")]


def test_slowed_frequencies_are_written_as_factors(rewriters: dict[str, Path], tmp_path: Path) -> None:
    reader = gguf.GGUFReader(_exported(rewriters["llama"], tmp_path) / "m.gguf")
    (factors,) = [each.data for each in reader.tensors if each.name == "rope_freqs.weight"]
    assert factors.shape == (16,)
    assert factors[0] == pytest.approx(1)  # fast frequencies stay
    assert factors[-1] == pytest.approx(8)  # slow ones are divided by the factor
    linear = {"rope_type": "linear", "rope_theta": 20_000.0, "factor": 2.0}
    (tmp_path / "linear").mkdir()
    fields = _fields(_exported(trained.llama(tmp_path / "x", rope_parameters=linear), tmp_path / "linear"))
    assert (fields["llama.rope.scaling.type"], fields["llama.rope.scaling.factor"]) == ("linear", 2.0)


@pytest.mark.parametrize("system", [None, trained.SYSTEM])
def test_the_chat_template_asks_as_the_rewriter_was_trained(system: str | None, tmp_path: Path) -> None:
    folder = trained.as_chat(trained.qwen3(tmp_path / "qwen3"), system)
    written = _fields(_exported(folder, tmp_path))["tokenizer.chat_template"]
    user = [{"role": "user", "content": "a red ball"}]
    messages = user if system is None else [{"role": "system", "content": system}, *user]
    ours = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    assert "</think>" in ours
    rendered = jinja2.Template(written).render(messages=user, add_generation_prompt=True, enable_thinking=True)
    assert rendered == ours
    other = [{"role": "system", "content": "Be brief."}, *user]
    assert "Be brief." in jinja2.Template(written).render(messages=other, add_generation_prompt=True)


def test_a_plain_template_becomes_a_chat_template(tmp_path: Path) -> None:
    folder = trained.qwen3(tmp_path / "qwen3")
    (folder / "semdpo.json").write_text(json.dumps({"template": 'Say "{prompt}"\nin {{ other words:'}))
    written = _fields(_exported(folder, tmp_path))["tokenizer.chat_template"]
    messages = [{"role": "user", "content": "first"}, {"role": "user", "content": " a red ball\n"}]
    assert jinja2.Template(written).render(messages=messages) == 'Say "a red ball"\nin {{ other words:'


# ------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("kind", ["qwen2", "bloom"])
def test_other_architectures_are_refused(kind: str, tmp_path: Path) -> None:
    folder = tiny_models.causal(tmp_path / kind, kind)
    with pytest.raises(ModelError, match=f"of the kind {kind}; export to gguf supports GPT-2, Llama and Qwen3"):
        _exported(folder, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [kind]


YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 128}


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("gpt2", {"activation_function": "relu"}, "its activation is relu"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "its attention is scaled in another way"),
        ("llama", {"attention_bias": True}, "its projections have biases"),
        ("llama", {"hidden_act": "gelu"}, "its activation is gelu"),
        ("llama", {"rope_parameters": YARN}, "of the type yarn, and only default, linear, llama3 are known"),
        ("qwen3", {"rope_parameters": YARN}, "of the type yarn, and only default, linear are known"),
        ("qwen3", {"use_sliding_window": True}, "its attention has a sliding window"),
    ],
)
def test_what_llama_cpp_would_compute_differently_is_refused(
    kind: str, change: dict[str, Any], said: str, rewriters: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(rewriters[kind], tmp_path / "changed"))
    if change.get("attention_bias"):  # it needs weights of its own
        shutil.rmtree(folder)
        trained.llama(folder, **change)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelError, match=f"llama.cpp cannot compute '.*' \\(.*{said}"):
        _exported(folder, tmp_path)
    assert not (tmp_path / "m.gguf").exists()


def _gpt2_words() -> Any:
    return load_causal(resolve("tiny:gpt2").folder())[1]


def _digits(tokenizer: Any) -> None:
    own = tokenizer.backend_tokenizer
    own.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(), own.pre_tokenizer])


def _space_first(tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def _lower_case(tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()


def _merges_whole_words(tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.model.ignore_merges = True


def _merges_no_whole_words(tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.model.ignore_merges = False


@pytest.mark.parametrize(
    ("words", "change"),
    [
        (_gpt2_words, _digits),
        (_gpt2_words, _space_first),
        (_gpt2_words, _lower_case),
        (_gpt2_words, _merges_whole_words),
        (trained.qwen_tokenizer, _digits),
        (trained.llama_tokenizer, _merges_no_whole_words),
        (tiny_models.bert_tokenizer, lambda tokenizer: None),
    ],
)
def test_other_rules_of_tokenization_are_refused(words: Callable[[], Any], change: Callable[[Any], None]) -> None:
    tokenizer, model = words(), load_causal(resolve("tiny:gpt2").folder())[0]
    change(tokenizer)
    with pytest.raises(ModelError, match=r"llama\.cpp cannot tokenize as 'x' does"):
        vocabulary(tokenizer, model, "x")


def test_tokens_that_take_spaces_are_refused() -> None:
    model, tokenizer = load_causal(resolve("tiny:gpt2").folder())
    tokenizer.add_tokens([AddedToken("<x>", lstrip=True)])
    model.resize_token_embeddings(len(tokenizer))
    with pytest.raises(ModelError, match="the token '<x>' of 'x' takes spaces around it"):
        vocabulary(tokenizer, model, "x")


def test_more_tokens_than_rows_are_refused() -> None:
    model, tokenizer = load_causal(resolve("tiny:gpt2").folder())
    tokenizer.add_tokens(["<x>"])
    with pytest.raises(ModelError, match="has the token 668, but the model has 668 rows only"):
        vocabulary(tokenizer, model, "x")


def test_what_float16_cannot_hold_is_refused(tmp_path: Path) -> None:
    model, _ = load_causal(tiny_models.gpt2(tmp_path / "gpt2"))
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.weight[0, 0] = 1e5
    model.save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ModelError, match=r"blk.1.ffn_up.weight has the value 100000, which float16 cannot hold"):
        _exported(tmp_path / "gpt2", tmp_path, "f16")
    assert [path.name for path in tmp_path.iterdir()] == ["gpt2"], "no part of a file is left"
    _exported(tmp_path / "gpt2", tmp_path, "bf16")


def test_only_an_export_is_replaced(tmp_path: Path) -> None:
    gpt2 = tiny_models.gpt2(tmp_path / "gpt2")
    first = (_exported(gpt2, tmp_path) / "m.gguf").read_bytes()
    assert (_exported(gpt2, tmp_path) / "m.gguf").read_bytes() == first
    (tmp_path / "m.gguf").write_bytes(b"GGUF of somebody else")
    with pytest.raises(StoreError, match="was not exported by semdpo and would be lost"):
        _exported(gpt2, tmp_path)
    assert (tmp_path / "m.gguf").read_bytes() == b"GGUF of somebody else"
    (tmp_path / "m.gguf").unlink()
    (tmp_path / "m.gguf").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="is a link"):
        _exported(gpt2, tmp_path)


def test_a_rewriter_is_asked_as_its_settings_say(tmp_path: Path) -> None:
    folder = tiny_models.gpt2(tmp_path / "gpt2")
    assert source.find(str(folder)).form == source.Form("{prompt} Rephrase:", None, 40)
    trained.as_chat(folder)
    assert source.find(str(folder)).form == source.Form(None, trained.SYSTEM, 48)
    for values, said in (({"system": 3}, "system must be a text"), ({"max_new_tokens": 0}, "max_new_tokens must be")):
        (folder / "semdpo.json").write_text(json.dumps({"template": "chat"} | values))
        with pytest.raises(ModelError, match=said):
            source.find(str(folder))
