"""The models and trainers that a run is made with; each is loaded when it is first needed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from semdpo.config import Recipe, SFTConfig, TrainConfig
from semdpo.errors import ModelError
from semdpo.models_config import DecodingConfig, RendererConfig, ScoringConfig
from semdpo.objective import ObjectiveConfig
from semdpo.progress import Progress
from semdpo.protocols import Renderer, Rewriter, Scorer, TextEncoder
from semdpo.records import Curve, Pair, PairLoss
from semdpo.store import folder_hash

T = TypeVar("T")


class CountingRewriter(Rewriter, Protocol):
    """A rewriter that counts as its tokenizer does."""

    def tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """How many tokens each text has."""
        ...


@dataclass(frozen=True)
class Parts:
    """What the pipeline calls; a test or another machine may bring its own.

    Attributes:
        fine_tune: ``stages.sft.fine_tune``.
        train: ``stages.train.train``.
        losses: ``stages.losses.pair_losses``.
        rewriter: from a name or folder, its template (None is the folder's own) and how it decodes.
        renderer: from its settings.
        scorer: from a name and how judges run.
        encoder: from a name.
        fingerprint: of a named model, which changes when the model does; raises ``ModelError`` when there is none.
    """

    fine_tune: Callable[[Sequence[tuple[str, str]], SFTConfig, Path, Progress], list[Curve]]
    train: Callable[[Sequence[Pair], str, ObjectiveConfig, TrainConfig, Path, Path, Progress], list[Curve]]
    losses: Callable[[Sequence[Pair], str, str, float, TrainConfig, Path, Progress], list[PairLoss]]
    rewriter: Callable[[str, str | None, DecodingConfig], CountingRewriter]
    renderer: Callable[[RendererConfig], Renderer]
    scorer: Callable[[str, ScoringConfig], Scorer]
    encoder: Callable[[str], TextEncoder]
    fingerprint: Callable[[str], str]


def real_parts() -> Parts:
    """The parts of this package.

    Stages that follow each other share a renderer or scorer; the one that was used last is let go before another is
    loaded, so that memory holds what one stage needs. The encoder stays.
    """
    heavy = _OneAtATime()
    return Parts(
        fine_tune=_fine_tune,
        train=_train,
        losses=_losses,
        rewriter=_rewriter,
        renderer=partial(heavy.get, _renderer),
        scorer=partial(heavy.get, _scorer),
        encoder=functools.cache(_encoder),
        fingerprint=fingerprint,
    )


class _OneAtATime:
    """Keeps the model that was loaded last."""

    def __init__(self) -> None:
        self.key: tuple[Any, ...] = ()
        self.model: Any = None

    def get(self, load: Callable[..., T], *arguments: Any) -> T:
        if self.key != (load, *arguments):
            self.key, self.model = (), None  # before the next one needs the memory
            self.model = load(*arguments)
            self.key = (load, *arguments)
        model: T = self.model
        return model


def fingerprint(name: str) -> str:
    """Tells two models of one name apart: the hash of a local folder; id and commit of a published one.

    A published model that is not there yet is fetched, so that nothing is begun that cannot be finished.

    Raises:
        ModelError: there is no such model, or it cannot be fetched.
    """
    from semdpo.models.names import resolve

    place = resolve(name)
    folder = place.folder()
    place.texts()
    return folder_hash(folder) if place.local else f"{place.path}@{folder.name}"


def refuse_remote_code(recipe: Recipe) -> None:
    """Models that would run Python code of their own must have been allowed to, before anything is begun.

    Raises:
        ModelError: one was not.
    """
    from semdpo.models.names import published

    judges = {"label.scorer": recipe.label.scorer, "label.fidelity": recipe.label.fidelity or ""}
    judges |= {f"evaluate.metrics.{key}": name for key, name in recipe.evaluate.metrics.items()}
    for key, name in judges.items():
        known = published(name)
        if known is not None and known.runs_code and name not in recipe.scoring.allow_remote_code:
            raise ModelError(
                f"{key}: '{name}' runs Python code that comes with it; if you trust its publisher, say so with "
                f"--set \"scoring.allow_remote_code=['{name}']\"; otherwise remove it from the recipe"
            )


def _fine_tune(pairs: Sequence[tuple[str, str]], config: SFTConfig, output: Path, progress: Progress) -> list[Curve]:
    from semdpo.stages.sft import fine_tune

    return fine_tune(pairs, config, output, progress)


def _train(
    pairs: Sequence[Pair],
    model: str,
    objective: ObjectiveConfig,
    config: TrainConfig,
    output: Path,
    cache: Path,
    progress: Progress,
) -> list[Curve]:
    from semdpo.stages.train import train

    return train(pairs, model, objective, config, output, cache, progress)


def _losses(
    pairs: Sequence[Pair],
    policy: str,
    reference: str,
    beta: float,
    config: TrainConfig,
    cache: Path,
    progress: Progress,
) -> list[PairLoss]:
    from semdpo.stages.losses import pair_losses

    return pair_losses(pairs, policy, reference, beta, config, cache, progress)


def _rewriter(model: str, template: str | None, decoding: DecodingConfig) -> CountingRewriter:
    from semdpo.models.rewriter import load_rewriter

    settings = {name: getattr(decoding, name) for name in DecodingConfig.model_fields if name != "seed"}
    return load_rewriter(model, template, **settings)


def _renderer(config: RendererConfig) -> Renderer:
    from semdpo.models.renderer import load_renderer

    return load_renderer(**config.model_dump())


def _scorer(name: str, config: ScoringConfig) -> Scorer:
    from semdpo.models.scorers import load_scorer

    return load_scorer(name, **config.model_dump())


def _encoder(name: str) -> TextEncoder:
    from semdpo.models.text_encoder import load_text_encoder

    return load_text_encoder(name)
