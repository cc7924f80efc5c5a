"""The scorer ``atoms``: how many of the prompt's atoms an image shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from semdpo.analysis.atoms import MEANS
from semdpo.data.atoms import Atom
from semdpo.data.records import content_id
from semdpo.errors import DataError, PartlyRefusedError, RefusedRequestError
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
            PartlyRefusedError: A server refuses some questions; the images that they are about have no score.
        """
        of_each = [self.atoms.get(content_id(prompt), ()) for prompt in prompts]
        if bare := next((prompt for prompt, atoms in zip(prompts, of_each, strict=True) if not atoms), None):
            raise DataError(f"the prompt '{bare[:60]}' has no atoms; add them to atoms.file, or leave the prompt out")
        answers = iter(ask(self.answerer, images, of_each))
        outcomes = [self._mean([next(answers) for _ in atoms]) for atoms in of_each]
        means = [each for each in outcomes if isinstance(each, float)]
        if len(means) < len(outcomes):
            raise PartlyRefusedError([(each, False) if isinstance(each, float) else each for each in outcomes])
        return ScoreBatch(np.array(means, np.float32), np.zeros(len(images), np.bool_))

    def _mean(self, answers: Sequence[float | RefusedRequestError]) -> float | RefusedRequestError:
        """The mean of an image's answers, as a score is kept; the first refusal, where there is one."""
        refused = next((each for each in answers if isinstance(each, RefusedRequestError)), None)
        known = [each for each in answers if isinstance(each, float)]
        return refused or float(np.float32(MEANS[self.mean](known)))


def ask(
    answerer: Answerer, images: Sequence[Image.Image], atoms: Sequence[Sequence[Atom]]
) -> list[float | RefusedRequestError]:
    """The probabilities of the right answers to all atoms of all images, or why a server has none, image by image.

    Args:
        answerer: The model that answers.
        images: The images, n.
        atoms: The atoms of each image's prompt, n.
    """
    rows = [(image, atom) for image, several in zip(images, atoms, strict=True) for atom in several]
    return answers_of(answerer, [image for image, _ in rows], [atom for _, atom in rows])


def answers_of(
    answerer: Answerer, images: Sequence[Image.Image], atoms: Sequence[Atom]
) -> list[float | RefusedRequestError]:
    """The probability of each atom's right answer about its image, or why a server has none, n.

    Args:
        answerer: The model that answers.
        images: The images, n.
        atoms: The atom that is asked about each image, n.
    """
    try:
        return [float(p) for p in answerer.answer(images, [(atom.question, atom.answer) for atom in atoms])]
    except PartlyRefusedError as error:  # the server has answered the others
        return list(error.outcomes)
