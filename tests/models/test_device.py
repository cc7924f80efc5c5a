"""One rule for ``auto``: bfloat16 only where it is native."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from semdpo.models import device, renderer, rewriter
from semdpo.models.device import native_bfloat16
from semdpo.models.scorers import registry as scorers
from semdpo.training.precision import resolve_precision
from tests import tiny_models


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """A GPU that says of itself whether it has bfloat16 natively; older ones emulate it."""
    says = {"native": True}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or says["native"]
    )
    return says


@pytest.mark.parametrize(("native", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_weights_and_training_follow_one_rule_on_a_gpu(native: bool, expected: str, gpu: dict[str, bool]) -> None:
    gpu["native"] = native
    assert native_bfloat16() is native
    assert device.compute("auto").dtype is getattr(torch, expected)
    assert resolve_precision("auto") == expected


@pytest.mark.parametrize("native", [True, False])
def test_on_a_cpu_weights_stay_single_and_training_follows_the_rule(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert native_bfloat16() is native
    assert device.compute("auto").dtype is torch.float32
    assert resolve_precision("auto") == ("bfloat16" if native else "float32")


def test_what_was_asked_for_is_not_changed(gpu: dict[str, bool]) -> None:
    gpu["native"] = False
    assert device.compute("bfloat16").dtype is torch.bfloat16
    assert device.compute().dtype is torch.float32
    assert resolve_precision("bfloat16") == "bfloat16"


@pytest.mark.parametrize(
    "load",
    [
        lambda folder: renderer.load_renderer(str(tiny_models.stable_diffusion(folder)), precision="auto"),
        lambda folder: scorers.load_scorer(str(tiny_models.clip(folder)), precision="auto"),
        lambda folder: rewriter.load_rewriter(str(tiny_models.gpt2(folder)), precision="auto"),
    ],
    ids=["renderer", "scorer", "rewriter"],
)
@pytest.mark.parametrize("native", [True, False])
def test_no_kind_of_model_has_a_rule_of_its_own(
    native: bool, load: Callable[[Path], Any], gpu: dict[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU exists in what it says only, so loading stops once the precision has been chosen."""
    gpu["native"] = native
    chosen: list[Any] = []

    def stop(precision: str) -> None:
        chosen.append(device.compute(precision).dtype)
        raise InterruptedError

    for module in (renderer, scorers, rewriter):
        monkeypatch.setattr(module, "compute", stop)
    with pytest.raises(InterruptedError):
        load(tmp_path / "model")
    assert chosen == [torch.bfloat16 if native else torch.float32]


def test_a_renderer_on_a_cpu_computes_in_single_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    loaded = renderer.load_renderer(str(tiny_models.stable_diffusion(tmp_path / "sd")), steps=1)
    assert loaded._pipeline.unet.dtype is torch.float32


def test_only_weights_are_rounded() -> None:
    network = torch.nn.Linear(2, 2)
    network.register_buffer("angle", torch.tensor(1 / 3))
    found = device.moved(network, device.Compute(torch.device("cpu"), torch.bfloat16))
    assert {weight.dtype for weight in found.parameters()} == {torch.bfloat16}
    assert torch.equal(found.angle, torch.tensor(1 / 3))
