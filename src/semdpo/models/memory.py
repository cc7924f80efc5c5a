"""How a renderer needs less of a GPU's memory: offloading, decoding in parts, smaller weights."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any, Literal

import torch

from semdpo.errors import ModelError

Offload = Literal["model", "sequential"]
Quantization = Literal["fp8", "8bit", "4bit"]
_LIBRARIES = {"fp8": "torchao", "8bit": "bitsandbytes", "4bit": "bitsandbytes"}


def refuse_without_gpu(device: str, offload: str | None, quantization: str | None) -> None:
    """Refuses settings that need a GPU, and a library that is not installed.

    Args:
        device: The type of the device that models compute on, such as ``cuda``.
        offload: The setting of that name.
        quantization: The setting of that name.

    Raises:
        ModelError: There is no GPU, or the library is missing.
    """
    if device == "cpu" and offload is not None:
        raise ModelError(
            "renderer.offload moves weights between the CPU's memory and a GPU's, and this machine has no GPU; "
            "remove it"
        )
    if quantization is None:
        return
    if device == "cpu":
        raise ModelError("renderer.quantization needs a GPU, and this machine has none; remove it")
    library = _LIBRARIES[quantization]
    if importlib.util.find_spec(library) is None:
        raise ModelError(
            f"renderer.quantization: {quantization} needs {library}; install it with: pip install {library}"
        )


def quantized(index: Mapping[str, Any], quantization: Quantization, dtype: torch.dtype) -> Any:
    """Diffusers' own settings for smaller weights; of the denoiser and of the encoders other than CLIP.

    Args:
        index: The content of the pipeline's ``model_index.json``.
        quantization: ``fp8`` stores weights in eight-bit floating point, ``8bit`` and ``4bit`` (NF4) in integers.
        dtype: What weights are computed in.

    Returns:
        A ``PipelineQuantizationConfig``.
    """
    from diffusers import PipelineQuantizationConfig

    parts = large_parts(index)
    if quantization == "fp8":
        return PipelineQuantizationConfig(quant_mapping={name: _float8(library) for name, library in parts.items()})
    kwargs: dict[str, Any] = {"load_in_8bit": True}
    if quantization == "4bit":
        kwargs = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
    return PipelineQuantizationConfig(
        quant_backend=f"bitsandbytes_{quantization}", quant_kwargs=kwargs, components_to_quantize=list(parts)
    )


def large_parts(index: Mapping[str, Any]) -> dict[str, str]:
    """The parts of a pipeline that have most of its weights, and the library of each: denoiser and large encoders.

    Args:
        index: The content of the pipeline's ``model_index.json``.
    """
    found = {}
    for name, entry in index.items():
        if not isinstance(entry, list) or len(entry) != 2 or not all(isinstance(word, str) for word in entry):
            continue
        library, kind = entry
        if name in ("unet", "transformer") or (name.startswith("text_encoder") and not kind.startswith("CLIP")):
            found[name] = library
    return found


def _float8(library: str) -> Any:
    # No extra has torchao, whose versions follow the GPU's: users install it themselves.
    weights = importlib.import_module("torchao.quantization").Float8WeightOnlyConfig()
    if library == "transformers":
        from transformers import TorchAoConfig

        return TorchAoConfig(weights)
    from diffusers import TorchAoConfig as OfDiffusers

    return OfDiffusers(weights)


def decode_in_parts(pipeline: Any, slicing: bool, tiling: bool) -> None:
    """Makes a pipeline's decoder need less memory.

    Args:
        pipeline: A diffusers pipeline.
        slicing: Whether the images of a batch are decoded one after another.
        tiling: Whether an image is decoded in overlapping tiles, which changes it slightly.

    Raises:
        ModelError: The decoder cannot do it.
    """
    for name, wanted in (("slicing", slicing), ("tiling", tiling)):
        if not wanted:
            continue
        try:
            getattr(pipeline.vae, f"enable_{name}")()
        except (AttributeError, NotImplementedError) as error:
            raise ModelError(
                f"the decoder of {type(pipeline).__name__} has no {name}; remove renderer.vae_{name}"
            ) from error


def place(pipeline: Any, device: torch.device, offload: Offload | None) -> None:
    """Moves a pipeline to the device, or lets diffusers move its parts there when they compute.

    Args:
        pipeline: A diffusers pipeline.
        device: The device that computes.
        offload: ``model`` moves one part at a time, ``sequential`` one layer; None moves all of it now.

    Raises:
        ModelError: Diffusers does not know in which order the pipeline's parts compute.
    """
    if offload == "model" and pipeline.model_cpu_offload_seq is None:
        raise ModelError(f"{type(pipeline).__name__} cannot be offloaded by parts; use renderer.offload: sequential")
    match offload:
        case "model":
            pipeline.enable_model_cpu_offload(device=device)
        case "sequential":
            pipeline.enable_sequential_cpu_offload(device=device)
        case _:
            pipeline.to(device)
