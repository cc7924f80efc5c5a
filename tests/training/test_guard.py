"""The trainer watches itself: no randomness, and a first step whose values are known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from semdpo.data.records import Curve
from semdpo.errors import ConfigError, DataError, ModelError
from semdpo.models.loading import quiet
from semdpo.recipe.schema import TrainConfig
from semdpo.training.arguments import training_arguments
from semdpo.training.batches import Example
from semdpo.training.guard import refuse_another_start
from semdpo.training.packing import Group
from semdpo.training.prepare import prepare
from semdpo.training.reference import reference_logps
from semdpo.training.trainer import ExampleTrainer
from tests.training import architectures

WITH_REFERENCE: dict[str, dict[str, Any]] = {
    "dpo": {}, "sem_dpo": {"alpha": 2.0}, "beta_dpo": {}, "ipo": {}, "kto": {}, "additive": {"strength": 0.5},
}  # fmt: skip
# Whatever of a configuration sounds like dropout.
DROPS = {
    "llama": {"attention_dropout": 0.3},
    "mistral": {"attention_dropout": 0.3},
    "qwen3": {"attention_dropout": 0.3},
    "gemma3_text": {"attention_dropout": 0.3},
    "phi": {"attention_dropout": 0.3, "resid_pdrop": 0.3, "embd_pdrop": 0.3},
    "phi3": {"attention_dropout": 0.3, "resid_pdrop": 0.3, "embd_pdrop": 0.3},
    "starcoder2": {"attention_dropout": 0.3, "residual_dropout": 0.3, "embedding_dropout": 0.3},
    "stablelm": {"attention_dropout": 0.3, "hidden_dropout": 0.3},
    "gpt2": {"attn_pdrop": 0.3, "resid_pdrop": 0.3, "embd_pdrop": 0.3},
    "gptj": {"attn_pdrop": 0.3, "resid_pdrop": 0.3, "embd_pdrop": 0.3},
    "gpt_bigcode": {"attn_pdrop": 0.3, "resid_pdrop": 0.3, "embd_pdrop": 0.3},
    "gpt_neo": {"attention_dropout": 0.3, "resid_dropout": 0.3, "embed_dropout": 0.3},
    "gpt_neox": {"attention_dropout": 0.3, "hidden_dropout": 0.3},
    "opt": {"dropout": 0.3, "attention_dropout": 0.3, "layerdrop": 0.3},
    "bloom": {"attention_dropout": 0.3, "hidden_dropout": 0.3},
    "falcon": {"attention_dropout": 0.3, "hidden_dropout": 0.3},
}


def _groups(count: int = 6) -> list[Group]:
    generator = torch.Generator().manual_seed(5)

    def tokens(least: int) -> tuple[int, ...]:
        length = int(torch.randint(least, least + 9, (1,), generator=generator))
        return tuple(torch.randint(1, 90, (length,), generator=generator).tolist())

    return [Group(tokens(3), (tokens(2), tokens(2))) for _ in range(count)]


def _examples(model: Any, can_pack: bool) -> list[Example]:
    groups = _groups()
    return [
        Example(
            f"pair {k}",
            group,
            known,
            distance=k / 10,
            weight=1 + k / 3,
            scores=(1.0 + k, 0.0),
            fidelities=(k % 3 - 1.0, 0.0),
        )
        for k, (group, known) in enumerate(zip(groups, reference_logps(model, groups, can_pack), strict=True))
    ]


def _trainer(
    model: Any, examples: list[Example], folder: Path, objective: str = "dpo", can_pack: bool | None = None, **more: Any
) -> ExampleTrainer:
    settings = {"name": objective, **WITH_REFERENCE.get(objective, {})}
    goal = TrainConfig.model_validate({"methods": {"m": settings}}).methods["m"]
    arguments = training_arguments(folder, learning_rate=1e-3, **more)
    return ExampleTrainer(model, arguments, examples, objective=goal, beta=0.1, batch_size=3, can_pack=can_pack)


def _of(curves: list[Curve], name: str) -> list[float]:
    return [each.value for each in curves if each.name == name]


@pytest.mark.parametrize("kind", DROPS)
def test_no_form_of_dropout_is_at_work_in_preference_training(kind: str, tmp_path: Path) -> None:
    settings = architectures.config(kind, **DROPS[kind])
    model = architectures.model(settings)
    model.train()
    ids = torch.randint(1, 90, (2, 20), generator=torch.Generator().manual_seed(0))
    assert not torch.equal(model(ids).logits, model(ids).logits), "else the test would show nothing"
    model.eval()
    can_pack = prepare(model)
    trainer = _trainer(model, _examples(model, can_pack), tmp_path, can_pack=can_pack)
    trainer.train()
    mean = _of(trainer.curves, "mean_weight")[0]
    assert _of(trainer.curves, "loss")[0] == pytest.approx(math.log(2) * mean, abs=1e-5)
    assert _of(trainer.curves, "chosen_logp_change")[0] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox"])
def test_checkpointed_layers_draw_nothing_either(kind: str, tmp_path: Path) -> None:
    model = architectures.model(architectures.config(kind, **DROPS[kind]))
    can_pack = prepare(model)
    trainer = _trainer(model, _examples(model, can_pack), tmp_path, can_pack=can_pack, activation_checkpointing=True)
    trainer.train()
    assert _of(trainer.curves, "chosen_logp_change")[0] == pytest.approx(0, abs=1e-4)
    assert any(each.gradient_checkpointing for each in model.modules() if hasattr(each, "gradient_checkpointing"))


@pytest.mark.parametrize("can_pack", [True, False])
def test_a_model_that_is_random_even_so_is_refused(can_pack: bool, tmp_path: Path) -> None:
    model = architectures.model(architectures.config("llama"))
    can_pack = prepare(model) and can_pack
    examples = _examples(model, can_pack)
    model.model.layers[0].register_forward_hook(lambda _m, _i, found: found + 0.1 * torch.randn_like(found))
    with pytest.raises(ConfigError, match=r"two forward passes .* dropout"):
        _trainer(model, examples, tmp_path, can_pack=can_pack).train()


@pytest.mark.parametrize("objective", WITH_REFERENCE)
def test_every_objective_begins_at_its_reference(objective: str, tmp_path: Path) -> None:
    model = architectures.model(architectures.config("llama"))
    can_pack = prepare(model)
    trainer = _trainer(model, _examples(model, can_pack), tmp_path, objective, can_pack)
    trainer.train()
    for name in ("chosen_logp_change", "rejected_logp_change", "reward_margin"):
        assert _of(trainer.curves, name)[0] == pytest.approx(0, abs=1e-4)
    assert abs(_of(trainer.curves, "chosen_logp_change")[1]) > 1e-3


@pytest.mark.parametrize("objective", WITH_REFERENCE)
@pytest.mark.parametrize("can_pack", [True, False])
def test_another_models_reference_is_noticed(objective: str, can_pack: bool, tmp_path: Path) -> None:
    """As when the model at the path of the reference has changed."""
    settings = architectures.config("llama")
    other, model = architectures.model(settings), architectures.model(settings)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight *= 1.1
    can_pack = prepare(model) and prepare(other) and can_pack
    trainer = _trainer(model, _examples(other, can_pack), tmp_path, objective, can_pack)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ModelError, match=r"the model at the path .* dropout .* adapters"):
        trainer.train()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_adapters_that_the_reference_lacks_are_noticed(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = architectures.model(architectures.config("llama"))
    can_pack = prepare(model)
    examples = _examples(model, can_pack)
    torch.manual_seed(0)
    with quiet():
        adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, init_lora_weights=False))
    with pytest.raises(ModelError, match="adapters"):
        _trainer(adapted, examples, tmp_path, can_pack=can_pack).train()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("value", [-1.0, 0.0, float("nan")])
def test_numbers_that_are_no_reference_are_noticed(value: float, precision: str, tmp_path: Path) -> None:
    model = architectures.model(architectures.config("llama"))
    can_pack = prepare(model)
    examples = [replace(each, reference=(value, value)) for each in _examples(model, can_pack)]
    with pytest.raises((ModelError, DataError)):
        _trainer(model, examples, tmp_path, can_pack=can_pack, precision=precision).train()


@pytest.mark.parametrize("objective", ["dpo", "ipo"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "bloom"])
def test_rounding_alone_is_never_refused(kind: str, objective: str, tmp_path: Path) -> None:
    """The reference from padded rows in float32, the policy packed and in bfloat16."""
    model = architectures.model(architectures.config(kind, initializer_range=0.02))
    examples = _examples(model, False)
    can_pack = prepare(model)
    _trainer(model, examples, tmp_path, objective, can_pack, precision="bfloat16").train()


@pytest.mark.parametrize(("objective", "known"), [("dpo", math.log(2)), ("sem_dpo", math.log(2)), ("ipo", 25.0)])
def test_a_first_loss_that_is_not_the_known_one_is_noticed(objective: str, known: float, tmp_path: Path) -> None:
    """As of a formula that was changed, or of weights that were applied twice."""
    model = architectures.model(architectures.config("llama"))
    trainer = _trainer(model, _examples(model, False), tmp_path, objective, False)
    batch = trainer.train_dataset[0]
    logps = torch.tensor(batch.reference, dtype=torch.float32)
    right = trainer.criterion.losses(logps, batch).losses
    torch.testing.assert_close(right.double(), known * trainer.criterion.weights(batch.examples))
    refuse_another_start(trainer.criterion, right, logps, batch, "float32")
    with pytest.raises(ModelError, match=f"differs from its known value, {known:.4g} times the weight"):
        refuse_another_start(trainer.criterion, 1.001 * right, logps, batch, "float32")


@pytest.mark.parametrize("objective", ["kto", "beta_dpo"])
def test_what_compares_pairs_needs_two(objective: str, tmp_path: Path) -> None:
    model = architectures.model(architectures.config("llama"))
    examples = _examples(model, False)
    with pytest.raises(DataError, match="there is only one pair"):
        _trainer(model, examples[:1], tmp_path, objective, False)
    goal = TrainConfig.model_validate({"methods": {"m": {"name": objective}}}).methods["m"]
    with pytest.raises(ConfigError, match="batch_size to 2"):
        ExampleTrainer(model, training_arguments(tmp_path, learning_rate=1e-3), examples, objective=goal, batch_size=1)


def test_kto_needs_two_prompts(tmp_path: Path) -> None:
    model = architectures.model(architectures.config("llama"))
    examples = _examples(model, False)
    same = [replace(each, group=replace(each.group, prompt=examples[0].group.prompt)) for each in examples]
    with pytest.raises(DataError, match="all pairs have the same prompt"):
        _trainer(model, same, tmp_path, "kto", False)
