"""What diffusers is asked for where memory is short; nothing of it runs on a CPU."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semdpo.errors import ModelError
from semdpo.models import memory
from semdpo.models.memory import decode_in_parts, large_parts, place, quantized, refuse_without_gpu
from semdpo.models.renderer import load_renderer
from tests import tiny_models

INDEX = {
    "_class_name": "StableDiffusion3Pipeline",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
    "text_encoder_2": [None, None],
    "text_encoder_3": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "transformer": ["diffusers", "SD3Transformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


@pytest.mark.parametrize(
    ("device", "offload", "quantization", "message"),
    [
        ("cpu", "model", None, "renderer.offload moves weights .* this machine has no GPU; remove it"),
        ("cpu", None, "4bit", "renderer.quantization needs a GPU, and this machine has none; remove it"),
        ("cuda", None, "4bit", "4bit needs bitsandbytes; install it with: pip install bitsandbytes"),
        ("cuda", "model", "fp8", "fp8 needs torchao; install it with: pip install torchao"),
    ],
)
def test_what_this_machine_lacks_is_named(
    device: str, offload: str | None, quantization: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=message):
        refuse_without_gpu(device, offload, quantization)
    refuse_without_gpu("cuda", "sequential", None)


def test_large_parts_get_smaller_weights() -> None:
    assert large_parts(INDEX) == {"text_encoder_3": "transformers", "transformer": "diffusers"}
    asked = quantized(INDEX, "4bit", torch.bfloat16)
    assert type(asked).__name__ == "PipelineQuantizationConfig"
    assert (asked.quant_backend, asked.components_to_quantize) == (
        "bitsandbytes_4bit",
        ["text_encoder_3", "transformer"],
    )
    assert asked.quant_kwargs == {
        "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16,
    }  # fmt: skip
    asked = quantized(INDEX, "8bit", torch.float16)
    assert (asked.quant_backend, asked.quant_kwargs) == ("bitsandbytes_8bit", {"load_in_8bit": True})


def test_eight_bit_floats_are_asked_for_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torchao's settings are objects, one class for each library; it is not installed here."""
    import diffusers

    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(memory, "_float8", lambda library: f"float8 of {library}")
    monkeypatch.setattr(diffusers, "PipelineQuantizationConfig", lambda **named: asked.append(named))
    quantized(INDEX, "fp8", torch.bfloat16)
    assert asked == [
        {"quant_mapping": {"text_encoder_3": "float8 of transformers", "transformer": "float8 of diffusers"}}
    ]


class Recording:
    """A pipeline that notes where it is told to compute."""

    def __init__(self, order: str | None = "text_encoder->unet->vae") -> None:
        self.model_cpu_offload_seq, self.asked = order, []

    def __getattr__(self, name: str) -> Any:
        if name == "vae":
            raise AttributeError(name)
        return lambda *given, **named: self.asked.append((name, *given, named))


def test_diffusers_moves_the_parts() -> None:
    gpu, pipeline = torch.device("cuda"), Recording()
    for offload in (None, "model", "sequential"):
        place(pipeline, gpu, offload)
    assert pipeline.asked == [
        ("to", gpu, {}),
        ("enable_model_cpu_offload", {"device": gpu}),
        ("enable_sequential_cpu_offload", {"device": gpu}),
    ]
    with pytest.raises(ModelError, match=r"Recording cannot be offloaded by parts; use renderer.offload: sequential"):
        place(Recording(None), gpu, "model")


def test_decoding_in_parts(tmp_path: Path) -> None:
    folder = str(tiny_models.stable_diffusion(tmp_path / "sd"))
    plain, sliced = (load_renderer(folder, steps=1, vae_slicing=sliced) for sliced in (False, True))
    tiled = load_renderer(folder, steps=1, vae_tiling=True)._pipeline.vae
    assert (tiled.use_tiling, tiled.use_slicing, sliced._pipeline.vae.use_slicing) == (True, False, True)
    prompts, seeds = ["a cat", "a dog"], [1, 2]
    for one, other in zip(plain.render(prompts, seeds), sliced.render(prompts, seeds), strict=True):
        assert np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).max() <= 1
    decode_in_parts(Recording(), slicing=False, tiling=False)
    with pytest.raises(ModelError, match=r"the decoder of Recording has no tiling; remove renderer.vae_tiling"):
        decode_in_parts(Recording(), slicing=False, tiling=True)


def test_a_renderer_refuses_them_before_it_loads(tmp_path: Path) -> None:
    folder = str(tiny_models.stable_diffusion(tmp_path / "sd"))
    with pytest.raises(ModelError, match="this machine has no GPU"):
        load_renderer(folder, offload="model")
    with pytest.raises(ModelError, match="StableDiffusionPipeline takes no 'negativ_prompt'; did you mean 'negative_p"):
        load_renderer(folder, call={"negativ_prompt": "x"})
