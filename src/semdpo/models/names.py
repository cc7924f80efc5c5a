"""From the name of a model to the place where it lies."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from semdpo.errors import ModelError, did_you_mean

TINY = Path(__file__).resolve().parent.parent / "world" / "weights"

# Short names of published models, and the repositories of the hub that hold them.
PUBLISHED = {
    "image-reward": "THUDM/ImageReward",
    "hpsv2.1": "xswu/HPSv2",
    "pickscore": "yuvalkirstain/PickScore_v1",
    "clip-vit-large-patch14": "openai/clip-vit-large-patch14",
    "blip-itm-base-coco": "Salesforce/blip-itm-base-coco",
    "stable-diffusion-v1-4": "CompVis/stable-diffusion-v1-4",
    "gpt2": "openai-community/gpt2",
}

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model lies.

    Attributes:
        name: what the user wrote.
        path: a folder's path, or a hub id.
        local: whether ``path`` is a folder.
    """

    name: str
    path: str
    local: bool

    def folder(self) -> Path:
        """The folder; a hub id is looked up among what has been downloaded, and fetched when it is not there.

        Raises:
            ModelError: the hub cannot be reached, or does not have it.
        """
        if self.local:
            return Path(self.path)
        from huggingface_hub import snapshot_download

        from semdpo.models.loading import quiet

        try:
            with quiet():
                return Path(
                    snapshot_download(self.path, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model", "*.md"])
                )
        except (OSError, ValueError) as error:
            raise ModelError(
                f"model '{self.name}' could not be fetched from the hub as '{self.path}'; check the connection, or "
                "download it elsewhere and give its folder"
            ) from error


def resolve(name: str) -> Place:
    """Find a model.

    Args:
        name: ``tiny:NAME`` (the embedded world), an existing folder, a short published name, or ``owner/name``.

    Raises:
        ModelError: nothing of that name is known, or the folder is no model folder.
    """
    text = str(name).strip()
    if text.startswith("tiny:"):
        return Place(text, str(_tiny(text)), local=True)
    if text in PUBLISHED and not Path(text).is_dir():
        return Place(text, PUBLISHED[text], local=False)
    if text and Path(text).is_dir():
        return Place(text, text, local=True)
    if text and Path(text).is_file():
        raise ModelError(f"model '{text}' is a file; give the folder that it lies in")
    if _HUB_ID.fullmatch(text):
        return Place(text, text, local=False)
    known = [*PUBLISHED, *(f"tiny:{each}" for each in tiny_names())]
    raise ModelError(f"model '{text}' is neither a folder nor a known name{did_you_mean(text, known)}")


def tiny_names() -> list[str]:
    """The models of the embedded world, sorted."""
    return sorted(each.name for each in TINY.iterdir() if each.is_dir()) if TINY.is_dir() else []


def _tiny(name: str) -> Path:
    wanted = name.removeprefix("tiny:")
    known = tiny_names()
    if wanted in known:
        return TINY / wanted
    if not known:
        raise ModelError(f"model '{name}' is not there: build the embedded models with `semdpo world build`")
    raise ModelError(f"there is no model '{name}'{did_you_mean(name, [f'tiny:{each}' for each in known])}")
