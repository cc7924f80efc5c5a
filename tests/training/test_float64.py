"""Every objective on every kind of model, against the plainest training there is, in float64.

``plain`` reads one sequence at a time with transformers' own eager attention and has its own losses and its own AdamW;
``ExampleTrainer`` can_pack or pads its batches. Both must go the same way, to the last digits.
"""

from __future__ import annotations

import functools
import gc
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import TrainerCallback

from semdpo.errors import ConfigError
from semdpo.recipe.schema import TrainConfig
from semdpo.training import logps
from semdpo.training.arguments import training_arguments
from semdpo.training.batches import Example
from semdpo.training.packing import Group
from semdpo.training.prepare import prepare
from semdpo.training.reference import reference_logps
from semdpo.training.trainer import ExampleTrainer
from tests.training import plain

VOCABULARY, WINDOW, POSITIONS = 97, 8, 64
STEPS, BATCH, ORDER = 5, 3, 1
TIGHT = 1e-9
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
ENDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "vocab_size": VOCABULARY}
LONG, SHARED = {"max_position_embeddings": POSITIONS}, {"num_key_value_heads": 2}
SLIDING = {"sliding_window": WINDOW}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS}
OPT = {"ffn_dim": 48, "word_embed_proj_dim": 32}
BLOOM = {"hidden_size": 32, "n_layer": 2, "n_head": 4}
GEMMA = {"head_dim": 8, "layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 8}
# Each with its class, its settings, its settings of dropout, and whether it can be packed.
MODELS: dict[str, tuple[str, dict[str, Any], tuple[str, ...], bool]] = {
    "llama": ("Llama", SHAPE | SHARED | LONG, ("attention_dropout",), True),
    "gpt2": ("GPT2", GPT2, ("embd_pdrop", "attn_pdrop", "resid_pdrop"), True),
    "qwen3": ("Qwen3", SHAPE | SHARED | LONG | {"head_dim": 8}, ("attention_dropout",), True),
    "mistral": ("Mistral", SHAPE | SHARED | LONG | SLIDING, ("attention_dropout",), True),
    "gemma3": ("Gemma3", SHAPE | SHARED | LONG | SLIDING | GEMMA, ("attention_dropout",), True),
    "opt": ("OPT", SHAPE | LONG | OPT, ("dropout", "attention_dropout"), True),
    "gpt_neox": ("GPTNeoX", SHAPE | LONG, ("attention_dropout", "hidden_dropout"), True),
    "bloom": ("Bloom", BLOOM, ("attention_dropout", "hidden_dropout"), False),
    "phi3": ("Phi3", SHAPE | SHARED | LONG, ("attention_dropout", "resid_pdrop", "embd_pdrop"), True),
    "phi": ("Phi", SHAPE | LONG, ("attention_dropout", "resid_pdrop", "embd_pdrop"), True),  # its head has a bias
}
CLASSES = {"GPT2": "GPT2LMHeadModel"}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "sft": {},
    "dpo": {},
    "sem_dpo": {"alpha": 3.0},
    "beta_dpo": {"share": 0.7, "sensitivity": 0.5},
    "ipo": {},
    "kto": {"desirable_weight": 1.3, "undesirable_weight": 0.8},
    "orpo": {"odds_weight": 0.4},
    "simpo": {"reward_scale": 2.3, "margin": 0.7},
    "additive": {"strength": 0.7},
}


@functools.cache
def _weights(kind: str) -> dict[str, torch.Tensor]:
    """Of a model that is far from the uniform one, biases and norms included."""
    torch.manual_seed(0)
    model = _empty(kind)
    with torch.no_grad():
        for each in model.parameters():
            each.copy_(0.2 * torch.randn_like(each) + (each if each.ndim < 2 else 0))
    return model.state_dict()


def _empty(kind: str, dropout: float = 0.0, **more: Any) -> Any:
    name, settings, dropouts, _ = MODELS[kind]
    text = "Text" if name == "Gemma3" else ""
    config = getattr(transformers, f"{name}{text}Config")
    return getattr(transformers, CLASSES.get(name, f"{name}ForCausalLM"))(
        config(**ENDS, **settings, **dict.fromkeys(dropouts, dropout), **more)
    )


def _model(kind: str, **more: Any) -> Any:
    model = _empty(kind, **more)
    model.load_state_dict(_weights(kind))
    return model


