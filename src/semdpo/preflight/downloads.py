"""What a recipe reads from elsewhere: the models to download, and the sources of its prompts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from semdpo.errors import DataError, ModelError
from semdpo.models import registry
from semdpo.models.hub import cache_folder, licence
from semdpo.preflight.resources import GB, Finding, free, where
from semdpo.recipe.schema import Recipe
from semdpo.stages.flow import flow, is_file

TINY, HUB = "tiny:", "hub:"
# Public sets of prompts: a part of their files' paths, their source, and their licence as far as it is known.
PUBLIC = (
    ("captions_", "COCO's captions: cocodataset.org, 2017 Train/Val annotations, CC BY 4.0"),
    ("diffusiondb", "DiffusionDB: huggingface.co/datasets/poloclub/diffusiondb, CC0 1.0"),
    ("lexica", "Lexica: huggingface.co/datasets/Gustavosta/Stable-Diffusion-Prompts, whose page names its licence"),
    ("partiprompts", "PartiPrompts: huggingface.co/datasets/nateraw/parti-prompts, Apache 2.0"),
)
LICENCES = {"poloclub/diffusiondb": "CC0 1.0", "nateraw/parti-prompts": "Apache 2.0"}


def missing_models(recipe: Recipe) -> dict[str, float | None]:
    """The models to download: name → size in gigabytes, None where it is not known.

    Args:
        recipe: the validated recipe; names of models that do not exist are skipped.
    """
    by_path: dict[str, tuple[str, float | None]] = {}
    for name in _models(recipe):
        try:
            place = registry.resolve(name)
            if place.path not in by_path and where(name).startswith("not"):
                published = registry.published(name)
                by_path[place.path] = (name, (published.gigabytes or None) if published else None)
        except ModelError:
            continue
    return dict(by_path.values())


def bytes_to_download(recipe: Recipe, folder: Path) -> float:
    """The bytes to download to the disk of a run's folder; 0 where the models are stored on another disk."""
    if _same_disk(cache_folder(), folder):
        return GB * sum(size or 0.0 for size in missing_models(recipe).values())
    return 0.0


def download(recipe: Recipe) -> list[Finding]:
    """Reports how much will be downloaded and whether there is space for it; empty when all models are here.

    Args:
        recipe: the validated recipe.
    """
    sizes = missing_models(recipe)
    if not sizes:
        return []
    known = {name: size for name, size in sizes.items() if size is not None}
    whole, place = sum(known.values()), cache_folder()
    parts = ", ".join(f"{name} {size:g}" for name, size in sorted(known.items(), key=lambda item: -item[1]))
    text = f"about {whole:.1f} GB for {len(known)} models ({parts})"
    if unknown := [name for name, size in sizes.items() if size is None]:
        text += f", and {', '.join(unknown)}, whose size is not known"
    available = free(place) / GB
    text += f"; {available:.2g} GB free at {place}"
    if whole > available:
        return [Finding("error", "download", text, "set HF_HOME to a folder on a larger disk")]
    return [Finding("warning", "download", text)]


def _models(recipe: Recipe) -> Iterator[str]:
    for stage in flow(recipe):
        for key, name in stage.outside.items():
            if not is_file(key):
                yield name
                yield from _bases(name)


def _bases(name: str) -> Iterator[str]:
    try:
        base = registry.resolve(name).separate_base()
    except ModelError:  # reported where the model itself is looked for
        return
    if base is not None:
        yield base


def _same_disk(one: Path, other: Path) -> bool:
    return _existing(one).stat().st_dev == _existing(other).stat().st_dev


def _existing(folder: Path) -> Path:
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())


# ------------------------------------------------------------------------------------------------- files


def source(key: str, name: str) -> Finding:
    """Reports the source of a file of prompts or rewrites, and whether it is here.

    Args:
        key: the recipe's key.
        name: the key's value: a path, ``tiny:FILE`` or ``hub:OWNER/NAME[:SPLIT]``.
    """
    from semdpo.data.tables import data_files, is_folder, resolve

    if name.startswith(HUB):
        return Finding("ok", name, f"{key}: {_of_the_hub(name.removeprefix(HUB))}")
    public = next((origin for part, origin in PUBLIC if part in name.casefold()), "")
    try:
        if is_folder(name) and key != "atoms.file":  # which is one file
            if not key.startswith("benchmarks."):
                data_files(Path(name))  # which refuses a folder without any
            return Finding("ok", name, f"{key}: your folder")
        path = resolve(name)
    except DataError as error:
        return Finding("error", name, f"{key}: missing", f"{error}{'; it is public: ' if public else ''}{public}")
    size = f"{path.stat().st_size / 1e6:.1f} MB"
    origin = "of the embedded world" if name.startswith(TINY) else f"your file{f' ({public})' if public else ''}"
    return Finding("ok", name, f"{key}: {origin}, {size}")


def _of_the_hub(name: str) -> str:
    repository, _, split = name.partition(":")
    name_of_licence = LICENCES.get(repository) or licence(repository)
    terms = f"licence {name_of_licence}" if name_of_licence else "licence not known; its page names it"
    return f"the split {split or 'train'} of huggingface.co/datasets/{repository}, {terms}; the run downloads it"
