"""Settings of atoms: yes/no questions about what each prompt states, who writes them and who answers them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from semdpo.recipe.base import CHAT, Positive, Settings, Template, Text
from semdpo.recipe.endpoints import ModelName
from semdpo.recipe.label import LabelConfig
from semdpo.recipe.models import DecodingConfig, RewriterSource

ATOMS_LOST: Final = "atoms_lost"  # as drift.source: the share of the atoms that a rewrite no longer states
ATOMS: Final = "atoms"  # as label.fidelity: the share of the prompt's atoms that an image shows
VERSIONS: Final = {"tiny": 1, "rules": 1, "file": 1, "lm": 1}  # of the makers: another one makes other atoms

# The system prompt of a language model that writes atoms.
SYSTEM: Final = (
    "You split a prompt for a text-to-image model into the single facts that it states about the image. For each fact, "
    "write one line of JSON with two keys. question: a short question about the image, which yes answers rightly, "
    "and which can be understood without the prompt. skill: object (something is there), attribute (its colour, size, "
    "material or state), count (exactly how many of it), relation (where one thing is, or what it does, with regard to "
    'another), or scene (place, time, weather). Example for "two red cats on a sofa": '
    '{"question": "Are there any cats?", "skill": "object"} '
    '{"question": "Are there exactly two cats?", "skill": "count"} '
    '{"question": "Are the cats red?", "skill": "attribute"} {"question": "Is there a sofa?", "skill": "object"} '
    '{"question": "Are the cats on the sofa?", "skill": "relation"}. Ask about nothing that the prompt leaves open, '
    "and not about style or quality. Answer with these lines alone."
)


class AtomWriter(DecodingConfig, RewriterSource):
    """A language model that writes atoms, and how it decodes; greedily with 512 tokens, unless that is changed.

    Attributes:
        template: only ``chat``: a model here must have a chat template.
        system: what it is asked to do; None takes an instruction that asks for one line of JSON for each fact.
    """

    template: str = CHAT
    temperature: float = Field(default=0.0, ge=0, le=10)
    max_new_tokens: Positive = 512

    @model_validator(mode="before")
    @classmethod
    def _a_server_has_no_template(cls, values: Any) -> Any:
        if isinstance(values, dict) and str(values.get("model", "")).strip().lower().startswith("http"):
            return {"template": RewriterSource.model_fields["template"].default} | values
        return values

    @property
    def instruction(self) -> str:
        """The system prompt; empty for none."""
        return SYSTEM if self.system is None else self.system

    @property
    def reads(self) -> Template:
        """What a model here reads around a prompt."""
        return Template(self.template, self.instruction or None)

    @model_validator(mode="after")
    def _a_chat(self) -> AtomWriter:
        if not self.is_remote and self.template != CHAT:
            raise ValueError(f"a model that writes atoms is asked in a chat; leave template out, or set it to {CHAT}")
        return self

    def of_results(self) -> dict[str, Any]:
        """The settings that atoms depend on."""
        return RewriterSource.of_results(self) | {"system": self.instruction}


class AtomsConfig(Settings):
    """Atoms: the single facts that a prompt states, as yes/no questions about its image.

    Attributes:
        maker: who makes them: ``tiny``, the embedded world's grammar; ``rules``, for simple English captions, which
            leaves out and counts what it cannot read; ``file``; or ``lm``, a language model.
        file: for ``file``: a jsonl file with a line for each prompt, or GenEval 2's.
        lm: for ``lm``: the model, by name, folder or URL.
        model: who answers them: any image-text-to-text model, ``tiny:judge`` for questions in the embedded world's
            words, or the URL of a server that ``scoring.endpoints`` has settings for. None asks about no image; the
            atoms then serve as the source of drift alone.
        mean: of the probabilities of the right answers, where atoms are ``label.fidelity``: ``arithmetic`` is
            Soft-TIFA AM, an estimate of the share of atoms that are shown; ``geometric`` is Soft-TIFA GM.
        without: what becomes of a prompt without any atom: ``refuse`` stops the run and names it; ``leave_out`` counts
            it, and uses it for nothing that needs atoms.
    """

    maker: Literal["tiny", "rules", "file", "lm"]
    file: Text | None = None
    lm: AtomWriter | None = None
    model: ModelName | None = None
    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    without: Literal["refuse", "leave_out"] = "refuse"

    @model_validator(mode="after")
    def _what_the_maker_needs(self) -> AtomsConfig:
        for name in ("file", "lm"):
            given, needed = getattr(self, name) is not None, self.maker == name
            if needed and not given:
                raise ValueError(f"maker is {name}, and {name} is missing; add it")
            if given and not needed:
                raise ValueError(f"{name} has no effect, because maker is {self.maker}; remove it, or set maker={name}")
        return self

    @property
    def answering(self) -> dict[str, str]:
        """The model that answers: key in the recipe → its name or URL; empty for none."""
        return {} if self.model is None else {"atoms.model": self.model}

    def of_scores(self) -> dict[str, Any]:
        """The settings, besides the atoms themselves, that the scores of images depend on."""
        return self.model_dump(mode="json", include={"model", "mean"})

    def of_results(self) -> dict[str, Any]:
        """The settings that atoms depend on, with the maker's version; a file or model by itself counts in addition."""
        lm = {} if self.lm is None else {"lm": self.lm.of_results()}
        shared = self.model_dump(mode="json", include={"maker", "file"})
        return shared | {"version": VERSIONS[self.maker]} | lm


def refuse_misused(atoms: AtomsConfig | None, label: LabelConfig, source: str, metrics: Sequence[str]) -> None:
    """Refuses a recipe that uses atoms where there are none, or in another place than they have.

    Args:
        atoms: the recipe's section of atoms.
        label: its section label.
        source: its source of drift.
        metrics: the names and the scorers of its evaluation.

    Raises:
        ValueError: see above.
    """
    uses = {"label.fidelity": label.fidelity == ATOMS, "drift.source": source == ATOMS_LOST}
    for key, used in uses.items():
        if used and atoms is None:
            raise ValueError(
                f"{key} needs atoms, and there is no section atoms; add one, such as atoms: {{maker: rules}}"
            )
    if label.fidelity == ATOMS and atoms is not None and atoms.model is None:
        raise ValueError("label.fidelity is atoms, and atoms.model is missing; name the model that answers them")
    if label.scorer == ATOMS or (ATOMS in metrics and atoms is not None):
        raise ValueError(
            "atoms is the name of label.fidelity and of a table of the report, not of label.scorer or of one of "
            "evaluate.metrics; choose another scorer or name there"
        )
