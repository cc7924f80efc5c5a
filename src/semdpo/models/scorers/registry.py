"""``load_scorer``, which finds the scorer that a name stands for among the files of this package."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from pathlib import Path

from semdpo.errors import ModelError
from semdpo.models import scorers
from semdpo.models.device import compute
from semdpo.models.loading import check_positive, read_json
from semdpo.models.registry import Place, resolve
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
    """The scorer that a name stands for, on the GPU where there is one.

    ``scorer.json`` ({"kind": …}) in the folder names its kind. Without that file the kind follows from upstream's file
    name, or from the class that ``config.json`` names: a CLIPModel gives the CLIP score, an image-text-to-text model
    its P("Yes").

    Args:
        name: ``tiny:NAME``, a folder, or a published name.
        batch_size: images at a time, ≥ 1.
        precision: of the weights, as for ``compute``.
        allow_remote_code: names of models whose own Python code may run.

    Raises:
        ModelError: the name is unknown, the folder cannot be read, holds no scorer, or needs to run code of its own.
    """
    check_positive("batch_size", batch_size)
    where = compute(precision)
    place = resolve(name)
    found = _kind(place)
    if found.runs_code and name not in allow_remote_code:
        raise ModelError(
            f"model '{place.name}' runs Python code that comes with it; if you trust its publisher, allow it with "
            f"scoring.allow_remote_code=['{place.name}']"
        )
    return BatchedScorer(found.load(place, where), batch_size)


def kinds() -> list[ScorerKind]:
    """All kinds of scorers: the constant ``SCORER`` of each file of this package, in order of the files' names.

    Raises:
        AttributeError: a file has no such constant.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(scorers.__path__))
    return [importlib.import_module(f"{scorers.__name__}.{name}").SCORER for name in names if name not in _NO_SCORERS]


def _kind(place: Place) -> ScorerKind:
    """Which kind a model is of; ``ScorerKind`` lists what is asked, and in which order."""
    known = kinds()
    named = [each for each in known if place.name in each.names]
    if named:
        return named[0]
    folder = place.folder()
    if (folder / "scorer.json").is_file():
        return _kind_in_file(folder / "scorer.json", known)
    holding = [each for each in known if any((folder / file).is_file() for file in each.files)]
    if len(holding) > 1:
        raise ModelError(
            f"'{folder}' holds the checkpoints of several scorers ({', '.join(each.kind for each in holding)}); "
            'name one in a file scorer.json there, such as {"kind": "' + holding[0].kind + '"}'
        )
    return holding[0] if holding else _kind_of_class(place.name, folder, known)


def _kind_in_file(path: Path, known: Sequence[ScorerKind]) -> ScorerKind:
    kind = read_json(path).get("kind")
    for each in known:
        if each.kind == kind:
            return each
    raise ModelError(f"'{path}' names the kind {kind!r}; known: {', '.join(each.kind for each in known)}")


def _kind_of_class(name: str, folder: Path, known: Sequence[ScorerKind]) -> ScorerKind:
    config = read_json(folder / "config.json")
    architectures = config.get("architectures") or []
    by_class = {architecture: each for each in known for architecture in each.architectures}
    for architecture in architectures:
        if architecture in by_class:
            return by_class[architecture]
    for each in known:
        if each.takes(config):
            return each
    raise ModelError(
        f"model '{name}' ({', '.join(architectures) or 'no architecture named'}) is not a scorer of images; give a "
        f"CLIPModel, a BlipForImageTextRetrieval, an image-text-to-text model, or a folder whose scorer.json names one "
        f"of {', '.join(each.kind for each in known)}"
    )
