"""Every path that touches a device, on a second device that torch takes for a GPU: its numbers are the CPU's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from semdpo.config import SFTConfig, TrainConfig
from semdpo.doctor import machine
from semdpo.errors import ModelError
from semdpo.models.compute import compute
from semdpo.models.loading import load_model
from semdpo.models.renderer import load_renderer
from semdpo.models.rewriter import load_causal, load_rewriter
from semdpo.models.scorers import load_scorer
from semdpo.models.text_encoder import load_text_encoder
from semdpo.progress import silent
from semdpo.records import Curve, Pair, content_id
from semdpo.stages.losses import pair_losses
from semdpo.stages.sft import fine_tune
from semdpo.stages.train import train
from semdpo.training import logps, prepare
from semdpo.training.packing import Group, pack
from semdpo.training.precision import resolve_precision
from semdpo.training.reference import reference_logps
from tests import tiny_models
from tests.second_device.build import compiler
from tests.second_device.cuda import as_cuda, operators_run

pytestmark = pytest.mark.skipif(compiler() is None, reason="the second device needs a C++ compiler, and there is none")

Found = TypeVar("Found")
MODELS = {"gpt2": "semdpo_blocks", "llama": "flex_attention", "bloom": "eager"}  # and how they attend on a GPU
OBJECTIVES: dict[str, dict[str, Any]] = {
    "sft": {}, "dpo": {}, "sem_dpo": {"alpha": 2.0}, "beta_dpo": {}, "kto": {}, "orpo": {}, "additive": {},
}  # fmt: skip
GROUPS = [Group((1, 2, 3), ((4, 5), (6, 7, 8))), Group((9,), ((10, 11), (12,)))]


def _pair(index: int, color: str) -> Pair:
    prompt, chosen, rejected = f"a {color} cat", f"a {color} cat, art" + "!" * (index % 4), "a dog, bad"
    return Pair(
        content_id(prompt, chosen, rejected), prompt, chosen, rejected,
        chosen_score=1 + index / 10, rejected_score=0.0, distance=index / 10,
        chosen_fidelity=float(index % 3), rejected_fidelity=1.0,
    )  # fmt: skip


PAIRS = [_pair(index, color) for index, color in enumerate(("red", "blue", "green", "grey", "pink", "gold"))]
IMAGES, PROMPTS = [tiny_models.picture(seed) for seed in range(3)], ["a red ball", "two cats", "a house on a hill"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Rewriters without dropout, which SFT keeps and which draws other numbers on another device."""
    root = tmp_path_factory.mktemp("rewriters")
    found = {"gpt2": tiny_models.gpt2(root / "gpt2")}
    found |= {kind: tiny_models.causal(root / kind, kind) for kind in ("llama", "bloom")}
    config = json.loads((found["gpt2"] / "config.json").read_text())
    config |= dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
    (found["gpt2"] / "config.json").write_text(json.dumps(config))
    return found


@pytest.fixture
def gpu() -> Iterator[None]:
    with as_cuda():
        yield


def _on_both(run: Callable[[], Found]) -> tuple[Found, Found]:
    """What the CPU gives, and what the second device gives."""
    plain = run()
    before = operators_run()
    with as_cuda():
        found = run()
    assert operators_run() > before + 20  # it was computed there
    return plain, found


# ------------------------------------------------------------------------------------------- what the emulation catches


def test_tensors_of_two_devices_do_not_mix(gpu: None) -> None:
    here, left = torch.ones(2, 2, device="cuda"), torch.ones(2, 2)
    faults: list[Callable[[], object]] = [
        lambda: here + left,
        lambda: left @ here,
        lambda: left.add_(here),
        lambda: torch.stack([here, left]),
        lambda: torch.where(left > 0, here, 0.0),
        lambda: torch.nn.functional.embedding(torch.tensor([0]), here),
        lambda: torch.nn.functional.linear(left, here),
        lambda: torch.nn.functional.layer_norm(here, (2,), left[0]),
        lambda: torch.nn.functional.scaled_dot_product_attention(here[None], here[None], here[None], left[None]),
        lambda: here.gather(0, torch.zeros(1, 1, dtype=torch.long)),
        lambda: torch.ones(()).add_(here.sum()),
    ]
    for number, fault in enumerate(faults):
        with pytest.raises(RuntimeError, match="two devices|same device"):
            raise AssertionError(f"fault {number} gave {fault()}")
    assert (here + torch.ones(()))[torch.tensor([0])].tolist() == [[2, 2]]  # numbers and indices may, as on CUDA
    assert here.device == torch.device("cuda:0")
    assert (here.is_cuda, left.is_cuda, left.to(here).is_cuda, here.cpu().is_cuda) == (True, False, True, False)


