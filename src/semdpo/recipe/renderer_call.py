"""What ``renderer.call`` may pass to a diffusers pipeline; its signature is checked where the pipeline is known."""

from __future__ import annotations

import math
from typing import Any

# Arguments that semdpo sets itself, and the setting to use instead.
_SETTINGS = {
    "prompt": "the rewrites are the prompts",
    "prompt_2": "every encoder reads the rewrite",
    "prompt_3": "every encoder reads the rewrite",
    "num_inference_steps": "use renderer.steps",
    "guidance_scale": "use renderer.guidance",
    "height": "use renderer.height",
    "width": "use renderer.width",
    "num_images_per_prompt": "use candidates.n for more rewrites, or evaluate.image_seeds for more images",
    "generator": "use label.seed or evaluate.image_seeds",
    "latents": "the noise follows the image seed: use label.seed or evaluate.image_seeds",
    "output_type": "semdpo reads the pixels itself",
    "return_dict": "semdpo reads the pixels itself",
    "caption_upsample_temperature": "the model would render another text than the rewrite",
}
# Arguments that are no numbers or texts, and therefore cannot stand in a recipe.
_OBJECTS = ("image", "mask_image", "callback", "callback_steps", "callback_on_step_end")


def checked_call(call: dict[str, Any]) -> dict[str, Any]:
    """Refuses arguments that semdpo sets itself, and values that are no numbers, texts, lists or mappings of them.

    Args:
        call: argument → value.

    Raises:
        ValueError: one of them is refused; the message names the setting to use instead.
    """
    for name, value in call.items():
        if name in _SETTINGS:
            raise ValueError(f"{name} is set by semdpo; remove it: {_SETTINGS[name]}")
        if name.startswith(_OBJECTS) or name.endswith(
            ("_embeds", "_embeds_mask", "_attention_mask", "ip_adapter_image")
        ):
            raise ValueError(f"{name} takes an object of Python, which a recipe cannot hold; remove it")
        if not _is_plain(value):
            raise ValueError(f"{name} must be a number, a text, true, false, null, or a list or mapping of them")
    return call


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(entry) for key, entry in value.items())
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
