"""One rule for ``auto``: bfloat16 only where it is native."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from semdpo.models import compute, renderer, scorers
from semdpo.models.compute import native_bfloat16
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
    assert compute.compute("auto").dtype is getattr(torch, expected)
    assert resolve_precision("auto") == expected


@pytest.mark.parametrize("native", [True, False])
def test_on_a_cpu_weights_stay_single_and_training_follows_the_rule(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert native_bfloat16() is native
    assert compute.compute("auto").dtype is torch.float32
    assert resolve_precision("auto") == ("bfloat16" if native else "float32")


def test_what_was_asked_for_is_not_changed(gpu: dict[str, bool]) -> None:
    gpu["native"] = False
    assert compute.compute("bfloat16").dtype is torch.bfloat16
    assert compute.compute().dtype is torch.float32
    assert resolve_precision("bfloat16") == "bfloat16"


@pytest.mark.usefixtures("gpu")
def test_scorers_are_never_made_coarser_by_auto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def stop(precision: str) -> None:
        asked.append(precision)
        raise InterruptedError

    monkeypatch.setattr(scorers, "compute", stop)
    with pytest.raises(InterruptedError):
        scorers.load_scorer(str(tmp_path), precision="auto")
    assert asked == ["float32"]


@pytest.mark.parametrize(
    ("stored", "native", "expected"),
    [
        (torch.float32, True, "float16"),
        (torch.float16, False, "float16"),
        (torch.bfloat16, True, "bfloat16"),
        (torch.bfloat16, False, "float32"),
    ],
)
def test_a_renderer_on_a_gpu(
    stored: torch.dtype, native: bool, expected: str, gpu: dict[str, bool], tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    gpu["native"] = native
    (tmp_path / "transformer").mkdir()
    weights = {"a.weight": torch.zeros(2, 2, dtype=stored), "norm": torch.zeros(2)}
    save_file(weights, tmp_path / "transformer/diffusion_pytorch_model.safetensors")
    assert renderer._automatic(tmp_path) == expected


def test_a_renderer_on_a_cpu_computes_in_single_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    loaded = renderer.load_renderer(str(tiny_models.stable_diffusion(tmp_path / "sd")), steps=1)
    assert loaded._pipeline.unet.dtype is torch.float32