def test_generators_belong_to_a_device(gpu: None) -> None:
    def drawn(device: str, of: str) -> list[float]:
        return torch.rand(3, device=device, generator=torch.Generator(of).manual_seed(1)).tolist()  # type: ignore[no-any-return]

    for devices in (("cuda", "cpu"), ("cpu", "cuda")):
        with pytest.raises(RuntimeError, match="generator|same device"):
            drawn(*devices)
    assert drawn("cuda", "cuda") == drawn("cuda", "cuda")
    torch.manual_seed(3)
    first, on_cpu = torch.rand(2, 3, device="cuda"), torch.rand(2)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(2), on_cpu)  # a stream of its own
    assert torch.equal(torch.rand(2, 3, device="cuda"), first)
    assert len(first.unique()) == 6


def test_numpy_does_not_read_the_devices_memory(gpu: None) -> None:
    values = torch.ones(2, device="cuda")
    for fault in (values.numpy, lambda: np.asarray(values)):
        with pytest.raises(TypeError, match="convert"):
            fault()
    assert values.cpu().numpy().tolist() == [1, 1]


def test_a_module_moves_whole(gpu: None, folders: dict[str, Path]) -> None:
    model, _ = load_causal(folders["gpt2"])
    model.to("cuda")
    assert {each.device.type for each in (*model.parameters(), *model.buffers())} == {"cuda"}
    assert model.lm_head.weight is model.transformer.wte.weight


@pytest.mark.parametrize("part", ["position_ids", "predictors", "owners", "spans"])
def test_a_tensor_that_training_leaves_on_the_cpu_is_a_fault(
    part: str, gpu: None, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(groups: Any, device: Any = None) -> Any:
        return pack(groups, device)._replace(**{part: getattr(pack(groups), part)})

    kind = "gpt2" if part == "spans" else "llama"
    model, _ = load_causal(folders[kind])
    model.to("cuda")
    monkeypatch.setattr(prepare, "pack", forgetful)
    if part == "predictors":  # an index, which CUDA too takes from the CPU
        assert prepare.prepare(model)
        return
    with pytest.raises(RuntimeError, match="two devices|same device"):
        prepare.prepare(model)


def test_a_tensor_that_a_scorer_leaves_on_the_cpu_is_a_fault(
    tmp_path: Path, gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from semdpo.models import clip, loading

    scorer = load_scorer(str(tiny_models.clip(tmp_path / "clip")))
    monkeypatch.setattr(clip, "tokenize", lambda words, texts, most, _: loading.tokenize(words, texts, most))
    with pytest.raises(RuntimeError, match="two devices|same device"):
        scorer.score(IMAGES, PROMPTS)


# ---------------------------------------------------------------------------------------------------------- training


def _trained(start: Path, folder: Path, objective: str, **changes: Any) -> tuple[list[Curve], dict[str, Tensor]]:
    values = {"learning_rate": 1e-3, "epochs": 2, "batch_size": 3, "precision": "float32", "beta": 0.1}
    settings = {"name": objective} | OBJECTIVES[objective]
    config = TrainConfig.model_validate(values | changes | {"methods": {"m": settings}})
    shutil.rmtree(folder, ignore_errors=True)
    curves = train(PAIRS, str(start), config.methods["m"], config, folder, folder.parent / "cache", silent)
    weights = next(iter(folder.glob("*model.safetensors")))
    return curves, load_file(weights)


def _agree(plain: list[Curve], found: list[Curve], tolerance: float) -> None:
    assert len(plain) > 20
    for a, b in zip(plain, found, strict=True):
        assert (a.step, a.name, b.value) == (b.step, b.name, pytest.approx(a.value, rel=tolerance, abs=tolerance))


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_training(
    kind: str, objective: str, folders: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (plain, before), (found, after) = _on_both(lambda: _trained(folders[kind], tmp_path / "out", objective))
    print(kind, objective, max(abs(a.value - b.value) / max(1, abs(a.value)) for a, b in zip(plain, found)), max(float((before[n]-after[n]).abs().max()) for n in before))
    said = capfd.readouterr().err
    assert ("cannot share prompts" in said) == (kind == "bloom")
