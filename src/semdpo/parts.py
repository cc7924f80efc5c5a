"""The models and trainers that a run is made with; each is loaded when it is first needed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from semdpo.config import DecodingConfig, ObjectiveConfig, RendererConfig, SFTConfig, TrainConfig
from semdpo.progress import Progress
from semdpo.protocols import Renderer, Rewriter, Scorer, TextEncoder
from semdpo.records import Curve, Pair
from semdpo.store import folder_hash


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
        rewriter: from a trained model's folder and how it decodes.
        renderer: from its settings.
        scorer: from a name and a batch size.
        encoder: from a name.
        fingerprint: of a named model, which changes when the model does; raises ``ModelError`` when there is none.
    """

    fine_tune: Callable[[Sequence[tuple[str, str]], SFTConfig, Path, Progress], list[Curve]]
    train: Callable[[Sequence[Pair], str, ObjectiveConfig, TrainConfig, Path, Path, Progress], list[Curve]]
    rewriter: Callable[[Path, DecodingConfig], CountingRewriter]
    renderer: Callable[[RendererConfig], Renderer]
    scorer: Callable[[str, int], Scorer]
    encoder: Callable[[str], TextEncoder]
    fingerprint: Callable[[str], str]


def real_parts() -> Parts:
    """The parts of this package; a renderer, scorer or encoder that two stages share is loaded once."""
    return Parts(
        fine_tune=_fine_tune,
        train=_train,
        rewriter=_rewriter,
        renderer=functools.cache(_renderer),
        scorer=functools.cache(_scorer),
        encoder=functools.cache(_encoder),
        fingerprint=fingerprint,
    )


def fingerprint(name: str) -> str:
    """Tells two models of one name apart: the hash of a local folder; the id of a published one.

    Raises:
        ModelError: there is no such model.
    """
    from semdpo.models.names import resolve

    place = resolve(name)
    return folder_hash(Path(place.path)) if place.local else place.path


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


def _rewriter(folder: Path, decoding: DecodingConfig) -> CountingRewriter:
    from semdpo.models.rewriter import load_rewriter

    return load_rewriter(
        str(folder),
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        max_new_tokens=decoding.max_new_tokens,
        batch_size=decoding.batch_size,
    )


def _renderer(config: RendererConfig) -> Renderer:
    from semdpo.models.renderer import load_renderer

    return load_renderer(**config.model_dump())


def _scorer(name: str, batch_size: int) -> Scorer:
    from semdpo.models.scorers import load_scorer

    return load_scorer(name, batch_size)


def _encoder(name: str) -> TextEncoder:
    from semdpo.models.text_encoder import load_text_encoder

    return load_text_encoder(name)
