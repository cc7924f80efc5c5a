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

from semdpo.data.records import Curve, Pair, content_id
from semdpo.models.answerer import load_answerer
from semdpo.models.device import compute
from semdpo.models.renderer import load_renderer
from semdpo.models.rewriter import load_causal, load_rewriter
from semdpo.models.scorers.registry import load_scorer
from semdpo.models.text_encoder import load_text_encoder
from semdpo.preflight.doctor import machine
from semdpo.progress import silent
from semdpo.recipe.objectives import SFTSettings
from semdpo.recipe.schema import SFTConfig, TrainConfig
from semdpo.training import logps, prepare
from semdpo.training.arguments import training_arguments
from semdpo.training.batches import Example
from semdpo.training.fine_tune import fine_tune
from semdpo.training.losses import losses_of
from semdpo.training.packing import Group, pack
from semdpo.training.precision import autocast, resolve_precision
from semdpo.training.preference import train
from semdpo.training.reference import reference_logps
from semdpo.training.trainer import ExampleTrainer
from tests import tiny_models, tiny_multimodal
from tests.second_device.build import needs_second_device
from tests.second_device.cuda import as_cuda, operators_run

pytestmark = needs_second_device

Found = TypeVar("Found")
MODELS = {"gpt2": "semdpo_blocks", "llama": "flex_attention", "bloom": "eager"}  # and how they attend on a GPU
GPU_ATTENTION = MODELS | {"narrow": "semdpo_blocks"}  # FlexAttention has no kernel for heads of less than 16 numbers
OBJECTIVES: dict[str, dict[str, Any]] = {
    "sft": {}, "dpo": {}, "sem_dpo": {"alpha": 2.0}, "beta_dpo": {}, "ipo": {}, "kto": {}, "orpo": {}, "simpo": {},
    "additive": {},
}  # fmt: skip
TWO_DEVICES = r"two devices|same device"
GROUPS = [Group((1, 2, 3), ((4, 5), (6, 7, 8))), Group((9,), ((10, 11), (12,)))]


def _pair(index: int, color: str) -> Pair:
    prompt, chosen, rejected = f"a {color} cat", f"a {color} cat, art" + "!" * (index % 4), "a dog, bad"
    return Pair(
        content_id(prompt, chosen, rejected), prompt, chosen, rejected,
        chosen_score=1 + index / 10, rejected_score=0.0, distance=index / 10,
        chosen_fidelity=float(index % 3), rejected_fidelity=1.0,
    )  # fmt: skip


