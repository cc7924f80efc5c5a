"""TRL as an oracle: from the same weights, data order and optimiser, 20 steps give the same losses and weights."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from semdpo.models.loading import quiet
from semdpo.models.rewriter import load_causal
from semdpo.recipe.schema import TrainConfig
from semdpo.training.arguments import training_arguments
from semdpo.training.batches import Example, draw_batches, encode
from semdpo.training.logps import padded_logps
from semdpo.training.packing import Group
from semdpo.training.trainer import ExampleTrainer
from tests import tiny_models

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from datasets import Dataset, disable_progress_bars
    from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

disable_progress_bars()
BATCH, STEPS, BETA, RATE = 4, 20, 0.1, 1e-3
WORDS = ["red", "blue", "green", "grey", "pink", "gold", "white", "black"]
PAIRS = [
    (f"a {WORDS[k % 8]} {WORDS[k // 8 % 8]}", f"{WORDS[k % 7]} art" + "!" * (k % 5), f"bad {WORDS[k % 3]}")
    for k in range(BATCH * STEPS)
]


def _start(folder: Path) -> tuple[Any, Any]:
    model, tokenizer = load_causal(tiny_models.gpt2(folder))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    tokenizer.model_max_length = 128
    return model, tokenizer


def _ours(
    model: Any, groups: list[Group], objective: dict[str, Any], folder: Path, distances: Sequence[float] | None = None
) -> ExampleTrainer:
    with torch.no_grad():
        logps = padded_logps(model, groups).view(-1, 2).tolist()
    far = [0.0] * len(groups) if distances is None else distances
    examples = [Example(str(k), group, tuple(logps[k]), far[k]) for k, group in enumerate(groups)]
    config = TrainConfig.model_validate({"methods": {"m": objective}}).methods["m"]
    with quiet():
        args = training_arguments(folder, learning_rate=RATE)
        trainer = ExampleTrainer(model, args, examples, objective=config, beta=BETA, batch_size=BATCH, warmup_ratio=0.1)
        trainer.train()
    return trainer


def _theirs(kind: Any, settings: Any, model: Any, tokenizer: Any, rows: list[dict[str, Any]], **more: Any) -> Any:
    per_step = len(rows) // STEPS
    with quiet():
        args = settings(
            output_dir="unused",
            per_device_train_batch_size=per_step,
            num_train_epochs=1,
            learning_rate=RATE,
            warmup_steps=2,
            lr_scheduler_type="linear",
            optim="adamw_torch_fused",
            weight_decay=0.0,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            train_sampling_strategy="sequential",
            disable_tqdm=True,
            beta=BETA,
            dataloader_pin_memory=False,
            **more,
        )
        trainer = kind(model=model, args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
        trainer.train()
    return trainer


def _compare(ours: ExampleTrainer, theirs: Any) -> None:
    losses = [curve.value for curve in ours.curves if curve.name == "loss"]
    wanted = [entry["loss"] for entry in theirs.state.log_history if "loss" in entry]
    assert len(losses) == len(wanted) == STEPS
    torch.testing.assert_close(losses, wanted, rtol=1e-4, atol=1e-4)
    assert max(losses) - min(losses) > 0.01  # something was learnt, so that agreeing means something
    for (name, a), b in zip(ours.model.named_parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, msg=name)


def _order(groups: list[Group]) -> list[list[int]]:
    return draw_batches([group.tokens for group in groups], BATCH, 1, 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_dpo(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = _start(tmp_path / "model")
    other, _ = _start(tmp_path / "model")
    prompts, sides = [p for p, _, _ in PAIRS], [(c, r) for _, c, r in PAIRS]
    groups = encode(tokenizer, "{prompt}:", prompts, sides)
    rows = [
        {"prompt": f"{PAIRS[k][0]}:", "chosen": f" {PAIRS[k][1]}", "rejected": f" {PAIRS[k][2]}"}
        for step in _order(groups)
        for k in step
    ]
    theirs = _theirs(DPOTrainer, DPOConfig, other, tokenizer, rows, precompute_ref_log_probs=True)
    _compare(_ours(model, groups, {"name": "dpo"}, tmp_path), theirs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_kto(tmp_path: Path) -> None:
    model, tokenizer = _start(tmp_path / "model")
    other, _ = _start(tmp_path / "model")
    groups = encode(tokenizer, "{prompt}:", [p for p, _, _ in PAIRS], [(c, r) for _, c, r in PAIRS])
    rows = []
    for step in _order(groups):
        examples = [(PAIRS[k][0], PAIRS[k][1], True) for k in step] + [(PAIRS[k][0], PAIRS[k][2], False) for k in step]
        # TRL takes the completion of the example before, we (as HALOs) that of the next.
        rows += [{"prompt": f"{p}:", "completion": f" {c}", "label": good} for p, c, good in reversed(examples)]
    theirs = _theirs(KTOTrainer, KTOConfig, other, tokenizer, rows, precompute_ref_log_probs=True)
    _compare(_ours(model, groups, {"name": "kto"}, tmp_path), theirs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_orpo(tmp_path: Path) -> None:
    """Without prompts, which TRL counts in the likelihood and we do not."""
    model, tokenizer = _start(tmp_path / "model")
    other, _ = _start(tmp_path / "model")
    tokens = [[(*tokenizer(f" {text}").input_ids, 0) for text in sides] for _, *sides in PAIRS]
    groups = [Group((tokenizer.bos_token_id,), tuple(sides)) for sides in tokens]
    rows = [
        {"prompt": "", "chosen": f" {PAIRS[k][1]}", "rejected": f" {PAIRS[k][2]}"}
        for step in _order(groups)
        for k in step
    ]
    theirs = _theirs(ORPOTrainer, ORPOConfig, other, tokenizer, rows)
    _compare(_ours(model, groups, {"name": "orpo", "odds_weight": BETA}, tmp_path), theirs)
