"""The models that a run uses; a model is loaded when it is first needed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from semdpo.engine import fingerprint, model_folders
from semdpo.errors import ModelError
from semdpo.protocols import Answerer, Renderer, Rewriter, Scorer, TextEncoder
from semdpo.recipe.base import Template
from semdpo.recipe.endpoints import is_url
from semdpo.recipe.models import DecodingConfig, RendererConfig, RewriterSource, ScoringConfig
from semdpo.recipe.schema import Recipe

T = TypeVar("T")


class CountingRewriter(Rewriter, Protocol):
    """A rewriter that counts the tokens of texts."""

    def tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Counts each text's tokens, [n], under the rewriter's tokenizer."""
        ...


def _endpoint(source: RewriterSource, decoding: DecodingConfig) -> Rewriter:
    from semdpo.models.endpoint import load_endpoint

    return load_endpoint(source.model, source.endpoint, decoding, source.instruction)


def _answerer(name: str, config: ScoringConfig) -> Answerer:
    if is_url(name):
        from semdpo.models.endpoint_answerer import load_endpoint_answerer

        return load_endpoint_answerer(name, config.endpoints[name])
    from semdpo.models.answerer import load_answerer

    return load_answerer(name, config.batch_size, config.precision)


def _keeps_nothing() -> None:
    pass


@dataclass(frozen=True)
class Models:
    """Functions that load a run's models; a test may bring its own.

    Attributes:
        rewriter: loads a rewriter, from its name or folder, its template (None is the folder's own) and its decoding.
        renderer: loads a text-to-image model, from its settings.
        scorer: loads a scorer, from its name and how scorers run.
        encoder: loads a text encoder, from its name.
        fingerprint: gives a model's fingerprint, from its name; raises ``ModelError`` when there is no such model.
        endpoint: connects to a rewriter behind a URL, from its settings and its decoding.
        answerer: loads a model that answers questions about images, from its name and how scorers run.
        release: removes from memory what these functions keep there; the next one that is asked for is loaded again.
    """

    rewriter: Callable[[str, Template | str | None, DecodingConfig], CountingRewriter]
    renderer: Callable[[RendererConfig], Renderer]
    scorer: Callable[[str, ScoringConfig], Scorer]
    encoder: Callable[[str], TextEncoder]
    fingerprint: Callable[[str], str]
    endpoint: Callable[[RewriterSource, DecodingConfig], Rewriter] = _endpoint
    answerer: Callable[[str, ScoringConfig], Answerer] = _answerer
    release: Callable[[], None] = _keeps_nothing

    def other_rewriter(self, source: RewriterSource, decoding: DecodingConfig) -> Rewriter:
        """Loads a rewriter that this run does not train: from its files, or by its URL."""
        if source.is_remote:
            return self.endpoint(source, decoding)
        return self.rewriter(source.model, source.reads, decoding)

    def content(self, name: str) -> str:
        """What stands for a model in a key: its fingerprint; for a server, its address.

        Raises:
            ModelError: there is no such model.
        """
        return name if is_url(name) else self.fingerprint(name)


def own_models(allow_remote_code: Collection[str] = ()) -> Models:
    """The models of this package.

    Args:
        allow_remote_code: the names of encoders whose own Python code may run; scorers have it in their settings.

    Consecutive stages share a renderer or scorer. It is removed from memory before another one is loaded, so that
    memory holds only the models of one stage. The encoder stays in memory, except during a training. A model whose
    files have changed is loaded again. What a server computes needs no memory here.
    """
    heavy, encoder, server = _OneAtATime(), _OneAtATime(), _OneAtATime()

    def renderer(config: RendererConfig) -> Renderer:
        if config.is_remote:
            return server.get([], _remote_renderer, config)
        return heavy.get(config.models("renderer").values(), _renderer, config)

    def scorer(name: str, config: ScoringConfig) -> Scorer:
        return _remote_scorer(name, config) if is_url(name) else heavy.get([name], _scorer, name, config)

    def answerer(name: str, config: ScoringConfig) -> Answerer:
        return _answerer(name, config) if is_url(name) else heavy.get([name], _answerer, name, config)

    def release() -> None:
        heavy.clear()
        encoder.clear()
        _collect_garbage()

    return Models(
        rewriter=_rewriter,
        renderer=renderer,
        scorer=scorer,
        encoder=lambda name: encoder.get([name], _encoder, name, tuple(allow_remote_code)),
        fingerprint=fingerprint.model,
        answerer=answerer,
        release=release,
    )


