from __future__ import annotations

from pathlib import Path

import pytest
import torch

from semdpo.errors import ModelError
from semdpo.progress import silent
from semdpo.tiny_world_training import fit


def test_an_interrupted_fit_ends_with_the_same_weights(tmp_path: Path) -> None:
    plan = fit.Plan(steps=12, rate=1e-2, muon=0.02, warmup=2, average=0.9, seed=3)

    def train(checkpoint: Path, stop_at: int | None) -> torch.Tensor:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(16, 2))

        def loss(step: int) -> torch.Tensor:
            if step == stop_at:
                raise KeyboardInterrupt
            return model(torch.randn(5, 3, 4, 4)).square().mean()

        return torch.nn.utils.parameters_to_vector(fit.fit(model, loss, plan, checkpoint, silent, every=5).parameters())

    whole = train(tmp_path / "whole.pt", None)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut.pt", 8)
    assert torch.equal(train(tmp_path / "cut.pt", None), whole)


def test_a_checkpoint_of_another_plan_is_refused(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 1)
    for steps in (2, 3):
        plan = fit.Plan(steps=steps, rate=1e-2)
        if steps == 2:
            fit.fit(model, lambda _: model(torch.ones(1, 2)).sum(), plan, tmp_path / "f.pt", silent)
            continue
        with pytest.raises(ModelError, match="other settings"):
            fit.fit(model, lambda _: model(torch.ones(1, 2)).sum(), plan, tmp_path / "f.pt", silent)


def test_a_loss_that_is_not_finite_stops_the_fit(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 1)
    plan = fit.Plan(steps=3, rate=1e-2)
    with pytest.raises(FloatingPointError, match="step 0"):
        fit.fit(model, lambda _: model(torch.full((1, 2), torch.nan)).sum(), plan, tmp_path / "f.pt", silent)


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_is_used_where_the_cpu_has_it_whatever_the_gpu_has(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: not native)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    with fit.autocast():
        assert torch.is_autocast_enabled("cpu") is native