@functools.cache
def _rows(count: int = 14) -> tuple[plain.Row, ...]:
    """Pairs of prompts that come back, of very different lengths, weights and distances; one is a tie."""
    draw = random.Random(1)

    def text(length: int) -> plain.Tokens:
        return tuple(draw.randrange(1, VOCABULARY) for _ in range(length))

    def two() -> tuple[float, float]:
        return draw.gauss(0, 1), draw.gauss(0, 1)

    prompts = [text(length) for length in (1, 2, 2, 3, 4, 7)]
    rows = []
    for k in range(count):
        lengths = (1, 2) if k < 3 else (draw.randrange(1, 13), draw.randrange(1, 13))
        last = k >= count - 2  # the two longest have one prompt, and nothing else is in their step
        prompt = prompts[5] if last else prompts[k % 5]
        chosen, rejected = (text(12 + k) if last else text(length) for length in lengths)
        scores = ((0.5, 0.5), (-1.0, -1.0)) if k == 4 else (two(), two())
        rows.append(plain.Row(prompt, chosen, rejected, draw.uniform(0.2, 2), draw.uniform(0, 0.9), *scores))
    return tuple(rows)


@pytest.fixture(autouse=True, scope="module")
def _quick_collections() -> Iterator[None]:
    """accelerate collects garbage after each training, which takes longer than the training itself."""
    gc.freeze()
    yield
    gc.unfreeze()


class _Gradients(TrainerCallback):  # type: ignore[misc]
    """Those of the first update, as the optimizer sees them."""

    def __init__(self) -> None:
        self.found: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        if not self.found:
            for name, each in model.named_parameters():
                self.found[name] = torch.zeros_like(each) if each.grad is None else each.grad.clone()


def _settings(objective: str, **more: Any) -> plain.Settings:
    return plain.Settings(objective, **OBJECTIVES[objective], **more)


def _trainer(model: Any, rows: tuple[plain.Row, ...], settings: plain.Settings, folder: Path, **more: Any) -> Any:
    """The product, as its stages call it."""
    groups = [Group(row.prompt, (row.chosen, row.rejected)) for row in rows]
    can_pack = prepare(model, max(group.longest for group in groups))
    can_pack = more.pop("can_pack", can_pack)
    known = reference_logps(model, groups, can_pack)
    examples = [
        Example(
            *(str(k), group, reference, row.distance, row.weight),
            scores=row.preferences,
            fidelities=row.fidelities,
        )
        for k, (row, group, reference) in enumerate(zip(rows, groups, known, strict=True))
    ]
    named = {"name": settings.objective, "nll_coef": settings.nll_coef, "normalize": settings.normalize}
    goal = TrainConfig.model_validate({"methods": {"m": named | OBJECTIVES[settings.objective]}}).methods["m"]
    return ExampleTrainer(
        model,
        training_arguments(folder, learning_rate=settings.learning_rate, seed=settings.seed, use_cpu=True),
        examples,
        objective=goal,
        beta=settings.beta,
        can_pack=can_pack,
        **({"batch_size": BATCH, "warmup_ratio": settings.warmup / STEPS, "order_seed": ORDER} | more),
    )


def _steps(trainer: Any) -> list[list[int]]:
    """Which rows are learnt in which update: the product's order, which is not what is tested here."""
    parts = trainer.args.gradient_accumulation_steps
    plan = trainer.train_dataset
    found = [
        [int(each.name) for batch in plan[k : k + parts] for each, real in zip(*batch[:2], strict=True) if real]
        for k in range(0, len(plan), parts)
    ]
    rows = sorted(row for step in found for row in step)
    assert rows == list(range(len(rows))), "each row once"
    return found


@functools.cache
def _known(kind: str) -> dict[tuple[plain.Tokens, plain.Tokens], float]:
    """What the plain way found the reference to say; all objectives start from the same model."""
    return {}


def _plain(kind: str, rows: tuple[plain.Row, ...], settings: plain.Settings) -> plain.Training:
    model = plain.widened(_model(kind, attn_implementation="eager").eval())
    return plain.Training(model, rows, settings, _known(kind))


def _curve(trainer: Any, name: str) -> list[float]:
    return [curve.value for curve in trainer.curves if curve.name == name]


