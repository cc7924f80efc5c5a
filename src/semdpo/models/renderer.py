"""Text-to-image models that diffusers loads."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from semdpo import extras
from semdpo.errors import ModelError
from semdpo.models.device import compute
from semdpo.models.loading import UNREADABLE, check_positive, quiet, read_json, unreadable
from semdpo.models.reading import PromptReader
from semdpo.models.registry import resolve
from semdpo.progress import say
from semdpo.recipe import defaults

if TYPE_CHECKING:
    from PIL import Image

Precision = Literal["auto", "float32", "bfloat16", "float16"]


def load_renderer(
    model: str,
    steps: int = 20,
    guidance: float = 7.5,
    height: int | None = None,
    width: int | None = None,
    batch_size: int = defaults.IMAGES_AT_A_TIME,
    precision: Precision = "auto",
    safety_checker: bool = False,
) -> DiffusionRenderer:
    """A diffusion pipeline that samples with DDIM, as the paper does.

    Args:
        model: ``tiny:NAME``, a folder or a published name.
        steps: of the sampler, ≥ 1.
        guidance: scale of classifier-free guidance; 1 or less switches it off.
        height: pixels; None is the model's own.
        width: pixels; None is the model's own.
        batch_size: images at a time, ≥ 1.
        precision: of the weights on a GPU, as for ``compute``. On a CPU weights are float32 always, and ``bfloat16``
            computes in mixed precision, faster where the CPU has it.
        safety_checker: blacken images that the model's own checker refuses; ``render_checked`` flags them. Off,
            they are returned as they are.

    Raises:
        ConfigError: diffusers is not installed.
        ModelError: the name is unknown, the folder holds no pipeline, or an option is out of range.
    """
    extras.require(render="rendering")
    check_positive("steps", steps)
    check_positive("batch_size", batch_size)
    folder = resolve(model).folder()
    where = compute(precision)
    on_cpu = where.device.type == "cpu"
    pipeline = _pipeline(folder, torch.float32 if on_cpu else where.dtype, safety_checker)
    pipeline.to(where.device)
    call = {"num_inference_steps": steps, "guidance_scale": guidance, "height": height, "width": width}
    return DiffusionRenderer(pipeline, call, batch_size, on_cpu and precision == "bfloat16")


def _pipeline(folder: Path, dtype: torch.dtype, checked: bool) -> Any:
    index = read_json(folder / "model_index.json")
    if checked and (index.get("safety_checker") or [None])[0] is None:
        raise ModelError(f"'{folder}' has no safety checker; set safety_checker to false, or use a model that has one")
    without = {"safety_checker": None, "requires_safety_checker": False} if "safety_checker" in index else {}
    if checked:
        without = {}
    elif (index.get("safety_checker") or [None])[0] is not None:
        say(f"the safety checker of {folder.name} is off: images are kept as they are rendered")
    with quiet():
        from diffusers import DDIMScheduler, DiffusionPipeline
    try:
        with quiet():
            pipeline = DiffusionPipeline.from_pretrained(
                str(folder), dtype=dtype, local_files_only=True, use_safetensors=True, **without
            )
    except UNREADABLE as error:
        raise unreadable(folder, "diffusers pipeline", error) from error
    pipeline.set_progress_bar_config(disable=True)
    if DDIMScheduler in [type(pipeline.scheduler), *pipeline.scheduler.compatibles]:
        # DDIM clips samples to [-1, 1] by default: right for pixels, wrong for latents.
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    return pipeline


class DiffusionRenderer:
    """Renders prompts; an image depends on its prompt and seed only, up to rounding.

    Args:
        pipeline: a diffusers text-to-image pipeline.
        call: keyword arguments of every call.
        batch_size: images at a time.
        mixed: compute in bfloat16 where torch holds it safe.
    """

    def __init__(self, pipeline: Any, call: dict[str, Any], batch_size: int, mixed: bool) -> None:
        self._pipeline = pipeline
        self._call = call
        self._batch_size = batch_size
        self._mixed = mixed

    @cached_property
    def _reader(self) -> PromptReader:
        return PromptReader(self._pipeline, self._call)

    def render(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """One RGB image per prompt; rows with equal prompt and seed are rendered once.

        Args:
            prompts: n texts.
            seeds: of the noise, n.

        Raises:
            ModelError: numbers of rows differ, or an image has pixels that are not finite.
            DataError: a prompt contains text that the pipeline would take for its own control tokens.
        """
        return [image for image, _ in self.render_checked(prompts, seeds)]

    def render_checked(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[tuple[Image.Image, bool]]:
        """Like ``render``; with each image goes whether the pipeline's safety checker blackened it."""
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
        """Which prompts are longer than the pipeline's text encoders read, [n]; it reads only their beginning.

        Where it has several, the one that reads most counts.
        """
        return self._reader.too_long(prompts)

    def _render(self, rows: Sequence[tuple[str, int]]) -> list[tuple[Image.Image, bool]]:
        generators = [torch.Generator("cpu").manual_seed(seed) for _, seed in rows]
        autocast = torch.autocast("cpu", torch.bfloat16) if self._mixed else contextlib.nullcontext()
        with quiet(), torch.inference_mode(), autocast:
            output = self._pipeline(
                prompt=[prompt for prompt, _ in rows],
                generator=generators,
                num_images_per_prompt=1,
                output_type="np",
                **self._call,
            )
        values = np.asarray(output.images, np.float32)
        bad = np.flatnonzero(~np.isfinite(values).all(axis=(1, 2, 3)))
        if bad.size:
            raise ModelError(
                f"the image of '{rows[bad[0]][0][:60]}' has pixels that are not finite; use precision float32"
            )
        from PIL import Image

        images = [Image.fromarray(each) for each in (values * 255).round().astype(np.uint8)]
        return list(zip(images, _blackened(output, len(rows)), strict=True))


def _blackened(output: Any, n: int) -> list[bool]:
    """Which of n images a pipeline's checker blackened; without a checker none."""
    for name in ("nsfw_content_detected", "nsfw_detected"):
        flags = getattr(output, name, None)
        if flags is not None:
            return [bool(each) for each in flags]
    return [False] * n
