"""Settings of the stages pairs and drift: which candidates make a pair, and how far it is from its prompt."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_serializer

from semdpo.recipe import defaults
from semdpo.recipe.base import Positive, Settings, Text


class PairsConfig(Settings):
    """How candidates are paired: the two scores must differ, by at least ``margin``.

    Attributes:
        margin: the least difference of the two scores.
        min_fidelity: pairs whose chosen image has a lower score of ``label.fidelity`` are left out and counted; with
            ``label.fidelity: atoms``, those that show a smaller share of the prompt's atoms. None leaves out none.
        faithful: whether pairs are left out and counted whose chosen image has a lower score of ``label.fidelity``
            than the rejected one.
    """

    margin: float = Field(default=0.0, ge=0)
    min_fidelity: float | None = None
    faithful: bool = False

    @property
    def filters(self) -> bool:
        """Whether pairs are left out by their fidelity."""
        return self.min_fidelity is not None or self.faithful

    @model_serializer(mode="wrap")
    def _leave_out_no_filter(self, handler: Any) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        return written if self.filters else {"margin": written["margin"]}


class DriftConfig(Settings):
    """How drift is measured.

    Attributes:
        encoder: the frozen encoder, which also measures the drift of the evaluation's rewrites.
        batch_size: the number of texts that are embedded at once.
        source: what a training pair's distance d is, of which Sem-DPO's weight is exp(−α·d): ``encoder``, the cosine
            drift of its rewrite; ``atoms_lost``, the share of the prompt's atoms that the rewrite's text no longer
            states; ``scorer_agreement``, how far ``label.fidelity`` contradicts ``label.scorer``; or ``margin``, how
            far the difference of the two scores is below the median. See ``analysis.semantics``.
    """

    encoder: Text
    batch_size: Positive = defaults.TEXTS_AT_A_TIME
    source: Literal["encoder", "atoms_lost", "scorer_agreement", "margin"] = "encoder"

    @model_serializer(mode="wrap")
    def _leave_out_the_usual_source(self, handler: Any) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        return {key: value for key, value in written.items() if key != "source" or value != "encoder"}
