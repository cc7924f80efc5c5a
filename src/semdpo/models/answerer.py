"""Answers atoms: how sure a vision-language model is of the right answer to a question about an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from semdpo.data.atoms import NUMBERS, YES
from semdpo.errors import ModelError
from semdpo.models import tiny_judge
from semdpo.models.device import compute
from semdpo.models.images import rgb
from semdpo.models.loading import check_positive, read_json
from semdpo.models.registry import resolve
from semdpo.models.tiny_judge import Judge
from semdpo.models.vision_language import VisionLanguage, answers_questions
from semdpo.protocols import Answerer, Float64
from semdpo.recipe import defaults

if TYPE_CHECKING:
    from PIL import Image

ASKED = "{} Answer in one word."  # as GenEval 2 asks
_DIGITS = {word: str(number) for number, word in enumerate(NUMBERS, start=1)}


def load_answerer(name: str, batch_size: int = defaults.IMAGES_AT_A_TIME, precision: str = "float32") -> Answerer:
    """Loads a model that answers questions about images, on the GPU if there is one.

    Args:
        name: The model's name: ``tiny:judge``, or a folder or published name of an image-text-to-text model.
        batch_size: The number of questions that are answered at a time, ≥ 1.
        precision: The precision of the weights, as for ``compute``.

    Raises:
        ModelError: The name is unknown, or the folder cannot be read or holds a model of another kind.
    """
    check_positive("batch_size", batch_size)
    place = resolve(name)
    if place.name == tiny_judge.NAME:
        return TinyAnswerer(tiny_judge.load(place.folder()))
    config = read_json(place.folder() / "config.json")
    if not answers_questions(config):
        named = ", ".join(config.get("architectures") or []) or "no architecture named"
        raise ModelError(
            f"model '{name}' ({named}) answers no questions about images; give an image-text-to-text model, such as "
            f"qwen2.5-vl-3b, or {tiny_judge.NAME} for the embedded world"
        )
    return VisionAnswerer(VisionLanguage(place, compute(precision)), batch_size)


def spellings(answer: str) -> list[str]:
    """The spellings of a right answer whose first tokens count, as in GenEval 2's ``soft_tifa``.

    Args:
        answer: ``yes``, or one of ``NUMBERS``.
    """
    if answer == YES:
        return ["Yes", "yes", " yes", " Yes"]
    digit = _DIGITS[answer]
    return [answer, answer.capitalize(), f" {answer}", f" {answer.capitalize()}", digit, f" {digit}"]


@dataclass(frozen=True)
class VisionAnswerer:
    """Asks an image-text-to-text model, as Soft-TIFA does.

    The probability of an answer is the sum of the probabilities that the model's answer begins with the first token of
    one of the answer's ``spellings``. A token that several spellings begin with counts once; GenEval 2's code, which is
    written for Qwen3-VL's tokenizer, counts it once for each of them, so that other tokenizers could give more than 1.

    Attributes:
        model: The model.
        batch_size: The number of questions that are answered at a time.

    Source:
        GenEval 2 (arXiv 2512.16853), ``soft_tifa`` and ``send_message_with_image`` of its evaluation.py.
    """

    model: VisionLanguage
    batch_size: int

    def answer(self, images: Sequence[Image.Image], questions: Sequence[tuple[str, str]]) -> Float64:
        """The probability of the right answer about each image, [n].

        Args:
            images: The images, n, of any size and mode; the model sees them as ``models.images.rgb`` converts them.
            questions: What is asked about each image, and the right answer, n.

        Raises:
            DataError: A question holds a control token of the model.
            ModelError: A probability is not finite.
        """
        found = np.zeros(len(images), np.float64)
        ids = {right: sorted({self.model.first_token(text) for text in spellings(right)}) for _, right in questions}
        for start in range(0, len(images), self.batch_size):
            rows = slice(start, start + self.batch_size)
            asked = [ASKED.format(question) for question, _ in questions[rows]]
            with torch.inference_mode():
                logps, _ = self.model.log_probabilities([rgb(image) for image in images[rows]], asked, asked)
                chances = logps[:, -1].cpu().double().exp()
            found[rows] = [
                float(row[ids[right]].sum()) for row, (_, right) in zip(chances, questions[rows], strict=True)
            ]
        if not np.isfinite(found).all():
            raise ModelError("a probability is not finite; the model's weights are broken or overflow: use float32")
        return np.clip(found, 0.0, 1.0)


@dataclass(frozen=True)
class TinyAnswerer:
    """Asks the embedded world's classifier, which knows questions in its words only."""

    judge: Judge

    def answer(self, images: Sequence[Image.Image], questions: Sequence[tuple[str, str]]) -> Float64:
        """The probability of yes about each image, [n]; see ``tiny_judge.answer``."""
        if other := next((question for question, right in questions if right != YES), None):
            raise ModelError(
                f"{tiny_judge.NAME} answers yes or no, and '{other}' asks for a number; ask Are there exactly …?"
            )
        return np.array(tiny_judge.answer(self.judge, images, [question for question, _ in questions]), np.float64)