class _OneAtATime:
    """Keeps the model that was loaded last, and no other."""

    def __init__(self) -> None:
        self.key: tuple[Any, ...] = ()
        self.model: Any = None

    def get(self, names: Iterable[str], load: Callable[..., T], *arguments: Any) -> T:
        key = (*map(fingerprint.model, names), load, *arguments)
        if self.key != key:
            if self.model is not None:  # before the next one needs the memory
                self.clear()
                _collect_garbage()
            self.model = load(*arguments)
            self.key = key
        model: T = self.model
        return model

    def clear(self) -> None:
        self.key, self.model = (), None


def _collect_garbage() -> None:
    from semdpo.models.device import collect_garbage  # here, since it imports torch

    collect_garbage()


def refuse_remote_code(recipe: Recipe) -> None:
    """Refuses scorers and an encoder that run their own Python code, unless the recipe allows it.

    Args:
        recipe: the validated recipe.

    Raises:
        ModelError: the recipe does not allow one of them.
    """
    from semdpo.models.registry import published

    for key, name in (recipe.scorers | {"drift.encoder": recipe.drift.encoder}).items():
        model = published(name)
        if model is not None and model.runs_code and name not in recipe.scoring.allow_remote_code:
            raise ModelError(
                f"{key}: '{name}' runs Python code that comes with it; if you trust its publisher, allow it with "
                f"--set \"scoring.allow_remote_code=['{name}']\"; otherwise name another model"
            )


def refuse_blind_fidelity(recipe: Recipe) -> None:
    """Refuses scorers that do not read the prompt where the recipe asks whether an image shows it.

    Args:
        recipe: the validated recipe.

    Raises:
        ModelError: ``label.fidelity``, ``sweep.fidelity`` or ``report.fidelity`` names such a scorer.
    """
    from semdpo.models.registry import reads_prompt

    metrics = recipe.evaluate.metrics
    asked = {} if recipe.label.fidelity is None else {"label.fidelity": recipe.label.fidelity}
    asked |= {f"report.fidelity {key}": metrics[key] for key in recipe.report.fidelity}
    if recipe.sweep is not None:
        asked["sweep.fidelity"] = metrics[recipe.sweep.fidelity]
    for key, name in asked.items():
        if not reads_prompt(name):
            raise ModelError(
                f"{key}: '{name}' does not read the prompt, so it cannot tell whether an image shows it; name a scorer "
                "that does, such as hpsv2.1"
            )


def _rewriter(model: str, template: Template | str | None, decoding: DecodingConfig) -> CountingRewriter:
    from semdpo.models.registry import resolve
    from semdpo.models.rewriter import load_rewriter

    model_folders.refuse_damaged(resolve(model).folder())
    settings = {name: getattr(decoding, name) for name in DecodingConfig.model_fields if name != "seed"}
    return load_rewriter(model, template, **settings)


def _renderer(config: RendererConfig) -> Renderer:
    from semdpo.models.renderer import load_renderer

    return load_renderer(**config.model_dump(exclude={"endpoint"}))


def _remote_renderer(config: RendererConfig) -> Renderer:
    from semdpo.models.endpoint_renderer import load_endpoint_renderer

    return load_endpoint_renderer(config)


def _remote_scorer(name: str, config: ScoringConfig) -> Scorer:
    from semdpo.models.endpoint_scorer import load_endpoint_scorer

    return load_endpoint_scorer(name, config.endpoints[name])


def _scorer(name: str, config: ScoringConfig) -> Scorer:
    from semdpo.models.scorers.registry import load_scorer

    return load_scorer(name, **config.model_dump(exclude={"endpoints"}))


def _encoder(name: str, allow_remote_code: Collection[str]) -> TextEncoder:
    from semdpo.models.text_encoder import load_text_encoder

    return load_text_encoder(name, allow_remote_code=allow_remote_code)
