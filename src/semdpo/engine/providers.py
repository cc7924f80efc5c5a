"""The models that a run uses; each is loaded when it is first needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from semdpo.engine import fingerprint, store
from semdpo.errors import ModelError
from semdpo.protocols import Renderer, Rewriter, Scorer, TextEncoder
from semdpo.recipe.models import DecodingConfig, RendererConfig, ScoringConfig
from semdpo.recipe.schema import Recipe

T = TypeVar("T")


class CountingRewriter(Rewriter, Protocol):
    """A rewriter that counts as its tokenizer does."""

    def tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """How many tokens each text has."""
        ...


@dataclass(frozen=True)
class Models:
    """How a run gets its models; a test or another machine may bring its own.

    Attributes:
        rewriter: from a name or folder, its template (None is the folder's own) and how it decodes.
        renderer: from its settings.
        scorer: from a name and how scorers run.
        encoder: from a name.
        fingerprint: of a named model, which changes when the model does; raises ``ModelError`` when there is none.
    """

    rewriter: Callable[[str, str | None, DecodingConfig], CountingRewriter]
    renderer: Callable[[RendererConfig], Renderer]
    scorer: Callable[[str, ScoringConfig], Scorer]
    encoder: Callable[[str], TextEncoder]
    fingerprint: Callable[[str], str]


def own_models() -> Models:
    """The models of this package.

    Stages that follow each other share a renderer or scorer; the one that was used last is let go before another is
    loaded, so that memory holds what one stage needs. The encoder stays. A model whose files have changed since is
    loaded again.
    """
    heavy, encoder = _OneAtATime(), _OneAtATime()
    return Models(
        rewriter=_rewriter,
        renderer=lambda config: heavy.get(config.model, _renderer, config),
        scorer=lambda name, config: heavy.get(name, _scorer, name, config),
        encoder=lambda name: encoder.get(name, _encoder, name),
        fingerprint=fingerprint.model,
    )


class _OneAtATime:
    """Keeps the model that was loaded last."""

    def __init__(self) -> None:
        self.key: tuple[Any, ...] = ()
        self.model: Any = None

    def get(self, name: str, load: Callable[..., T], *arguments: Any) -> T:
        key = (fingerprint.model(name), load, *arguments)
        if self.key != key:
            self.key, self.model = (), None  # before the next one needs the memory
            self.model = load(*arguments)
            self.key = key
        model: T = self.model
        return model


def refuse_remote_code(recipe: Recipe) -> None:
    """Models that would run Python code of their own must have been allowed to, before anything is begun.

    Raises:
        ModelError: one was not.
    """
    from semdpo.models.registry import published

    scorers = {"label.scorer": recipe.label.scorer, "label.fidelity": recipe.label.fidelity or ""}
    scorers |= {f"evaluate.metrics.{key}": name for key, name in recipe.evaluate.metrics.items()}
    for key, name in scorers.items():
        known = published(name)
        if known is not None and known.runs_code and name not in recipe.scoring.allow_remote_code:
            raise ModelError(
                f"{key}: '{name}' runs Python code that comes with it; if you trust its publisher, say so with "
                f"--set \"scoring.allow_remote_code=['{name}']\"; otherwise remove it from the recipe"
            )


def _rewriter(model: str, template: str | None, decoding: DecodingConfig) -> CountingRewriter:
    from semdpo.models.registry import resolve
    from semdpo.models.rewriter import load_rewriter

    store.refuse_damaged(resolve(model).folder())
    settings = {name: getattr(decoding, name) for name in DecodingConfig.model_fields if name != "seed"}
    return load_rewriter(model, template, **settings)


def _renderer(config: RendererConfig) -> Renderer:
    from semdpo.models.renderer import load_renderer

    return load_renderer(**config.model_dump())


def _scorer(name: str, config: ScoringConfig) -> Scorer:
    from semdpo.models.scorers.registry import load_scorer

    return load_scorer(name, **config.model_dump())


def _encoder(name: str) -> TextEncoder:
    from semdpo.models.text_encoder import load_text_encoder

    return load_text_encoder(name)
