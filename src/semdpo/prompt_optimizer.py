"""Rewrites users' prompts, and keeps a prompt when its rewrites drift too far or lose what must not change."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semdpo import fitting, protected_spans
from semdpo.analysis.semantics import UNKNOWN_ALLOWED, cosine_distance
from semdpo.analysis.wording import content_words
from semdpo.errors import ConfigError, DataError, EndpointError, ModelError, RefusedRequestError
from semdpo.guard import Guarded, Rules
from semdpo.optimized import Optimized as Optimized
from semdpo.optimized import Request as Request
from semdpo.protected_spans import Protected
from semdpo.protocols import Answer, KnowsLength, answers
from semdpo.recipe import defaults
from semdpo.recipe.endpoints import EndpointConfig, is_url
from semdpo.recipe.models import DecodingConfig
from semdpo.texts import is_visible, trimmed

if TYPE_CHECKING:
    from semdpo.best_of import BestOf
    from semdpo.models.rewriter_settings import RewriterSettings
    from semdpo.protocols import Rewriter, TextEncoder

KEPT = "the prompt is kept:"
DEFAULT_ENCODER = defaults.ENCODER  # used where neither the user nor the rewriter names an encoder
MOST_VARIANTS = 16
TOKENS_OF_A_SERVER = 128  # the budget of a rewrite of a general language model
LONGEST_PROMPT = 10_000  # characters

log = logging.getLogger("semdpo")


class PromptOptimizer:
    """A rewriter, the encoder that measures how far its rewrites drift, and the guard.

    Args:
        greedy: the rewriter that gives a prompt's most probable rewrite.
        sampling: the rewriter that samples other rewrites, for variants and when that one cannot be used.
        encoder: the encoder that measures the drift.
        max_drift: the largest cosine distance of a rewrite from its prompt, 0 to 2; 2 allows all.
        candidates: the least number of other rewrites to sample, ≥ 1.
        best_of: renders and scores the rewrites that pass the guard; None renders none.
        model: the rewriter's name.
        fingerprint: the SHA-256 of the rewriter's files.
        encoder_name: the encoder's name, for messages.
        max_new_tokens: the rewriters' token budget, for messages; None where it is not known.

    Raises:
        ConfigError: an option is out of range.

    Source:
        The distance: Sem-DPO (arXiv 2507.20133), section 3.

    Example:
        >>> import semdpo
        >>> optimizer = semdpo.PromptOptimizer.from_pretrained("tiny:gpt2", "tiny:clip", max_drift=0.0)
        >>> optimizer.optimize("a red ball in the desert").rewrite  # no rewrite is as near as this
        'a red ball in the desert'
    """

    def __init__(
        self,
        greedy: Rewriter,
        sampling: Rewriter,
        encoder: TextEncoder,
        *,
        max_drift: float = defaults.MAX_DRIFT,
        candidates: int = 8,
        best_of: BestOf | None = None,
        model: str = "",
        fingerprint: str = "",
        encoder_name: str = "the encoder",
        max_new_tokens: int | None = None,
    ) -> None:
        _refuse_bad_limit(max_drift)
        if candidates < 1:
            raise ConfigError(f"candidates must be at least 1, not {candidates}")
        self._greedy, self._sampling, self._encoder = greedy, sampling, encoder
        self._candidates, self._best_of = candidates, best_of
        self.max_drift, self.model, self.fingerprint = max_drift, model, fingerprint
        self.encoder_name, self.max_new_tokens = encoder_name, max_new_tokens

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        encoder: str | None = None,
        *,
        max_drift: float | None = None,
        candidates: int = 8,
        best_of: BestOf | None = None,
        max_new_tokens: int | None = None,
        endpoint: EndpointConfig | None = None,
        system: str | None = None,
    ) -> PromptOptimizer:
        """Loads a trained rewriter, with the settings that ``semdpo.json`` in its folder gives; or asks a server.

        Args:
            path: the rewriter's folder, a model's name, or the URL of a server with OpenAI's chat completions.
            encoder: any CLIP or sentence-transformers model. None takes the encoder that measured the rewriter's
                training pairs; where the rewriter names none, ``tiny:clip``, which knows only the embedded world's
                words.
            max_drift: the largest cosine distance of a rewrite from its prompt, 0 to 2. None takes the limit that the
                run's own evaluation measured (``guard.json`` in the folder), and 0.3 where there is none.
            candidates: the number of other rewrites to sample when the most probable one cannot be used, ≥ 1.
            best_of: renders and scores the rewrites that pass the guard; None renders none.
            max_new_tokens: the token budget of a rewrite; None takes the rewriter's, which fits the longest rewrite
                that it was trained on. Behind a URL it is 128.
            endpoint: how a server is asked: the model's name, the variable with the key; None is the defaults.
            system: what a model behind a URL is asked to do; None is a general instruction.

        Raises:
            ModelError: a model cannot be loaded, or the encoder that the rewriter names is missing.
            ConfigError: an option is out of range, or has no effect.
            StoreError: semdpo wrote the rewriter, and one of its files has changed since.
        """
        from semdpo.engine import fingerprint, model_folders
        from semdpo.models import drift_limit
        from semdpo.models.registry import resolve
        from semdpo.models.rewriter import Decoding, load_rewriter
        from semdpo.models.rewriter_settings import read_settings
        from semdpo.models.text_encoder import load_text_encoder

        shared: dict[str, Any] = {"candidates": candidates, "best_of": best_of}
        if is_url(str(path)):
            from semdpo.models.endpoint import load_endpoint

            name, budget = encoder or DEFAULT_ENCODER, max_new_tokens or TOKENS_OF_A_SERVER
            how = DecodingConfig(temperature=0.0, max_new_tokens=budget)
            server = load_endpoint(str(path), endpoint, how, defaults.SYSTEM if system is None else system)
            return cls(
                server,
                server.at_temperature(1.0),
                load_text_encoder(name),
                max_drift=defaults.MAX_DRIFT if max_drift is None else max_drift,
                model=server.model,
                encoder_name=name,
                max_new_tokens=budget,
                **shared,
            )
        if endpoint is not None or system is not None:
            raise ConfigError(f"endpoint and system are for a model behind a URL, and '{path}' is none; leave them out")
        folder = resolve(str(path)).folder()
        model_folders.refuse_damaged(folder)
        settings = read_settings(folder)
        name = _encoder_of(settings, str(path)) if encoder is None else encoder
        budget = max_new_tokens or settings.max_new_tokens or Decoding().max_new_tokens
        greedy, content = load_rewriter(path, temperature=0.0, max_new_tokens=budget), fingerprint.model(path)
        if greedy.positions is not None and budget >= greedy.positions:
            raise ModelError(
                f"max_new_tokens is {budget}, but the model has room for {greedy.positions} tokens in all; lower it"
            )
        if max_drift is None:
            limit = drift_limit.read(folder, fingerprint.model(name), content)
            max_drift = defaults.MAX_DRIFT if limit is None else limit.max_drift
        return cls(
            greedy,
            greedy.at_temperature(1.0),
            load_text_encoder(name),
            max_drift=max_drift,
            model=str(path),
            fingerprint=content,
            encoder_name=name,
            max_new_tokens=budget,
            **shared,
        )

    def optimize(
        self,
        prompt: str,
        keep: Sequence[str] = (),
        *,
        length: str | int | None = None,
        max_drift: float | None = None,
        banned: Sequence[str] = (),
        seed: int = 0,
    ) -> Optimized:
        """Rewrites one prompt; the arguments are those of ``Request``, and the errors those of ``optimize_all``."""
        request = Request(prompt, _phrases(keep, "keep"), length, max_drift, _phrases(banned, "banned"), seed=seed)
        return self.optimize_all([request])[0][0]

    def optimize_all(self, requests: Sequence[Request], *, stop_when_down: bool = False) -> list[list[Optimized]]:
        """Rewrites prompts, many at a time.

        A rewrite passes the guard when its distance from the prompt is at most ``max_drift``, the encoder knows its
        words, and it has all that must not change: what ``protected_spans`` finds (syntax of image tools, quoted text,
        numbers) and what ``keep`` names. The first variant is the most probable rewrite if it passes; otherwise the
        nearest of the sampled ones; otherwise the user's prompt, with the reason. Further variants come in the order
        of log-likelihood per token minus α·drift, which is the likelihood times Sem-DPO's weight. With ``best_of``, as
        many as it renders come in the order of their images' scores, before the others.

        Distances are those of the texts without syntax. The parts of a prompt that ``BREAK`` or ``AND`` separates are
        rewritten one by one, and ``drift`` is the largest of theirs.

        Args:
            requests: what is asked, n.
            stop_when_down: whether a server that cannot be used is an error. Otherwise all prompts are kept, with that
                reason.

        Returns:
            For each request at least one variant, and at most as many as it asks for.

        Raises:
            DataError: a prompt is empty, or too long.
            ConfigError: a request is out of range.
            EndpointError: with ``stop_when_down``, the rewriter's server cannot be used.
        """
        jobs = [self._job(request) for request in requests]
        self._keep_unmeasurable(jobs)
        parts = [(job.request, part) for job in jobs for part in job.guarded if not job.reason]
        self._ask(self._greedy, [(part, 1) for _, part in parts], 0, stop_when_down)
        more = [(asked, part) for asked, part in parts if not part.passed or asked.n > 1 or self._best_of]
        least = max(self._candidates, self._best_of.n if self._best_of else 1)
        for seed in dict.fromkeys(asked.seed for asked, _ in more):
            group = [(part, max(least, asked.n)) for asked, part in more if asked.seed == seed]
            self._ask(self._sampling, group, seed, stop_when_down)
        return [self._variants(job) for job in jobs]

    def _ask(self, rewriter: Rewriter, parts: Sequence[tuple[Guarded, int]], seed: int, stop_when_down: bool) -> None:
        """Asks for a number of rewrites of each part, and measures those that fit.

        All parts are asked for as many at once, and take the first ones only: a part's rewrites must not depend on how
        many its neighbours need.
        """
        texts, most = [part.read for part, _ in parts], max((n for _, n in parts), default=1)
        for (part, n), found in zip(parts, _answers(rewriter, texts, most, seed, stop_when_down), strict=True):
            part.take(found[:n], probable=rewriter is self._greedy)
        self._measure([part for part, _ in parts])

    def _job(self, request: Request) -> _Job:
        """The parts of a prompt, and those that are to be rewritten."""
        text = trimmed(request.prompt)
        _refuse_bad_request(request, text)
        most = None if request.length is None else fitting.most_tokens(request.length, self.reads)
        if isinstance(self._encoder, KnowsLength):  # what it does not read has no drift
            most = min(most or self.reads, self.reads)
        max_drift = self.max_drift if request.max_drift is None else request.max_drift
        parts = protected_spans.protect(text, request.keep)
        rules = Rules(max_drift, most, self._count, request.banned)
        guarded = [Guarded(part, rules) for part in parts if is_visible(part.plain)]
        return _Job(replace(request, prompt=text), parts, guarded, "" if guarded else "it has no words to rewrite")

    @property
    def reads(self) -> int:
        """The largest ``length``: the number of tokens that the encoder reads, as the renderer's own does."""
        return self._encoder.reads if isinstance(self._encoder, KnowsLength) else defaults.RENDERER_TOKENS

    def _count(self, text: str) -> int:
        return self._encoder.lengths([text])[0] if isinstance(self._encoder, KnowsLength) else len(text.split())

    def _keep_unmeasurable(self, jobs: Sequence[_Job]) -> None:
        """Keeps the prompts whose drift cannot be measured: the encoder does not know or not read all their words."""
        guarded = [(job, part) for job in jobs for part in job.guarded]
        if not guarded:
            return
        embeddings = self._encoder.encode([part.part.plain for _, part in guarded])
        shares = [0.0] * len(guarded) if embeddings.unknown is None else embeddings.unknown
        for (job, _), share, truncated in zip(guarded, shares, embeddings.truncated, strict=True):
            if share > UNKNOWN_ALLOWED:
                job.reason = f"{self.encoder_name} does not know {share:.0%} of its words; name another with --encoder"
            elif truncated:
                job.reason = f"it is longer than {self.encoder_name} reads, which measures drift; shorten it"

    def _measure(self, parts: Sequence[Guarded]) -> None:
        """Measures the drift of all rewrites that have none yet; where that is impossible they are infinitely far."""
        rows = [(part.part.plain, rewrite) for part in parts for rewrite in part.rewrites if rewrite.drift is None]
        texts = list(dict.fromkeys(text for plain, rewrite in rows for text in (plain, rewrite.text)))
        if not rows:
            return
        place, embeddings = {text: k for k, text in enumerate(texts)}, self._encoder.encode(texts)
        before, after = ([place[text] for text in side] for side in zip(*((p, r.text) for p, r in rows), strict=True))
        drifts = cosine_distance(embeddings.vectors[before], embeddings.vectors[after])
        drifts[embeddings.truncated[after]] = math.inf
        if embeddings.unknown is not None:
            drifts[embeddings.unknown[after] > UNKNOWN_ALLOWED] = math.inf
        for (_, rewrite), drift in zip(rows, drifts, strict=True):
            rewrite.drift = float(drift)

    def _variants(self, job: _Job) -> list[Optimized]:
        """The variants of one request, best first; the prompt itself when a part of it has none."""
        refused = job.reason or next((part.refusal for part in job.guarded if not part.passed), "")
        if refused:
            return [self._described(job, job.request.prompt, 0.0, False, f"{KEPT} {refused}")]
        ranked = {id(part.part): part.ranked() for part in job.guarded}
        most = max(len(rewrites) for rewrites in ranked.values())
        found: dict[str, Optimized] = {}
        for k in range(most):
            chosen = {key: rewrites[min(k, len(rewrites) - 1)] for key, rewrites in ranked.items()}
            texts = [chosen[id(p)].restored if id(p) in chosen else p.restore(p.plain) for p in job.parts]
            text = protected_spans.join(job.request.prompt, texts)
            drift = max(rewrite.drift or 0.0 for rewrite in chosen.values())
            truncated = any(rewrite.truncated for rewrite in chosen.values())
            found.setdefault(text, self._described(job, text, drift, truncated))
        variants = list(found.values())
        if self._best_of is not None:
            order = self._best_of.order(job.request.prompt, [each.rewrite for each in variants], job.request.seed)
            variants = [*(variants[k] for k in order), *variants[len(order) :]]
        return variants[: job.request.n]

    def _described(self, job: _Job, text: str, drift: float, truncated: bool, reason: str = "") -> Optimized:
        spans = [span for part in job.parts for span in part.texts]
        before, after = content_words(job.request.prompt), content_words(text)
        return Optimized(
            job.request.prompt,
            text,
            drift,
            tuple(dict.fromkeys([*spans, *(word for word in before if word in after)])),
            tuple(word for word in after if word not in before),
            tuple(word for word in before if word not in after),
            reason,
            job.request.seed,
            truncated,
            self.model,
            self.fingerprint,
        )


