"""What a recipe reads from elsewhere: the models that will be downloaded, and where its prompts come from."""

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
# Public sets of prompts: what their files' paths hold, where they are from, and their licence as far as it is known.
PUBLIC = (
    ("captions_", "COCO's captions: cocodataset.org, 2017 Train/Val annotations, CC BY 4.0"),
    ("diffusiondb", "DiffusionDB: huggingface.co/datasets/poloclub/diffusiondb, CC0 1.0"),
    ("lexica", "Lexica: huggingface.co/datasets/Gustavosta/Stable-Diffusion-Prompts, whose page names its licence"),
    ("partiprompts", "PartiPrompts: huggingface.co/datasets/nateraw/parti-prompts, Apache 2.0"),
)
LICENCES = {"poloclub/diffusiondb": "CC0 1.0", "nateraw/parti-prompts": "Apache 2.0"}


def fetched(recipe: Recipe) -> dict[str, float | None]:
    """The models that are not here: name to gigabytes of the files that will be fetched, None where not known.

    Args:
        recipe: validated; names of models that do not exist are passed over.
    """
    found: dict[str, tuple[str, float | None]] = {}
    for name in _models(recipe):
        try:
            place = registry.resolve(name)
            if place.path not in found and where(name).startswith("not"):
                known = registry.published(name)
                found[place.path] = (name, None if known is None or not known.gigabytes else known.gigabytes)
        except ModelError:
            continue
    return dict(found.values())


def to_fetch(recipe: Recipe, folder: Path) -> float:
    """Bytes that will be downloaded to the disk of a run's folder; 0 where the models go to another one."""
    if _same_disk(cache_folder(), folder):
        return GB * sum(each or 0.0 for each in fetched(recipe).values())
    return 0.0


def download(recipe: Recipe) -> list[Finding]:
    """How much will be downloaded, and whether there is room for it; nothing when all models are here.

    Args:
        recipe: validated.
    """
    sizes = fetched(recipe)
    if not sizes:
        return []
    known = {name: size for name, size in sizes.items() if size is not None}
    whole, place = sum(known.values()), cache_folder()
    parts = ", ".join(f"{name} {size:g}" for name, size in sorted(known.items(), key=lambda each: -each[1]))
    told = f"about {whole:.1f} GB of {len(known)} models ({parts})"
    if unknown := [name for name, size in sizes.items() if size is None]:
        told += f", and {', '.join(unknown)}, whose size is not known"
    there = free(place) / GB
    told += f"; {there:.2g} GB free at {place}"
    if whole > there:
        return [Finding("error", "download", told, "set HF_HOME to a folder on a larger disk")]
    return [Finding("warning", "download", told)]


def _models(recipe: Recipe) -> Iterator[str]:
    for stage in flow(recipe):
        yield from (name for key, name in stage.outside.items() if not is_file(key))


def _same_disk(one: Path, other: Path) -> bool:
    return _existing(one).stat().st_dev == _existing(other).stat().st_dev


def _existing(folder: Path) -> Path:
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())


# ------------------------------------------------------------------------------------------------- files


def source(key: str, name: str) -> Finding:
    """Where a file of prompts or rewrites is from, and whether it is here.

    Args:
        key: of the recipe.
        name: what the recipe says: a path, ``tiny:FILE`` or ``hub:OWNER/NAME[:SPLIT]``.
    """
    from semdpo.data.tables import resolve

    if name.startswith(HUB):
        return Finding("ok", name, f"{key}: {_of_the_hub(name.removeprefix(HUB))}")
    known = next((words for part, words in PUBLIC if part in name.casefold()), "")
    try:
        path = resolve(name)
    except DataError as error:
        return Finding("error", name, f"{key}: not there", f"{error}{'; it is public: ' if known else ''}{known}")
    size = f"{path.stat().st_size / 1e6:.1f} MB"
    origin = "the embedded world's" if name.startswith(TINY) else f"your file{f' ({known})' if known else ''}"
    return Finding("ok", name, f"{key}: {origin}, {size}")


def _of_the_hub(name: str) -> str:
    repository, _, split = name.partition(":")
    known = LICENCES.get(repository) or licence(repository)
    terms = f"licence {known}" if known else "licence not known; its page names it"
    return f"the split {split or 'train'} of huggingface.co/datasets/{repository}, {terms}; the run fetches it"
