"""The guard: which rewrites of a prompt's part can be used, and in which order they come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from semdpo import fitting
from semdpo.protected_spans import LostSpanError, Protected
from semdpo.protocols import Answer
from semdpo.recipe import defaults
from semdpo.texts import is_visible, shown


@dataclass(frozen=True, slots=True)
class Rules:
    """What a rewrite must satisfy.

    Attributes:
        max_drift: the largest cosine distance from the prompt, 0 to 2.
        most: the largest number of tokens; None is no limit.
        count: counts a text's tokens.
        banned: words and phrases that it must not contain, as whole words.
    """

    max_drift: float
    most: int | None
    count: fitting.Count
    banned: Sequence[str] = ()


@dataclass(slots=True)
class Rewrite:
    """A rewrite of one part.

    Attributes:
        text: the text that drift is measured of, without syntax.
        restored: the text with the prompt's spans put back.
        probable: whether it is the rewriter's most probable one.
        truncated: whether the rewriter's token budget truncated it.
        likelihood: the mean of log π over its tokens, in nats; None where it is not known.
        drift: the cosine distance from the prompt, infinite where it cannot be measured; None before that.
    """

    text: str
    restored: str
    probable: bool
    truncated: bool
    likelihood: float | None
    drift: float | None = None

    @property
    def merit(self) -> float:
        """The mean log-likelihood minus α·drift: the likelihood times Sem-DPO's weight, with the paper's α."""
        return (self.likelihood or 0.0) - defaults.ALPHA * (self.drift or 0.0)


@dataclass(slots=True)
class Guarded:
    """One part of a prompt, and its rewrites.

    Attributes:
        part: the part, without its syntax.
        rules: what its rewrites must satisfy.
        rewrites: those that fit and have all spans.
        lost: a span that a rewrite lost.
        unfit: why an answer was no rewrite that fits.
    """

    part: Protected
    rules: Rules
    rewrites: list[Rewrite] = field(default_factory=list)
    lost: str = ""
    unfit: str = ""

    @property
    def read(self) -> str:
        """What the rewriter reads. Few rewriters have ever read whole prompts in capitals."""
        plain = self.part.plain
        return plain.lower() if plain.upper() == plain != plain.lower() and " " in plain else plain

    @property
    def passed(self) -> list[Rewrite]:
        """The rewrites that pass the guard."""
        return [each for each in self.rewrites if each.drift is not None and each.drift <= self.rules.max_drift]

    @property
    def refusal(self) -> str:
        """Why no rewrite passes the guard."""
        if self.lost:
            return f"no rewrite kept {shown(self.lost)} and was near enough"
        if self.rewrites or not self.unfit:
            return f"no rewrite was near enough (drift at most {self.rules.max_drift:.3g})"
        return self.unfit

    def take(self, answers: Sequence[Answer], probable: bool) -> None:
        """Adds the rewrites that are new, fit, and have all spans.

        Args:
            answers: the rewriter's answers.
            probable: whether they are the most probable ones, not sampled.
        """
        known = {rewrite.text for rewrite in self.rewrites}
        for answer in answers:
            text = self._fitted(answer)
            if text is None or text in known:
                continue
            known.add(text)
            try:
                restored = self.part.restore(text)
            except LostSpanError as error:
                self.lost = error.text
                continue
            self.rewrites.append(Rewrite(text, restored, probable, answer.truncated, answer.likelihood))

    def ranked(self) -> list[Rewrite]:
        """The rewrites that pass: the most probable one, or else the nearest; then the others by merit."""
        passed = self.passed
        first = next((each for each in passed if each.probable), min(passed, key=lambda each: each.drift or 0.0))
        others = [each for each in passed if each is not first]
        return [first, *sorted(others, key=lambda each: each.merit, reverse=True)]

    def _fitted(self, answer: Answer) -> str | None:
        if not is_visible(answer.text):
            self.unfit = answer.reason or "the rewriter wrote nothing"
            return None
        rules = self.rules
        if rules.most is None and not rules.banned:
            return answer.text
        text = fitting.fitted(answer.text, rules.most, rules.count, rules.banned, answer.truncated)
        if text is None:
            self.unfit = (
                "all rewrites were too long" if not rules.banned else "all rewrites were too long or had banned words"
            )
        return text
