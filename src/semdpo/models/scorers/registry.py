"""``load_scorer``: finds the scorer of a name among the files of this package."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from pathlib import Path

from semdpo.errors import ModelError
from semdpo.models import scorers
from semdpo.models.device import compute
from semdpo.models.loading import check_positive, read_json
from semdpo.models.registry import Place, resolve, short_name
from semdpo.models.scorers.base import BatchedScorer, ScorerKind
from semdpo.protocols import Scorer
from semdpo.recipe import defaults

_NO_SCORERS = ("base", "registry")  # files of the package that hold no scorer


def load_scorer(
    name: str,
    batch_size: int = defaults.IMAGES_AT_A_TIME,
    precision: str = "float32",
    allow_remote_code: Sequence[str] = (),
) -> Scorer:
    """Loads a scorer by name, on the GPU if there is one.

    ``scorer.json`` ({"kind": …}) in the folder names its kind. Without that file, the kind follows from a published
    checkpoint's file name, or from the class that ``config.json`` names: a CLIPModel gives the CLIP score, an
    image-text-to-text model gives P("Yes").

    Args:
        name: The model's name: ``tiny:NAME``, a folder, or a published name.
        batch_size: The number of images scored at a time, ≥ 1.
        precision: The precision of the weights, as for ``compute``.
        allow_remote_code: The names of models whose own Python code may run.

    Raises:
        ModelError: The name is unknown, or the folder cannot be read, holds no scorer, or has to run its own code.
    """
    check_positive("batch_size", batch_size)
    where = compute(precision)
    place = resolve(name)
    kind = _kind(place)
    if kind.runs_code and name not in allow_remote_code:
        raise ModelError(
            f"model '{place.name}' runs Python code that comes with it; if you trust its publisher, allow it with "
            f"scoring.allow_remote_code=['{place.name}']"
        )
    return BatchedScorer(kind.load(place, where), batch_size, kind.reads_prompt)


def kinds() -> list[ScorerKind]:
    """All kinds of scorers: the constant ``SCORER`` of each file of this package, in order of the files' names.

    Raises:
        AttributeError: A file has no such constant.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(scorers.__path__))
    return [importlib.import_module(f"{scorers.__name__}.{name}").SCORER for name in names if name not in _NO_SCORERS]


def _kind(place: Place) -> ScorerKind:
    """The kind of a model; ``ScorerKind`` lists what decides it, in order."""
    all_kinds = kinds()
    by_name = [kind for kind in all_kinds if short_name(place.name) in kind.names]
    if by_name:
        return by_name[0]
    folder = place.folder()
    if (folder / "scorer.json").is_file():
        return _kind_in_file(folder / "scorer.json", all_kinds)
    holding = [kind for kind in all_kinds if any((folder / file).is_file() for file in kind.files)]
    if len(holding) > 1:
        raise ModelError(
            f"'{folder}' holds the checkpoints of several scorers ({', '.join(kind.kind for kind in holding)}); "
            'name one in a file scorer.json there, such as {"kind": "' + holding[0].kind + '"}'
        )
    return holding[0] if holding else _kind_of_class(place.name, folder, all_kinds)


def _kind_in_file(path: Path, all_kinds: Sequence[ScorerKind]) -> ScorerKind:
    name = read_json(path).get("kind")
    for kind in all_kinds:
        if kind.kind == name:
            return kind
    raise ModelError(f"'{path}' names the kind {name!r}; known: {', '.join(kind.kind for kind in all_kinds)}")


def _kind_of_class(name: str, folder: Path, all_kinds: Sequence[ScorerKind]) -> ScorerKind:
    config = read_json(folder / "config.json")
    architectures = config.get("architectures") or []
    by_class = {architecture: kind for kind in all_kinds for architecture in kind.architectures}
    for architecture in architectures:
        if architecture in by_class:
            return by_class[architecture]
    for kind in all_kinds:
        if kind.takes(config):
            return kind
    raise ModelError(
        f"model '{name}' ({', '.join(architectures) or 'no architecture named'}) is not a scorer of images; give a "
        f"CLIPModel, a BlipForImageTextRetrieval, an image-text-to-text model, or a folder whose scorer.json names one "
        f"of {', '.join(kind.kind for kind in all_kinds)}"
    )
