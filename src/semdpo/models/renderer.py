"""Renderers: text-to-image models that diffusers loads."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from semdpo import extras
from semdpo.errors import ModelError
from semdpo.models.device import compute
from semdpo.models.families import GUIDANCE, TRUE_CFG, family_of
from semdpo.models.faster import Scheduler, compile_parts, encode_once, set_scheduler, set_tiny_vae, use_channels_last
from semdpo.models.images import rgb
from semdpo.models.loading import UNREADABLE, check_positive, quiet, read_json, unreadable
from semdpo.models.memory import Offload, Quantization, decode_in_parts, place, quantized, refuse_without_gpu
from semdpo.models.pipeline_call import STEPS, arguments, for_rows, pipeline_class
from semdpo.models.reading import PromptReader
from semdpo.models.registry import resolve
from semdpo.models.text_processor import in_place_of, text_processors
from semdpo.progress import say
from semdpo.recipe import defaults

if TYPE_CHECKING:
    from PIL import Image

Precision = Literal["auto", "float32", "bfloat16", "float16"]
SAMPLERS = {  # the names that AUTOMATIC1111's tools know; those of diffusers' other samplers say enough
    "DPMSolverMultistep": "DPM++ 2M",
    "EulerDiscrete": "Euler",
    "EulerAncestralDiscrete": "Euler a",
    "FlowMatchEulerDiscrete": "Euler",
    "PNDM": "PLMS",
    "UniPCMultistep": "UniPC",
}


def load_renderer(
    model: str,
    steps: int | None = None,
    guidance: float | None = None,
    height: int | None = None,
    width: int | None = None,
    batch_size: int = defaults.IMAGES_AT_A_TIME,
    precision: Precision = "auto",
    safety_checker: bool = False,
    scheduler: Scheduler = "own",
    tiny_vae: str | None = None,
    channels_last: bool = False,
    compiled: bool = False,
    call: Mapping[str, Any] | None = None,
    offload: Offload | None = None,
    vae_slicing: bool = False,
    vae_tiling: bool = False,
    quantization: Quantization | None = None,
) -> DiffusionRenderer:
    """A diffusion pipeline, which renders as its family's authors do (``models/families.py``) by default.

    Args:
        model: The model: ``tiny:NAME``, a folder or a published name.
        steps: The number of the sampler's steps, ≥ 1; None is the family's.
        guidance: The scale of guidance, in the argument that the pipeline takes it in; None is the family's.
        height: The images' height in pixels; None is the model's default.
        width: The images' width in pixels; None is the model's default.
        batch_size: The number of images rendered at a time, ≥ 1; one, where a family's images would depend on others.
        precision: The precision of the weights on a GPU, as for ``compute``. On a CPU, weights are always float32, and
            ``bfloat16`` computes in mixed precision, which is faster on CPUs with bfloat16.
        safety_checker: Whether images that the model's own checker rejects are blackened, and flagged by
            ``render_checked``. Otherwise all images are returned as they are rendered.
        scheduler: The sampler, as for ``set_scheduler``; ``ddim`` is the paper's.
        tiny_vae: A small decoder in place of the model's, as for ``set_tiny_vae``.
        channels_last: Whether convolutions store the channels last; faster on many GPUs in half precision.
        compiled: Whether torch compiles the model, which takes a minute or more before the first image.
        call: Further arguments of the pipeline's call.
        offload: Which weights wait in the CPU's memory, as for ``place``.
        vae_slicing: Whether the images of a batch are decoded one after another.
        vae_tiling: Whether an image is decoded in tiles.
        quantization: Smaller weights, as for ``quantized``.

    Raises:
        ConfigError: diffusers is not installed.
        ModelError: The name is unknown, the folder holds no pipeline, or a setting is out of range or does not fit the
            pipeline.
    """
    extras.require(render="rendering")
    check_positive("steps", 1 if steps is None else steps)
    check_positive("batch_size", batch_size)
    folder = resolve(model).folder()
    where = compute(precision)
    on_cpu = where.device.type == "cpu"
    refuse_without_gpu(where.device.type, offload, quantization)
    family = family_of(folder, model)
    named = arguments(pipeline_class(folder), family, steps, guidance, (height, width), call)
    dtype = torch.float32 if on_cpu else where.dtype
    pipeline = _pipeline(folder, dtype, safety_checker, quantization)
    set_scheduler(pipeline, scheduler)
    if tiny_vae is not None:
        set_tiny_vae(pipeline, tiny_vae, dtype)
    encode_once(pipeline)
    decode_in_parts(pipeline, vae_slicing, vae_tiling)
    place(pipeline, where.device, offload)
    if channels_last:
        use_channels_last(pipeline)
    if compiled:
        compile_parts(pipeline)
    together = 1 if family is not None and family.alone else batch_size
    return DiffusionRenderer(pipeline, named, together, on_cpu and precision == "bfloat16")


def _pipeline(folder: Path, dtype: torch.dtype, checked: bool, quantization: Quantization | None) -> Any:
    index = read_json(folder / "model_index.json")
    if checked and (index.get("safety_checker") or [None])[0] is None:
        raise ModelError(f"'{folder}' has no safety checker; set safety_checker to false, or use a model that has one")
    more: dict[str, Any] = {}
    if not checked and "safety_checker" in index:
        more = {"safety_checker": None, "requires_safety_checker": False}
        if (index["safety_checker"] or [None])[0] is not None:
            say(f"the safety checker of {folder.name} is off: images are kept as they are rendered")
    if quantization is not None:
        more["quantization_config"] = quantized(index, quantization, dtype)
    processors = text_processors(folder, index)
    more |= in_place_of(processors, index)
    with quiet():
        from diffusers import DiffusionPipeline
    try:
        with quiet():
            pipeline = DiffusionPipeline.from_pretrained(
                str(folder), dtype=dtype, local_files_only=True, use_safetensors=True, **more
            )
    except UNREADABLE as error:
        raise unreadable(folder, "diffusers pipeline", error) from error
    for name, processor in processors.items():
        setattr(pipeline, name, processor)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class DiffusionRenderer:
    """Renders prompts; an image depends on its prompt and seed only, up to rounding.

    Args:
        pipeline: A diffusers text-to-image pipeline.
        call: The keyword arguments of every call of the pipeline.
        batch_size: The number of images rendered at a time.
        mixed: Whether to compute in bfloat16 wherever torch's autocast does.
    """

    def __init__(self, pipeline: Any, call: dict[str, Any], batch_size: int, mixed: bool) -> None:
        self._pipeline = pipeline
        self._call = call
        self._batch_size = batch_size
        self._mixed = mixed

    @cached_property
    def _reader(self) -> PromptReader:
        return PromptReader(self._pipeline, self._call)

    @property
    def shown_settings(self) -> tuple[tuple[str, Any], ...]:
        """Steps, sampler and guidance under the names that AUTOMATIC1111's tools read, as far as they are known."""
        sampler = type(self._pipeline.scheduler).__name__.removesuffix("Scheduler")
        guidance = next((self._call[name] for name in (TRUE_CFG, GUIDANCE) if self._call.get(name)), None)
        return (
            ("Steps", self._call.get(STEPS)),
            ("Sampler", SAMPLERS.get(sampler, sampler)),
            ("CFG scale", guidance),
        )

    def render(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """One RGB image per prompt; rows with equal prompt and seed are rendered once.

        Args:
            prompts: The texts to render, n.
            seeds: The seeds of the noise, n.

        Raises:
            ModelError: The numbers of prompts and seeds differ, or an image has pixels that are not finite.
            DataError: A prompt contains text that the pipeline would take for its own control tokens.
        """
        return [image for image, _ in self.render_checked(prompts, seeds)]

    def render_checked(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[tuple[Image.Image, bool]]:
        """Like ``render``, but each image comes with a flag: whether the safety checker blackened it."""
        if len(prompts) != len(seeds):
            raise ModelError(f"an image needs one seed per prompt; got {len(prompts)} prompts and {len(seeds)} seeds")
        rows = list(zip(prompts, seeds, strict=True))
        distinct = list(dict.fromkeys(rows))
        self._reader.check(list(prompts))
        rendered: dict[tuple[str, int], tuple[Image.Image, bool]] = {}
        for start in range(0, len(distinct), self._batch_size):
            batch = distinct[start : start + self._batch_size]
            rendered.update(zip(batch, self._render(batch), strict=True))
        return [rendered[row] for row in rows]

    def too_long(self, prompts: Sequence[str]) -> NDArray[np.bool_]:
        """Which prompts are longer than the pipeline's text encoder reads, [n]; it reads only their beginning.

        If the pipeline has several encoders, the one that reads most counts.
        """
        return self._reader.too_long(prompts)

    def _render(self, rows: Sequence[tuple[str, int]]) -> list[tuple[Image.Image, bool]]:
        generators = [torch.Generator("cpu").manual_seed(seed) for _, seed in rows]
        autocast = torch.autocast("cpu", torch.bfloat16) if self._mixed else contextlib.nullcontext()
        with quiet(), torch.inference_mode(), autocast:
            output = self._pipeline(
                prompt=[prompt for prompt, _ in rows],
                generator=generators,
                output_type="np",
                **for_rows(self._call, len(rows)),
            )
        values = np.asarray(output.images, np.float32)
        bad = np.flatnonzero(~np.isfinite(values).all(axis=(1, 2, 3)))
        if bad.size:
            raise ModelError(
                f"the image of '{rows[bad[0]][0][:60]}' has pixels that are not finite; use precision float32"
            )
        self._refuse_other_size(values.shape[1:3])
        from PIL import Image

        # Qwen-Image-2.1 renders transparency, too.
        images = [rgb(Image.fromarray(pixels)) for pixels in (values * 255).round().astype(np.uint8)]
        return list(zip(images, _blackened(output, len(rows)), strict=True))

    def _refuse_other_size(self, found: Sequence[int]) -> None:
        """Refuses images of another size than was asked for; some pipelines round it without an error."""
        asked = tuple(self._call.get(name) or side for name, side in zip(("height", "width"), found, strict=True))
        if asked != tuple(found):
            raise ModelError(
                f"{type(self._pipeline).__name__} rendered {found[1]}x{found[0]} pixels where {asked[1]}x{asked[0]} "
                "were asked for; set renderer.width and renderer.height to multiples of what it needs, such as 32"
            )


def _blackened(output: Any, n: int) -> list[bool]:
    """Which of n images the pipeline's safety checker blackened; none without a checker."""
    for name in ("nsfw_content_detected", "nsfw_detected"):
        flags = getattr(output, name, None)
        if flags is not None:
            return [bool(flag) for flag in flags]
    return [False] * n
