"""Before and after: the images of a prompt and of its rewrite with one seed, side by side, in a PNG that says both."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from semdpo.protected_spans import readable

if TYPE_CHECKING:
    from PIL import Image

    from semdpo.protocols import Renderer

GAP = 8  # pixels between the images


@dataclass(frozen=True, slots=True)
class Rendered:
    """How an image was made.

    Attributes:
        prompt: the text that was rendered.
        original: the user's prompt; None when it is not known.
        seed: the image's seed.
        renderer: the text-to-image model's name.
        rewriter: the rewriter's name, and the SHA-256 of its files; empty when it is not known.
        settings: the renderer's settings under the names that AUTOMATIC1111's tools read, such as Steps.
    """

    prompt: str
    original: str | None
    seed: int
    renderer: str
    rewriter: tuple[str, str] = ("", "")
    settings: tuple[tuple[str, Any], ...] = ()


def settings_of(renderer: object) -> tuple[tuple[str, Any], ...]:
    """The settings that a renderer reports of itself, under the names that ``Rendered`` wants.

    Args:
        renderer: a renderer; one that reports none has none.
    """
    return tuple(getattr(renderer, "shown_settings", ()))


def too_long(renderer: object, texts: Sequence[str]) -> list[bool]:
    """Which texts a renderer reads only the beginning of, without other tools' syntax, [n].

    Args:
        renderer: a renderer; one that does not know how much it reads reads all.
        texts: prompts and rewrites, n.
    """
    known = getattr(renderer, "too_long", None)
    return [False] * len(texts) if known is None else [bool(flag) for flag in known([readable(t) for t in texts])]


def side_by_side(before: Image.Image, after: Image.Image) -> Image.Image:
    """Two images beside each other on white, the first one on the left."""
    from PIL import Image

    size = (before.width + GAP + after.width, max(before.height, after.height))
    canvas = Image.new("RGB", size, "white")
    canvas.paste(before, (0, 0))
    canvas.paste(after, (before.width + GAP, 0))
    return canvas


def render_both(renderer: Renderer, prompt: str, rewrite: str, seed: int) -> Image.Image:
    """The images of a prompt and its rewrite with the same seed, side by side.

    Syntax of other image tools, such as ``(red:1.2)`` or a LoRA's tag, is not part of what is rendered.
    """
    return side_by_side(*renderer.render([readable(prompt), readable(rewrite)], [seed, seed]))


def png(image: Image.Image, made: Rendered) -> bytes:
    """An image as a PNG whose metadata says how it was made.

    ``parameters`` is the text that AUTOMATIC1111's tools read; ``semdpo`` has all values as JSON.
    """
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("parameters", parameters(image, made))
    values = {
        "prompt": made.original,
        "rewrite": made.prompt,
        "seed": made.seed,
        "renderer": made.renderer,
        "rewriter": made.rewriter[0],
        "rewriter_sha256": made.rewriter[1],
    }
    info.add_text("semdpo", json.dumps(values, ensure_ascii=False))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def parameters(image: Image.Image, made: Rendered) -> str:
    """The text in AUTOMATIC1111's notation: the prompt, then settings with commas between them.

    Source: ``create_infotext`` and ``quote`` of AUTOMATIC1111's stable-diffusion-webui.
    """
    values = {
        **dict(made.settings),
        "Seed": made.seed,
        "Size": f"{image.width}x{image.height}",
        "Model": made.renderer,
        "Original prompt": made.original,
        "Rewriter": made.rewriter[0],
    }
    given = ", ".join(f"{name}: {_quoted(value)}" for name, value in values.items() if value not in (None, ""))
    return f"{' '.join(made.prompt.split())}\n{given}"


def _quoted(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ',:\n"') else text
