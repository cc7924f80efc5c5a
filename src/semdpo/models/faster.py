"""What makes a diffusers pipeline faster.

Other samplers, a small decoder, channels last and compiling have a cost, and are chosen. Equal texts of a batch are
always encoded once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Literal

import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel

from semdpo.errors import ModelError
from semdpo.models.loading import UNREADABLE, quiet, unreadable
from semdpo.models.registry import resolve

Scheduler = Literal["ddim", "dpm++", "unipc", "euler", "lcm", "own"]
ENCODERS = (CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel)  # each row of their output is one text's
_CLASSES = {
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "lcm": "LCMScheduler",
}


def set_scheduler(pipeline: Any, name: Scheduler) -> None:
    """Gives a pipeline another sampler.

    Args:
        pipeline: A diffusers pipeline.
        name: ``own`` keeps the model's own. ``ddim`` is the paper's (arXiv 2010.02502). The others need fewer steps:
            DPM-Solver++ (``dpm++``, arXiv 2211.01095), UniPC (arXiv 2302.04867), Euler, and LCM for models distilled
            for it (arXiv 2310.04378).

    Raises:
        ModelError: The model cannot be sampled with it.
    """
    import diffusers

    if name == "own":
        return
    refuse_sampler(type(pipeline.scheduler), pipeline.scheduler.config, name)
    # DDIM and LCM clip samples to [-1, 1] by default: right for pixels, wrong for latents.
    clipping = {"clip_sample": False} if name in ("ddim", "lcm") else {}
    pipeline.scheduler = getattr(diffusers, _CLASSES[name]).from_config(pipeline.scheduler.config, **clipping)


def refuse_sampler(own: type, config: Mapping[str, Any], name: str) -> None:
    """Refuses a sampler that cannot sample a model.

    Args:
        own: The class of the model's own sampler.
        config: The settings of the model's own sampler.
        name: The sampler, as for ``set_scheduler``.

    Raises:
        ModelError: The model is a flow or has a sampler of its own kind, whose settings this one would read wrongly.
    """
    import diffusers

    if name == "own":
        return
    kind = getattr(diffusers, _CLASSES[name])
    of_diffusion = "DDIMScheduler" in (own.__name__, *getattr(own, "_compatibles", ()))
    flows = bool(config.get("use_flow_sigmas")) or config.get("prediction_type") == "flow_prediction"
    reads_flows = "use_flow_sigmas" in inspect.signature(kind).parameters
    if not of_diffusion or (flows and not reads_flows):
        what = "flow" if flows or "Flow" in own.__name__ else "sampler"
        raise ModelError(
            f"the renderer's own {what}, {own.__name__}, cannot be replaced by {name}; set scheduler to own"
        )


def set_tiny_vae(pipeline: Any, model: str, dtype: torch.dtype) -> None:
    """Gives a pipeline a small decoder of its latents, such as TAESD, which is many times faster and loses fine detail.

    Args:
        pipeline: A diffusers pipeline with a VAE.
        model: The AutoencoderTiny: a folder or a published name.
        dtype: The precision of its weights.

    Raises:
        ModelError: There is no such model, or it was made for other latents.
    """
    folder = resolve(model).folder()
    with quiet():
        from diffusers import AutoencoderTiny
    try:
        with quiet():
            small = AutoencoderTiny.from_pretrained(
                str(folder), dtype=dtype, local_files_only=True, use_safetensors=True
            )
    except UNREADABLE as error:
        raise unreadable(folder, "AutoencoderTiny", error) from error
    vae = getattr(pipeline, "vae", None)
    wanted = (
        getattr(getattr(vae, "config", None), "latent_channels", None),
        getattr(pipeline, "vae_scale_factor", None),
    )
    found = (small.config.latent_channels, 2 ** (len(small.config.decoder_block_out_channels) - 1))
    if found != wanted:
        raise ModelError(
            f"tiny_vae '{model}' decodes latents of {found[0]} channels to {found[1]} times their size, and the "
            f"renderer needs {wanted[0]} channels and {wanted[1]} times; take the one that was made for the renderer"
        )
    pipeline.vae = small.eval()


def use_channels_last(pipeline: Any) -> None:
    """Stores the weights of convolutions with the channels last, as GPUs prefer in half precision.

    Args:
        pipeline: A diffusers pipeline.
    """
    for name in ("unet", "vae"):
        if isinstance(part := getattr(pipeline, name, None), torch.nn.Module):
            part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def compile_parts(pipeline: Any) -> None:
    """Compiles what runs in every step, and the decoder; the first image waits for the compiler.

    Args:
        pipeline: A diffusers pipeline.
    """
    for name in ("unet", "transformer"):
        if isinstance(part := getattr(pipeline, name, None), torch.nn.Module):
            part.compile()
    if isinstance(decoder := getattr(getattr(pipeline, "vae", None), "decoder", None), torch.nn.Module):
        decoder.compile()


def encode_once(pipeline: Any) -> None:
    """Makes a pipeline's CLIP and T5 encoders compute equal rows of a batch once.

    A batch has the empty negative prompt once for every image, and a text that is rendered with several seeds once for
    each. Rows are compared as token ids, after all that the pipeline does to a text. Different rows are computed as
    before. Nothing is kept from one batch to the next, so that an image cannot depend on those before it.

    Args:
        pipeline: A diffusers pipeline.
    """
    for part in vars(pipeline).values():
        if isinstance(part, ENCODERS):
            part.forward = _once(part.forward)


def _once(forward: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(forward)
    def once(input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **named: Any) -> Any:
        rows = input_ids if attention_mask is None else torch.cat([input_ids, attention_mask], dim=1)
        distinct, places = torch.unique(rows.cpu(), dim=0, return_inverse=True)
        if len(distinct) == len(rows):
            return forward(input_ids, attention_mask=attention_mask, **named)
        ids, mask = distinct.to(input_ids).split([input_ids.shape[1], rows.shape[1] - input_ids.shape[1]], dim=1)
        output = forward(ids, attention_mask=None if attention_mask is None else mask.to(attention_mask), **named)
        return _repeated(output, places.to(input_ids.device))

    return once


def _repeated(output: Any, places: torch.Tensor) -> Any:
    """An encoder's output with the rows at some places, [n]: a tensor, or whatever holds tensors."""
    if isinstance(output, torch.Tensor):
        return output[places]
    if isinstance(output, dict):
        return type(output)(**{name: _repeated(value, places) for name, value in output.items()})
    return tuple(_repeated(value, places) for value in output)
