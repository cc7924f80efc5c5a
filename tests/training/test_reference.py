from __future__ import annotations

from pathlib import Path

import pytest
import torch

from semdpo.models.rewriter import load_causal
from semdpo.training.batches import encode
from semdpo.training.packing import Group
from semdpo.training.prepare import prepare
from semdpo.training.reference import described, key_of, reference_logps
from tests import tiny_models


def test_it_is_the_models_log_probability_whatever_the_batch(tmp_path: Path) -> None:
    model, tokenizer = load_causal(tiny_models.gpt2(tmp_path))
    model.train()  # dropout must not count
    groups = encode(tokenizer, "{prompt}:", ["a", "a longer one", "b"], [("x", "y z"), ("",), ("y z", "x")])
    seen: list[tuple[int, int]] = []
    assert prepare(model)
    found = reference_logps(model, groups, True, None, lambda done, total, note="": seen.append((done, total)))
    assert model.training
    assert seen == [(3, 3)]
    for group, values in zip(groups, found, strict=True):
        for completion, value in zip(group.completions, values, strict=True):
            ids = torch.tensor([*group.prompt, *completion])
            with torch.no_grad():
                logs = model.eval()(ids[None]).logits[0].log_softmax(-1)
            start = len(group.prompt)
            wanted = sum(logs[t - 1, ids[t]].item() for t in range(start, len(ids)))
            assert value == pytest.approx(wanted, abs=1e-4)


def test_what_was_asked_once_is_read_from_the_cache(tmp_path: Path) -> None:
    model, _ = load_causal(tiny_models.gpt2(tmp_path / "model"))
    groups, more = [Group((1, 2), ((3,), (4, 5)))], [Group((1, 2), ((4, 5), (6,)))]
    cache = tmp_path / "cache" / "key.parquet"
    live = reference_logps(model, groups, False)
    assert reference_logps(model, groups, False, cache) == live
    written = cache.read_bytes()

    def refuses(*_: object, **__: object) -> None:
        raise AssertionError("the model was asked")

    forward, model.forward = model.forward, refuses
    assert reference_logps(model, groups, False, cache) == live
    with pytest.raises(AssertionError):
        reference_logps(model, more, False, cache)
    assert cache.read_bytes() == written
    model.forward = forward
    [(known, _)] = reference_logps(model, more, False, cache)
    assert known == pytest.approx(live[0][1], abs=1e-6)
    assert reference_logps(model, [*groups, *more], False, cache)[0] == pytest.approx(live[0], abs=1e-6)


def test_another_model_template_or_precision_has_another_key() -> None:
    described = {"model": "a", "template": "b", "precision": "float32"}
    keys = {key_of(described)} | {key_of(described | {name: "other"}) for name in described}
    assert len(keys) == 4


def test_caches_of_the_first_format_are_not_read(tmp_path: Path) -> None:
    """They may hold values of a trained model."""
    folder = tiny_models.gpt2(tmp_path)
    now = described(folder, load_causal(folder)[0], "{prompt}:", 16, "float32", True)
    assert key_of(now) != key_of({name: value for name, value in now.items() if name != "format"})
