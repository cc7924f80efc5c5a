from __future__ import annotations

from pathlib import Path

import pytest
import torch

from semdpo.models.rewriter import load_causal
from semdpo.training.batches import encode
from semdpo.training.reference import reference_logps
from tests import tiny_models


def test_it_is_the_models_log_probability_whatever_the_batch(tmp_path: Path) -> None:
    model, tokenizer = load_causal(tiny_models.gpt2(tmp_path))
    model.train()  # dropout must not count
    sequences = encode(tokenizer, "{prompt}:", ["a", "a longer one", "b"], ["x", "y z", ""])
    seen: list[tuple[int, int]] = []
    found = reference_logps(model, sequences, 0, 2, lambda done, total, note="": seen.append((done, total)))
    assert seen == [(2, 3), (3, 3)]
    assert not found.requires_grad
    for each, value in zip(sequences, found, strict=True):
        ids = torch.tensor([*each.prompt, *each.completion])
        with torch.no_grad():
            logs = model(ids[None]).logits[0].log_softmax(-1)
        start = len(each.prompt)
        wanted = sum(logs[t - 1, ids[t]].item() for t in range(start, len(ids)))
        assert value.item() == pytest.approx(wanted, abs=1e-4)
