"""The scorer ``atoms``: how many of the prompt's atoms an image shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from semdpo.analysis.atoms import MEANS
from semdpo.data.atoms import Atom
from semdpo.data.records import content_id
from semdpo.errors import DataError
from semdpo.protocols import Answerer, ScoreBatch

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class AtomScorer:
    """A scorer that asks every atom of an image's prompt, and gives Soft-TIFA's mean of the answers.

    Attributes:
        answerer: The model that answers.
        atoms: Prompt id → its atoms.
        mean: ``arithmetic`` or ``geometric``.
    """

    answerer: Answerer
    atoms: Mapping[str, Sequence[Atom]]
    mean: str

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> ScoreBatch:
        """One score per image, in [0, 1].

        Args:
            images: The images, n.
            prompts: The users' prompts, n.

        Raises:
            DataError: A prompt has no atoms.
        """
        of_each = [self.atoms.get(content_id(prompt), ()) for prompt in prompts]
        if bare := next((prompt for prompt, atoms in zip(prompts, of_each, strict=True) if not atoms), None):
            raise DataError(f"the prompt '{bare[:60]}' has no atoms; add them to atoms.file, or leave the prompt out")
        answers = iter(ask(self.answerer, images, of_each))
        means = [MEANS[self.mean]([next(answers) for _ in atoms]) for atoms in of_each]
        return ScoreBatch(np.array(means, np.float32), np.zeros(len(images), np.bool_))


def ask(answerer: Answerer, images: Sequence[Image.Image], atoms: Sequence[Sequence[Atom]]) -> list[float]:
    """The probabilities of the right answers to all atoms of all images, image by image.

    Args:
        answerer: The model that answers.
        images: The images, n.
        atoms: The atoms of each image's prompt, n.
    """
    rows = [(image, atom) for image, several in zip(images, atoms, strict=True) for atom in several]
    found = answerer.answer([image for image, _ in rows], [(atom.question, atom.answer) for _, atom in rows])
    return [float(p) for p in found]