@dataclass(slots=True)
class _Job:
    """A request, its prompt's parts, those that are rewritten, and why the prompt is kept; empty if it is not."""

    request: Request
    parts: Sequence[Protected]
    guarded: Sequence[Guarded]
    reason: str


def _answers(rewriter: Rewriter, prompts: Sequence[str], n: int, seed: int, stop_when_down: bool) -> list[list[Answer]]:
    """A rewriter's answers, with as much as it knows of them; a prompt that it cannot read has none, but a reason."""
    if not prompts:
        return []
    try:
        return answers(rewriter, prompts, n, seed)
    except EndpointError as error:  # a server that is down is down for all
        if stop_when_down and not isinstance(error, RefusedRequestError):
            raise
        return [[Answer("", reason=str(error))] for _ in prompts]
    except DataError as error:
        if len(prompts) == 1:
            return [[Answer("", reason=str(error))]]
        return [_answers(rewriter, [prompt], n, seed, stop_when_down)[0] for prompt in prompts]


def _refuse_bad_limit(max_drift: float) -> None:
    if not 0 <= max_drift <= 2:
        raise ConfigError(f"max_drift is {max_drift}; it must be a cosine distance, from 0 to 2")


def _refuse_bad_request(request: Request, text: str) -> None:
    if not is_visible(text):
        raise DataError("the prompt is empty, or shows nothing; say what the image should show")
    if len(text) > LONGEST_PROMPT:
        raise DataError(f"the prompt has {len(text)} characters; shorten it to at most {LONGEST_PROMPT}")
    if request.max_drift is not None:
        _refuse_bad_limit(request.max_drift)
    if not 1 <= request.n <= MOST_VARIANTS:
        raise ConfigError(f"n is {request.n}; ask for 1 to {MOST_VARIANTS} variants")
    if not 0 <= request.seed < 2**63:
        raise ConfigError(f"seed is {request.seed}; it must be from 0 to 2**63 - 1")
    for phrase in _phrases(request.banned, "banned"):
        if not is_visible(phrase):
            raise ConfigError("banned has an empty phrase; remove it")


def _phrases(phrases: Sequence[str], name: str) -> tuple[str, ...]:
    if isinstance(phrases, str):
        raise ConfigError(f"{name} is the text '{phrases}'; give a list of words and phrases")
    return tuple(phrases)


def _encoder_of(settings: RewriterSettings, path: str) -> str:
    """The encoder that a rewriter names; warns where its files have changed since it measured the training pairs.

    Raises:
        ModelError: the encoder is missing.
    """
    from semdpo.engine import fingerprint

    if settings.encoder is None:
        return DEFAULT_ENCODER
    try:
        now = fingerprint.model(settings.encoder)
    except ModelError as error:
        raise ModelError(
            f"the encoder '{settings.encoder}', which measured the training pairs of '{path}', is missing ({error}); "
            "restore it, or name another with --encoder (in Python: encoder=)"
        ) from error
    if settings.encoder_fingerprint not in (None, now):
        log.warning(
            "the encoder '%s' has changed since it measured the training pairs of '%s'; its distances may differ",
            settings.encoder, path,
        )  # fmt: skip
    return settings.encoder