def _compare(kind: str, settings: plain.Settings, folder: Path, rows: tuple[plain.Row, ...], **more: Any) -> Any:
    """Trains twice and compares losses, gradients and parameters; returns the product's trainer."""
    model = plain.widened(_model(kind, dropout=0.0 if settings.objective == "sft" else 0.1))
    trainer = _trainer(model, rows, settings, folder, **more)
    steps = _steps(trainer)
    assert len(steps) == STEPS
    assert len(steps[-1]) < len(steps[0]), "the last one is short"
    gradients = _Gradients()
    trainer.add_callback(gradients)
    trainer.train()
    wanted = _plain(kind, rows, settings).run(steps)
    assert _curve(trainer, "loss") == pytest.approx(wanted.losses, rel=0, abs=TIGHT)
    for name in wanted.more[0]:
        assert _curve(trainer, name) == pytest.approx([each[name] for each in wanted.more], rel=TIGHT, abs=TIGHT)
    norms = [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]
    assert norms == pytest.approx(wanted.norms, rel=TIGHT)
    for name, value in model.named_parameters():
        torch.testing.assert_close(gradients.found[name], wanted.gradients[name], rtol=TIGHT, atol=1e-12)
        torch.testing.assert_close(value.detach(), wanted.parameters[name], rtol=0, atol=TIGHT)
    return trainer


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("kind", MODELS)
def test_five_updates_are_the_plain_ones(
    kind: str, objective: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with plain.counted(monkeypatch, logps, "packed_logps", "padded_logps") as calls:
        trainer = _compare(kind, _settings(objective), tmp_path, _rows())
    assert trainer.can_pack == MODELS[kind][3]
    windowed = "sliding_window" in MODELS[kind][1]
    assert bool(calls["packed_logps"]) == trainer.can_pack
    assert bool(calls["padded_logps"]) == (windowed or not trainer.can_pack), "what is longer than a window is padded"


@pytest.mark.parametrize("kind", [kind for kind, (*_, can_pack) in MODELS.items() if can_pack])
def test_padded_batches_are_the_plain_ones(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with plain.counted(monkeypatch, logps, "packed_logps") as calls:
        _compare(kind, _settings("sem_dpo"), tmp_path, _rows(), can_pack=False)
    assert not calls["packed_logps"]


@pytest.mark.parametrize("objective", ["sft", "dpo", "sem_dpo", "ipo", "orpo", "simpo", "additive"])
@pytest.mark.parametrize("kind", ["gpt2", "mistral", "bloom"])
def test_gradients_are_accumulated_as_in_one_batch(kind: str, objective: str, tmp_path: Path) -> None:
    """The last step has two rows of four, so that its second micro-batch only fills up."""
    _compare(kind, _settings(objective), tmp_path, _rows(18), batch_size=4, micro_batch_size=2)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_warm_up_is_the_plain_one(objective: str, tmp_path: Path) -> None:
    """Its first update has a rate of 0, so that the policy is still the reference in the second step."""
    _compare("mistral", _settings(objective, warmup=2), tmp_path, _rows())


@pytest.mark.parametrize("kind", ["gpt2", "bloom"])
def test_rounding_draws_no_pairs_while_the_policy_is_the_reference(kind: str, tmp_path: Path) -> None:
    trainer = _trainer(_model(kind), _rows(), _settings("beta_dpo", warmup=2), tmp_path)
    trainer.train()
    assert [value == 1 for value in _curve(trainer, "kept_share")] == [True, True, False, False, False]
    assert [value == 0 for value in _curve(trainer, "gap_std")] == [True, True, False, False, False]


@pytest.mark.parametrize("objective", ["kto", "beta_dpo"])
def test_what_judges_a_whole_batch_takes_no_part_of_one(objective: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="remove micro_batch_size"):
        _trainer(_model("gpt2"), _rows(), _settings(objective), tmp_path, batch_size=4, micro_batch_size=2)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_added_likelihood_and_the_mean_over_weights_are_the_plain_ones(objective: str, tmp_path: Path) -> None:
    normalize = "pairs" if objective == "beta_dpo" else "mean"
    coefficient = 0.0 if objective == "sft" else 0.3
    _compare("gpt_neox", _settings(objective, nll_coef=coefficient, normalize=normalize), tmp_path, _rows())


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("kind", MODELS)
def test_the_first_loss_in_float32(kind: str, objective: str, tmp_path: Path) -> None:
    """The product as it is used: float32 weights, nothing widened."""
    rows, settings = _rows(), _settings(objective)
    trainer = _trainer(_model(kind), rows, settings, tmp_path, steps=1)
    first = [rows[int(each.name)] for each in trainer.train_dataset[0].examples]
    trainer.train()
    with torch.no_grad():
        wanted = float(_plain(kind, rows, settings).loss(first))
    assert _curve(trainer, "loss")[0] == pytest.approx(wanted, rel=1e-6, abs=0)


def test_the_models_are_what_they_seem() -> None:
    """Sequences are longer than the windows, and shorter ones are there too; a head has a bias; text is not flat."""
    lengths = [len(row.prompt) + len(each) for row in _rows() for each in (row.chosen, row.rejected)]
    assert min(lengths) < WINDOW < max(lengths) < POSITIONS
    assert _model("phi").get_output_embeddings().bias.abs().min() > 0
    assert len({row.prompt for row in _rows()}) < len(_rows())
