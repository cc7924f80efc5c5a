"""tiny:judge: a classifier of the embedded world's images, and its answers to questions in that world's words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from semdpo.errors import DataError
from semdpo.models.images import rgb
from semdpo.tiny_world.atoms import asked_number
from semdpo.tiny_world.facts import Facts, parse
from semdpo.tiny_world.grammar import COLORS, LAYOUTS, PLACES, SIZES, THINGS, TIMES, Item

if TYPE_CHECKING:
    from PIL import Image

NAME = "tiny:judge"
SIDE = 64  # pixels
# The facts of an image or a text, with their possible values.
FACTS: dict[str, tuple[str, ...]] = {
    "count": ("1", "2"),
    "layout": LAYOUTS,
    "thing0": THINGS,
    "color0": COLORS,
    "size0": SIZES,
    "thing1": THINGS,
    "color1": COLORS,
    "size1": SIZES,
    "place": PLACES,
    "time": TIMES,
}


class Judge(nn.Module):
    """Convolutional blocks and one linear head for all facts, with 0.5M parameters."""

    def __init__(self) -> None:
        super().__init__()
        widths = (24, 48, 64, 96)
        layers: list[nn.Module] = [
            nn.Conv2d(3, widths[0], 3, 2, 1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        ]
        for before, after in pairwise(widths):
            for source, stride in ((before, 2), (after, 1)):
                layers += [
                    nn.Conv2d(source, after, 3, stride, 1, bias=False),
                    nn.BatchNorm2d(after),
                    nn.ReLU(),
                ]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1] * 16, sum(len(values) for values in FACTS.values()))

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits of all facts, [n, values]."""
        features = nn.functional.dropout(self.body(pixels).flatten(1), 0.1, self.training)
        logits: Tensor = self.head(features)
        return logits


def load(folder: Path) -> Judge:
    """Loads the judge of a folder, in evaluation mode."""
    judge = Judge()
    judge.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in load_file(folder / "model.safetensors").items()}
    )
    return judge.eval()


def split_facts(logits: Tensor) -> dict[str, Tensor]:
    """The logits of each fact, [n, values] each."""
    sizes = [len(values) for values in FACTS.values()]
    parts = torch.split(logits[:, : sum(sizes)], sizes, dim=1)
    return dict(zip(FACTS, parts, strict=True))


# ------------------------------------------------------------------------------------------------- questions

_Probability = Callable[[str, str], float]  # fact, value → the classifier's probability of it in one image


def answer(judge: Judge, images: Sequence[Image.Image], questions: Sequence[str]) -> list[float]:
    """P(yes) for each image and its question.

    The classifier knows two places for things: left or above, and right or below. Its facts count as independent of
    each other, so that the probability of a red ball is P(ball)·P(red) at a place, and that of two places is the
    probability that at least one of them has it.

    Args:
        judge: The classifier.
        images: The images, n; others than those of 64 by 64 pixels are resized.
        questions: Questions in the embedded world's words, such as those of ``tiny_world.atoms``, n.

    Raises:
        DataError: A question asks for nothing that this world has.
    """
    if not images:
        return []
    distinct = {id(image): image for image in images}
    seen = dict(zip(distinct, _read(judge, list(distinct.values())), strict=True))
    return [_answer(seen[id(image)], question) for image, question in zip(images, questions, strict=True)]


def _read(judge: Judge, images: Sequence[Image.Image]) -> list[_Probability]:
    pixels = torch.from_numpy(np.stack([_seen(image) for image in images])).permute(0, 3, 1, 2)
    with torch.inference_mode():
        logits = judge(pixels.float() / 127.5 - 1)
    parts = {name: part.double().softmax(1).tolist() for name, part in split_facts(logits).items()}
    return [_lookup({name: rows[k] for name, rows in parts.items()}) for k in range(len(images))]


def _seen(image: Image.Image) -> NDArray[np.uint8]:
    shown = rgb(image)
    return np.asarray(shown if shown.size == (SIDE, SIDE) else shown.resize((SIDE, SIDE)))


def _lookup(rows: dict[str, list[float]]) -> _Probability:
    return lambda fact, value: rows[fact][FACTS[fact].index(value)]


def _answer(p: _Probability, question: str) -> float:
    number = asked_number(question)
    if number is not None:
        return p("count", str(number))
    asked = parse(question)
    circumstances = [p("place", place) for place in asked.places] + [p("time", time) for time in asked.times]
    if (not asked.items and not circumstances) or len(asked.items) > 2:
        raise DataError(
            f"{NAME} cannot answer '{question}', which is not in the embedded world's words; set atoms.maker=tiny, or "
            "name an image-text-to-text model as atoms.model"
        )
    return float(np.prod([_things(p, asked), *circumstances]))


def _things(p: _Probability, asked: Facts) -> float:
    """The probability that an image shows the things, and, of two, that they stand so."""
    if not asked.items:
        return 1.0
    if len(asked.items) == 1:
        (item,) = asked.items
        return _either(_at(p, item, 0), p("count", "2") * _at(p, item, 1))
    first, second = asked.items
    there = p("count", "2") * p("layout", asked.layout or LAYOUTS[0])
    as_said, exchanged = _at(p, first, 0) * _at(p, second, 1), _at(p, second, 0) * _at(p, first, 1)
    return there * (as_said if asked.ordered or first == second else _either(as_said, exchanged))


def _at(p: _Probability, item: Item, place: int) -> float:
    said = (("thing", item.thing), ("color", item.color), ("size", item.size))
    return float(np.prod([p(f"{name}{place}", value) for name, value in said if value is not None]))


def _either(one: float, other: float) -> float:
    return 1 - (1 - one) * (1 - other)
