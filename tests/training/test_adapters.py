"""Adapters: training them, training on from them, and what becomes of them in the model's weights."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

pytest.importorskip("peft")
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from semdpo.data.records import Curve
from semdpo.errors import ModelError
from semdpo.models.device import Compute
from semdpo.models.loading import quiet
from semdpo.models.rewriter import load_causal, load_rewriter
from semdpo.progress import silent
from semdpo.recipe.schema import TrainConfig
from semdpo.training.arguments import training_arguments
from semdpo.training.batches import Example, encode
from semdpo.training.logps import group_logps, padded_logps
from semdpo.training.preference import train
from semdpo.training.prepare import prepare
from semdpo.training.reference import reference_logps
from semdpo.training.trainer import ExampleTrainer
from tests import tiny_models
from tests.training.test_trainer import PAIRS

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.causal(tmp_path_factory.mktemp("llama") / "model", "llama")


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.gpt2(tmp_path_factory.mktemp("gpt2") / "model")


def _train(base: Path | str, out: Path, objective: dict[str, Any] | None = None, **changes: Any) -> list[Curve]:
    values = {"learning_rate": 1e-2, "epochs": 1, "batch_size": 5, "precision": "float32", "beta": 0.1}
    config = TrainConfig.model_validate(values | changes | {"methods": {"m": objective or {"name": "dpo"}}})
    return train(PAIRS, str(base), config.methods["m"], config, out, out.parent / "cache", silent)


def _of(curves: list[Curve], name: str) -> list[float]:
    return [each.value for each in curves if each.name == name]


def _logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval()(IDS).logits
    return found


def _with_peft(base: Path, adapters: Path) -> Tensor:
    """What PEFT's own users get of the two folders."""
    with quiet():
        return _logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapters))


