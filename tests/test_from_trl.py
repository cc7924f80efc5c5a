"""The subclass of TRL's DPOTrainer that the page "From TRL" shows, taken from the page and compared step by step."""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from semdpo.training.batches import encode
from tests.test_docs import ROOT, snippets
from tests.training.test_trl import BATCH, PAIRS, DPOConfig, DPOTrainer, _compare, _order, _ours, _start, _theirs

PAGE = ROOT / "docs/howto/trl.md"
TEMPLATE, ALPHA = "{prompt} Rephrase:", 4.0  # the page's
DISTANCES = [7 * k % 20 / 20 for k in range(len(PAIRS))]  # 0 to 0.95; any four neighbours differ
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def _shown() -> dict[str, Any]:
    """What the page's script imports and defines, without what it trains."""
    (script,) = [snippet.text for snippet in snippets(PAGE) if "class WeightedDPOTrainer" in snippet.text]
    tree = ast.parse(script)
    tree.body = [node for node in tree.body if not isinstance(node, ast.If)]
    names: dict[str, Any] = {"__name__": "from_trl"}
    exec(compile(tree, str(PAGE), "exec"), names)
    return names


SHOWN = _shown()


def _rows(order: Sequence[int], weights: Sequence[float] | None = None) -> list[dict[str, Any]]:
    """TRL's rows as the page prepares them; weights other than the page's where they are given."""
    read = [
        dict(zip(("prompt", "chosen", "rejected"), PAIRS[k], strict=True)) | {"distance": DISTANCES[k]} for k in order
    ]
    rows = [row | SHOWN["as_semdpo_writes_it"](row) for row in read]
    return rows if weights is None else [row | {"weight": w} for row, w in zip(rows, weights, strict=True)]


def _trained(kind: Any, rows: list[dict[str, Any]], folder: Path, **more: Any) -> Any:
    model, tokenizer = _start(folder)
    return _theirs(kind, DPOConfig, model, tokenizer, rows, precompute_ref_log_probs=True, **more)


def _weighted(rows: list[dict[str, Any]], folder: Path, **more: Any) -> Any:
    return _trained(SHOWN["WeightedDPOTrainer"], rows, folder, **more)


def _losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def _furthest(one: Any, other: Any) -> float:
    """The largest difference between two trained models' parameters."""
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def test_weights_of_one_are_dpo_to_the_bit(tmp_path: Path) -> None:
    rows = _rows(range(len(PAIRS)), [1.0] * len(PAIRS))
    plain, weighted = _trained(DPOTrainer, rows, tmp_path), _weighted(rows, tmp_path)
    assert _losses(weighted) == _losses(plain)
    assert max(_losses(plain)) - min(_losses(plain)) > 0.01  # something was learnt, so that agreeing means something
    assert _furthest(weighted, plain) == 0
    assert weighted.state.log_history[-2].keys() == plain.state.log_history[-2].keys()  # TRL's own metrics


def test_weights_from_distances_are_sem_dpo(tmp_path: Path) -> None:
    model, tokenizer = _start(tmp_path / "model")
    groups = encode(tokenizer, TEMPLATE, [p for p, _, _ in PAIRS], [(c, r) for _, c, r in PAIRS])
    rows = _rows([k for step in _order(groups) for k in step])
    weighted = _weighted(rows, tmp_path / "model")
    ours = _ours(model, groups, {"name": "sem_dpo", "alpha": ALPHA}, tmp_path, DISTANCES)
    _compare(ours, weighted)
    # Without the weights the parameters are others, by far more than _compare allows.
    assert _furthest(_trained(DPOTrainer, rows, tmp_path / "model"), weighted) > 1e-3


def test_a_weight_of_zero_takes_a_pair_out(tmp_path: Path) -> None:
    """Of each batch's pairs the second half counts nothing and the first half twice: DPO on the first half."""
    half = BATCH // 2
    rows = _rows(range(len(PAIRS)), [2.0 if k % BATCH < half else 0.0 for k in range(len(PAIRS))])
    kept = [row for row in rows if row["weight"]]
    weighted, plain = _weighted(rows, tmp_path), _trained(DPOTrainer, kept, tmp_path)
    torch.testing.assert_close(_losses(weighted), _losses(plain), rtol=1e-5, atol=1e-5)
    assert _furthest(weighted, plain) < 1e-4
    assert _furthest(weighted, _trained(DPOTrainer, rows, tmp_path)) > 1e-3


def test_a_loss_is_divided_by_the_number_of_pairs(tmp_path: Path) -> None:
    """Before the first update every pair's loss is ln 2, and half of the weights are 0."""
    rows = _rows(range(len(PAIRS)), [1.0, 0.0] * (len(PAIRS) // 2))
    assert _losses(_weighted(rows, tmp_path, max_steps=1)) == pytest.approx([math.log(2) / 2], abs=1e-6)


@pytest.mark.parametrize(
    "setting", [{"loss_type": "hinge"}, {"use_weighting": True}, {"f_divergence_type": "forward_kl"}, {"ld_alpha": 0.5}]
)
def test_another_loss_than_dpos_stops_training(setting: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="not close"):
        _weighted(_rows(range(len(PAIRS))), tmp_path, **setting)


def test_a_data_set_without_weights_is_refused(tmp_path: Path) -> None:
    rows = _rows(range(len(PAIRS)))
    for row in rows:
        del row["weight"]
    with pytest.raises(KeyError, match="weight"):
        _weighted(rows, tmp_path)
    with pytest.raises(RuntimeError, match="NoneType"):
        _weighted([row | {"weight": None if k == 5 else 1.0} for k, row in enumerate(rows)], tmp_path)