PAIRS = [_pair(index, color) for index, color in enumerate(("red", "blue", "green", "grey", "pink", "gold"))]
IMAGES, PROMPTS = [tiny_models.image(seed) for seed in range(3)], ["a red ball", "two cats", "a house on a hill"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Rewriters without dropout, which SFT keeps and which draws other numbers on another device."""
    root = tmp_path_factory.mktemp("rewriters")
    found = {"gpt2": tiny_models.gpt2(root / "gpt2")}
    found["bloom"] = tiny_models.causal(root / "bloom", "bloom")
    found["llama"] = tiny_models.causal(root / "llama", "llama", head_dim=16)
    found["narrow"] = tiny_models.causal(root / "narrow", "llama", head_dim=8)
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
    assert operators_run() > before + 10  # it was computed there
    return plain, found


# ------------------------------------------------------------------------- faults that are planted must be found


@pytest.mark.parametrize("part", ["position_ids", "owners", "groups", "spans"])
def test_a_tensor_that_training_leaves_on_the_cpu_is_a_fault(
    part: str, gpu: None, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(groups: Any, device: Any = None) -> Any:
        return pack(groups, device)._replace(**{part: getattr(pack(groups), part)})

    kind = "gpt2" if part == "spans" else "llama"
    model, _ = load_causal(folders[kind])
    model.to("cuda")
    monkeypatch.setattr(prepare, "pack", forgetful)
    with pytest.raises(RuntimeError, match=TWO_DEVICES):
        prepare.prepare(model)


def test_a_tensor_that_a_scorer_leaves_on_the_cpu_is_a_fault(
    tmp_path: Path, gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from semdpo.models import clip, loading

    scorer = load_scorer(str(tiny_models.clip(tmp_path / "clip")))
    monkeypatch.setattr(clip, "tokenize", lambda words, texts, most, _: loading.tokenize(words, texts, most))
    with pytest.raises(RuntimeError, match=TWO_DEVICES):
        scorer.score(IMAGES, PROMPTS)


# ---------------------------------------------------------------------------------------------------------- training


def _trained(start: Path, folder: Path, objective: str, **changes: Any) -> tuple[list[Curve], dict[str, Tensor]]:
    values = {"learning_rate": 1e-3, "epochs": 1, "batch_size": 3, "precision": "float32", "beta": 0.1}
    settings = {"name": objective} | OBJECTIVES[objective]
    config = TrainConfig.model_validate(values | changes | {"methods": {"m": settings}})
    shutil.rmtree(folder, ignore_errors=True)
    curves = train(PAIRS, str(start), config.methods["m"], config, folder, folder.parent / "cache", silent)
    weights = next(iter(folder.glob("*model.safetensors")))
    return curves, load_file(weights)


def _agree(plain: list[Curve], found: list[Curve]) -> None:
    """All come of up to four log-probabilities of about -100, where float32's step is 8e-6; the losses, times β.

    Which steps are rounded differs from one kind of processor to the next: another batch shape is another kernel.
    """
    assert len([each for each in plain if each.name == "loss"]) > 1
    for a, b in zip(plain, found, strict=True):
        allowed = 4e-6 if a.name == "loss" else 3.2e-5
        assert (a.step, a.name, b.value) == (b.step, b.name, pytest.approx(a.value, rel=allowed, abs=allowed))


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_training(
    kind: str, objective: str, folders: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (plain, before), (found, after) = _on_both(lambda: _trained(folders[kind], tmp_path / "out", objective))
    _agree(plain, found)
    for name, weight in before.items():  # of which one update moves every number by about 1e-3
        torch.testing.assert_close(after[name], weight, rtol=0, atol=5e-5)
    assert ("cannot share prompts" in capfd.readouterr().err) == (kind == "bloom")


@pytest.mark.parametrize("kind", GPU_ATTENTION)
def test_how_a_model_shares_prompts_on_a_gpu(kind: str, folders: dict[str, Path], gpu: None) -> None:
    model, _ = load_causal(folders[kind])
    model.to("cuda")
    assert prepare.prepare(model) == (kind != "bloom")
    assert model.config._attn_implementation == GPU_ATTENTION[kind]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_training_in_bfloat16(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    with as_cuda():
        assert (resolve_precision("auto"), compute("auto").dtype) == ("bfloat16", torch.bfloat16)
    with as_cuda(native_bfloat16=False):
        assert (resolve_precision("auto"), compute("auto").dtype) == ("float32", torch.float32)
    (plain, _), (found, _) = _on_both(
        lambda: _trained(folders[kind], tmp_path / "out", "sem_dpo", precision="bfloat16")
    )
    wanted, given = ([each.value for each in curves if each.name == "loss"] for curves in (plain, found))
    assert given == pytest.approx(wanted, abs=2e-3)


def test_mixed_precision_is_that_of_the_models_device(folders: dict[str, Path], gpu: None) -> None:
    model, _ = load_causal(folders["gpt2"])
    for device in ("cpu", "cuda"):  # a machine with a GPU may train on its CPU
        with torch.no_grad(), autocast("bfloat16", model.to(device)):
            assert torch.is_autocast_enabled(device)
            logits = model(torch.zeros((1, 2), dtype=torch.long, device=device)).logits
            assert (logits.dtype, logits.device.type) == (torch.bfloat16, device)


def test_training_adapters_in_parts(folders: dict[str, Path], tmp_path: Path) -> None:
    more = {"lora": {"rank": 2}, "micro_batch_size": 1, "batch_size": 2}
    (plain, _), (found, _) = _on_both(lambda: _trained(folders["gpt2"], tmp_path / "out", "dpo", **more))
    _agree(plain, found)


def test_a_training_that_was_stopped_goes_on(
    folders: dict[str, Path], tmp_path: Path, gpu: None, capfd: pytest.CaptureFixture[str]
) -> None:
    def stop(done: int, total: int, note: str = "") -> None:
        if "loss" in note and done == 3:
            raise KeyboardInterrupt

    config = TrainConfig(methods={"m": {"name": "dpo"}}, precision="float32", batch_size=2, checkpoint_steps=2)  # type: ignore[dict-item]
    asked = (PAIRS, str(folders["gpt2"]), config.methods["m"], config)
    whole = train(*asked, tmp_path / "whole", tmp_path / "cache", silent)
    with pytest.raises(KeyboardInterrupt):
        train(*asked, tmp_path / "out", tmp_path / "cache", stop)
    assert train(*asked, tmp_path / "out", tmp_path / "cache", silent) == whole
    assert "resuming from checkpoint-2" in capfd.readouterr().err
    weights, wanted = (load_file(tmp_path / each / "model.safetensors") for each in ("out", "whole"))
    assert all(torch.equal(weight, wanted[name]) for name, weight in weights.items())


def test_fine_tuning_and_the_losses_of_pairs(folders: dict[str, Path], tmp_path: Path) -> None:
    config = TrainConfig(methods={"m": {"name": "dpo"}}, precision="float32")  # type: ignore[dict-item]
    start, output = str(folders["gpt2"]), tmp_path / "sft"
    settings = SFTConfig(model=start, file="x", steps=12, batch_size=2, learning_rate=1e-3, precision="float32")

    def tuned() -> list[Curve]:
        shutil.rmtree(output, ignore_errors=True)
        return fine_tune([(each.prompt, each.chosen) for each in PAIRS], settings, output, silent)

    def losses() -> list[float]:
        rows = losses_of([PAIRS], str(output), start, 0.1, config, tmp_path / "cache")(PAIRS, silent)
        return [each.loss for each in rows]

    _agree(*_on_both(tuned))
    plain, found = _on_both(losses)
    assert found == pytest.approx(plain, abs=2e-6)  # β times log-probabilities' rounding
    assert np.ptp(plain) > 1e-3


def test_the_trainer_moves_a_model_before_it_chooses_its_attention(
    folders: dict[str, Path], tmp_path: Path, gpu: None
) -> None:
    model, _ = load_causal(folders["llama"])
    examples = [Example(str(number), group) for number, group in enumerate(GROUPS)]
    arguments = training_arguments(tmp_path, learning_rate=1e-3)
    trainer = ExampleTrainer(model, arguments, examples, objective=SFTSettings(name="sft"))
    assert (trainer.can_pack, model.device.type) == (True, "cuda")
    assert model.config._attn_implementation == "flex_attention"


def test_the_reference_is_kept_for_its_device(folders: dict[str, Path], tmp_path: Path) -> None:
    def run() -> list[tuple[float, ...]]:
        model, _ = load_causal(folders["llama"], where=compute())
        can_pack = prepare.prepare(model)
        assert can_pack
        return reference_logps(model, GROUPS, can_pack)

    plain, found = _on_both(run)
    assert [each for row in found for each in row] == pytest.approx([each for row in plain for each in row], rel=1e-6)
    _on_both(lambda: _trained(folders["gpt2"], tmp_path / "out", "dpo"))
    caches = {each: each.stat().st_mtime_ns for each in (tmp_path / "cache").iterdir()}
    assert len(caches) == 2
    with as_cuda():
        _trained(folders["gpt2"], tmp_path / "out", "dpo")
    assert {each: each.stat().st_mtime_ns for each in (tmp_path / "cache").iterdir()} == caches


# ----------------------------------------------------------------------------- the machine's faults are not the model's


@pytest.mark.parametrize("name", ["memory", "kernel", "compiler", "assertion"])
def test_a_fault_of_flex_attention_is_raised_as_what_it_is(
    name: str,
    folders: dict[str, Path],
    gpu: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from torch._inductor.exc import InductorError
    from transformers.integrations import flex_attention

    fault = {
        "memory": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        "kernel": RuntimeError("Triton Error [CUDA]: out of resource: shared memory"),
        "compiler": InductorError(ValueError("no working Triton"), None),
        "assertion": AssertionError("expected size 128"),
    }[name]

    def fails(*_: object, **__: object) -> None:
        raise fault

    model, _ = load_causal(folders["llama"], where=compute())
    monkeypatch.setattr(flex_attention, "compile_friendly_flex_attention", fails)
    with pytest.raises(type(fault)) as raised:
        prepare.prepare(model)
    assert raised.value is fault
    assert capfd.readouterr() == ("", "")
    assert not model.training


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own compiler's
def test_flex_attention_as_the_cpu_compiles_it(folders: dict[str, Path]) -> None:
    model, _ = load_causal(folders["llama"])
    with torch.no_grad():
        wanted = logps.padded_logps(model, GROUPS)
        model.set_attn_implementation("flex_attention")
        torch.testing.assert_close(logps.packed_logps(model, pack(GROUPS)), wanted, rtol=1e-6, atol=1e-5)


# ------------------------------------------------------------------------------------------------ writing and rendering


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    "how", [{"temperature": 0.0}, {}, {"temperature": 0.0, "num_beams": 3}], ids=["greedy", "sampled", "beams"]
)
def test_writing(kind: str, how: dict[str, Any], folders: dict[str, Path]) -> None:
    def run() -> list[list[tuple[str, bool]]]:
        rewriter = load_rewriter(folders[kind], precision="float32", max_new_tokens=8, **how)
        return rewriter.rewrite_flagged([each.prompt for each in PAIRS[:3]], 2, 1)

    plain, found = _on_both(run)
    assert found == plain


def _drawn(name: str, **more: Any) -> np.ndarray[Any, Any]:
    images = load_renderer(name, steps=3, **more).render(PROMPTS[:2], [1, 2])
    return np.stack([np.asarray(each, np.float32) for each in images]) / 255


@pytest.mark.slow
def test_rendering() -> None:
    plain, found = _on_both(lambda: _drawn("tiny:sd", precision="float32"))
    assert np.abs(found - plain).max() < 1.5 / 255  # a value on the edge of two levels of 255
    assert np.mean(found != plain) < 1e-3
    with as_cuda():
        half, usual = _drawn("tiny:sd", precision="float16"), _drawn("tiny:sd")
    assert np.abs(half - plain).max() < 0.05
    assert np.isfinite(usual).all()


@pytest.mark.slow
@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_offloading(offload: str, tmp_path: Path) -> None:
    folder = str(tiny_models.stable_diffusion(tmp_path / "sd"))
    plain = _drawn(folder, precision="float32")
    with as_cuda():
        found = _drawn(folder, precision="float32", offload=offload)
    assert np.abs(found - plain).max() < 1.5 / 255


def test_the_safety_checker(tmp_path: Path) -> None:
    folder = tiny_models.stable_diffusion(tmp_path / "sd", strict_checker=True)
    with as_cuda():
        assert _drawn(str(folder), safety_checker=True, precision="float32").max() == 0


# ---------------------------------------------------------------------------------------------------- scores and texts

SCORERS: dict[str, Callable[[Path], Path]] = {
    "clip-score": tiny_models.clip,
    "hpsv2.1": lambda folder: tiny_models.clip(folder, "hpsv2.1"),
    "pickscore": lambda folder: tiny_models.clip(folder, "pickscore"),
    "image-reward": tiny_models.image_reward,
    "blip-itm": tiny_models.blip_itm,
    "jina-clip": tiny_multimodal.jina,
    "jina-v4": tiny_multimodal.jina_v4,
    "vqa-score": tiny_multimodal.llava,
}


@pytest.mark.parametrize("kind", SCORERS)
def test_scoring(kind: str, tmp_path: Path) -> None:
    name = str(SCORERS[kind](tmp_path / kind))
    # jina-clip's stand-in computes without its model.
    both = _on_both if kind != "jina-clip" else lambda run: (run(), _under_cuda(run))
    plain, found = both(lambda: load_scorer(name, allow_remote_code=[name]).score(IMAGES, PROMPTS))
    assert np.ptp(plain.values) > 1e-6
    np.testing.assert_allclose(found.values, plain.values, rtol=2e-6, atol=1e-6)
    assert (found.truncated == plain.truncated).all()


def test_answering_questions(tmp_path: Path) -> None:
    name, asked = str(tiny_multimodal.llava(tmp_path / "llava")), [("Is it red?", "yes")] * len(IMAGES)
    plain, found = _on_both(lambda: load_answerer(name, batch_size=2).answer(IMAGES, asked))
    assert np.ptp(plain) > 1e-6
    np.testing.assert_allclose(found, plain, rtol=2e-6, atol=1e-6)


def _under_cuda(run: Callable[[], Found]) -> Found:
    with as_cuda():
        return run()


@pytest.mark.parametrize("kind", ["clip", "sentence", "tiny:clip"])
def test_encoding_texts(kind: str, tmp_path: Path) -> None:
    name = kind if kind.startswith("tiny:") else str(getattr(tiny_models, kind)(tmp_path / kind))
    plain, found = _on_both(lambda: load_text_encoder(name).encode([*PROMPTS, "long " * 40]))
    np.testing.assert_allclose(found.vectors, plain.vectors, rtol=0, atol=1e-6)
    assert found.truncated.tolist() == plain.truncated.tolist()


def test_doctor_names_the_gpu(tmp_path: Path, gpu: None) -> None:
    named = {each.what: each.found for each in machine(tmp_path)}
    assert named["GPU 0"] == "second device, 70.0 of 80.0 GB free"
    assert "GPU" not in named