@pytest.mark.parametrize("lora", [{"rank": 3}, None])
@pytest.mark.parametrize("objective", ["dpo", "sem_dpo", "kto", "orpo", "sft"])
def test_training_goes_on_from_adapters_as_they_are(
    objective: str, lora: dict[str, Any] | None, tied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _train(tied, tmp_path / "l1", {"name": "sft"}, lora={"rank": 4, "alpha": 64}, epochs=3)
    assert (tmp_path / "l1/adapter_model.safetensors").is_file()
    first, _ = load_causal(tmp_path / "l1")
    assert not torch.allclose(_logits(first), _logits(load_causal(tied)[0]), atol=1e-2)
    curves = _train(tmp_path / "l1", tmp_path / "l2", {"name": objective}, lora=lora, learning_rate=1e-12)
    assert "holds adapters; training starts from its base with their weights added" in capsys.readouterr().err
    if objective == "dpo":
        assert _of(curves, "loss")[0] == pytest.approx(math.log(2), abs=1e-5)
    if objective in ("dpo", "sem_dpo", "kto"):
        assert _of(curves, "chosen_logp_change")[0] == pytest.approx(0, abs=1e-4)
    if objective == "sft":
        assert _of(curves, "loss")[0] < _of(_train(tied, tmp_path / "l0", {"name": "sft"}), "loss")[0] - 0.05
    second, _ = load_causal(tmp_path / "l2")
    torch.testing.assert_close(_logits(second), _logits(first), atol=1e-5, rtol=0)
    assert (tmp_path / "l2/model.safetensors").is_file()  # a whole model, which every tool reads
    torch.testing.assert_close(_logits(AutoModelForCausalLM.from_pretrained(tmp_path / "l2")), _logits(first))
    one, two = (load_rewriter(tmp_path / name, temperature=0.0) for name in ("l1", "l2"))
    assert one.rewrite(["a red cat", "a dog"], 1, 0) == two.rewrite(["a red cat", "a dog"], 1, 0)


def test_what_is_learnt_on_top_of_adapters_is_saved(tied: Path, tmp_path: Path) -> None:
    _train(tied, tmp_path / "l1", {"name": "sft"}, lora={"rank": 4})
    curves = _train(tmp_path / "l1", tmp_path / "l2", lora={"rank": 4, "alpha": 64}, epochs=4)
    assert _of(curves, "loss")[-1] < 0.6
    again = _train(tmp_path / "l2", tmp_path / "l3", learning_rate=1e-12)
    assert _of(again, "loss")[0] == pytest.approx(math.log(2), abs=1e-5)
    assert not torch.allclose(*(_logits(load_causal(tmp_path / name)[0]) for name in ("l1", "l2")), atol=1e-2)


@pytest.mark.parametrize("kind", ["llama", "tied"])
def test_an_adapted_head_is_trained_and_used(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    base = request.getfixturevalue(kind)
    layer = "q_proj" if kind == "llama" else "c_attn"
    curves = _train(base, tmp_path / "out", lora={"rank": 4, "target_modules": [layer, "lm_head"]}, epochs=4)
    assert _of(curves, "loss")[0] == pytest.approx(math.log(2), abs=1e-5)
    assert _of(curves, "loss")[-1] < 0.65
    saved = load_file(tmp_path / "out/adapter_model.safetensors")
    moved = {name: float(value.abs().max()) for name, value in saved.items() if "lora_B" in name}
    assert all(value > 1e-4 for value in moved.values()), moved
    assert any("lm_head" in name for name in moved)
    assert not any("embed" in name or "base_layer" in name for name in saved)
    ours, _ = load_causal(tmp_path / "out")
    torch.testing.assert_close(_logits(ours), _with_peft(base, tmp_path / "out"), atol=1e-4, rtol=1e-4)


def test_a_head_with_adapters_parts_from_the_embeddings(tied: Path, tmp_path: Path) -> None:
    _train(tied, tmp_path / "l1", lora={"rank": 4, "alpha": 64, "target_modules": ["lm_head"]}, epochs=4)
    model, _ = load_causal(tmp_path / "l1")
    plain, _ = load_causal(tied)
    assert plain.lm_head.weight is plain.transformer.wte.weight
    assert torch.equal(model.transformer.wte.weight, plain.transformer.wte.weight)
    assert not torch.equal(model.lm_head.weight, plain.lm_head.weight)
    _train(tmp_path / "l1", tmp_path / "l2", learning_rate=1e-12)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "l2")
    torch.testing.assert_close(_logits(again), _with_peft(tied, tmp_path / "l1"), atol=1e-4, rtol=1e-4)


def test_embeddings_and_head_stay_one_where_no_adapter_parts_them(tied: Path, tmp_path: Path) -> None:
    _train(tied, tmp_path / "l1", lora={"rank": 4})
    model, _ = load_causal(tmp_path / "l1")
    assert model.lm_head.weight is model.transformer.wte.weight
    assert model.config.tie_word_embeddings


ADAPTED: dict[str, dict[str, Any]] = {
    "dora": {"use_dora": True, "target_modules": ["q_proj", "down_proj"]},
    "dora on the head": {"use_dora": True, "target_modules": ["v_proj", "lm_head"]},
    "a head of its own": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "embeddings of their own": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "adapted embeddings": {"target_modules": ["embed_tokens", "lm_head"]},
    "rank-stabilised": {"use_rslora": True, "target_modules": "all-linear"},
}


@pytest.mark.parametrize("kind", ADAPTED)
def test_every_kind_of_adapter_is_trained_and_used(kind: str, llama: Path, tmp_path: Path) -> None:
    """A user's own PEFT model in ExampleTrainer."""
    model, tokenizer = load_causal(llama)
    torch.manual_seed(0)
    with quiet():
        model = get_peft_model(model, LoraConfig(r=2, **ADAPTED[kind]))
    can_pack = prepare(model)
    assert can_pack
    groups = encode(tokenizer, "{prompt}", [p.prompt for p in PAIRS], [(p.chosen, p.rejected) for p in PAIRS])
    logps = reference_logps(model, groups, can_pack)
    examples = [Example(str(i), *each) for i, each in enumerate(zip(groups, logps, strict=True))]
    objective = TrainConfig.model_validate({"methods": {"m": {"name": "dpo"}}}).methods["m"]
    arguments = training_arguments(tmp_path, learning_rate=1e-2)
    trainer = ExampleTrainer(model, arguments, examples, objective=objective, batch_size=5, epochs=2, can_pack=can_pack)
    before = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
    trainer.train()
    assert _of(trainer.curves, "loss")[0] == pytest.approx(math.log(2), abs=1e-5)
    now = dict(model.named_parameters())
    assert [name for name in before if torch.equal(now[name], before[name])] == [], "these have not moved"
    with torch.no_grad():
        packed, alone = group_logps(model, groups, can_pack), padded_logps(model, groups)
    torch.testing.assert_close(packed, alone, atol=1e-4, rtol=1e-5)
    with quiet():
        model.save_pretrained(tmp_path / "saved")
    merged, _ = load_causal(tmp_path / "saved")
    torch.testing.assert_close(_logits(merged), _logits(model), atol=1e-4, rtol=1e-4)


def test_first_weights_follow_the_seed_and_nothing_else_is_drawn(tied: Path, tmp_path: Path) -> None:
    def first(seed: int, name: str) -> dict[str, Tensor]:
        _train(tied, tmp_path / name, lora={"rank": 4}, seed=seed, learning_rate=1e-12)
        return {k: v for k, v in load_file(tmp_path / name / "adapter_model.safetensors").items() if "lora_A" in k}

    def states() -> tuple[Any, ...]:
        return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()

    before = states()
    one = first(1, "one")
    assert states() == before
    torch.manual_seed(99)
    again, two = first(1, "again"), first(2, "two")
    for name, value in one.items():
        torch.testing.assert_close(value, again[name], atol=1e-6, rtol=0)
        assert not torch.allclose(value, two[name], atol=1e-3)


def test_adapters_name_their_base_for_every_folder_and_tool(
    tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tied.parent)
    _train("model", tmp_path / "out", lora={"rank": 4})
    monkeypatch.chdir(tmp_path)
    assert Path(json.loads((tmp_path / "out/adapter_config.json").read_text())["base_model_name_or_path"]) == tied
    torch.testing.assert_close(
        _logits(load_causal(Path("out"))[0]), _with_peft(tied, tmp_path / "out"), atol=1e-5, rtol=0
    )


def _adapters(base: Path, folder: Path, **more: Any) -> Path:
    """A folder as PEFT alone writes it, without a tokenizer."""
    model, _ = load_causal(base)
    with quiet():
        get_peft_model(model, LoraConfig(r=2, init_lora_weights=False, **more)).save_pretrained(folder)
    return folder


def test_adapters_without_a_tokenizer_read_with_their_bases(llama: Path, tmp_path: Path) -> None:
    folder = _adapters(llama, tmp_path / "adapters")
    model, tokenizer = load_causal(folder)
    assert tokenizer.get_vocab() == load_causal(llama)[1].get_vocab()
    torch.testing.assert_close(_logits(model), _with_peft(llama, folder), atol=1e-4, rtol=1e-4)


def test_adapters_in_half_precision_have_the_constants_of_their_base(llama: Path, tmp_path: Path) -> None:
    """Rotary positions are computed in float32; their frequencies, once rounded, would turn far tokens otherwise."""
    half = Compute(torch.device("cpu"), torch.bfloat16)
    found, base = (load_causal(each, where=half)[0] for each in (_adapters(llama, tmp_path / "adapters"), llama))
    assert {weight.dtype for weight in found.parameters()} == {torch.bfloat16}
    wanted = dict(base.named_buffers())
    assert len(wanted) > 0
    for name, values in found.named_buffers():
        torch.testing.assert_close(values, wanted[name], rtol=0, atol=0)


def _edited(folder: Path, base: object) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": base}))
    return folder


@pytest.mark.parametrize("base", ["/no/such/folder", None, "", 3])
def test_adapters_without_their_base_are_refused(base: object, llama: Path, tmp_path: Path) -> None:
    folder = _edited(_adapters(llama, tmp_path / "adapters"), base)
    with pytest.raises(ModelError, match="base_model_name_or_path"):
        load_causal(folder)


def test_adapters_of_themselves_are_refused(llama: Path, tmp_path: Path) -> None:
    folder = _adapters(llama, tmp_path / "adapters")
    with pytest.raises(ModelError, match="base_model_name_or_path"):
        load_causal(_edited(folder, str(folder)))


@pytest.mark.parametrize("fault", ["missing", "foreign", "another base"])
def test_adapters_that_lose_weights_are_refused(fault: str, llama: Path, tied: Path, tmp_path: Path) -> None:
    folder = _adapters(llama, tmp_path / "adapters")
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if "lora_B" in name)
    if fault == "missing":
        del weights[name]
    elif fault == "foreign":
        weights[name.replace("layers.0", "layers.7")] = weights[name].clone()
    else:
        _edited(folder, str(tied))
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(ModelError, match=r"adapters"):
        load_causal(folder)
