"""Answers to atoms: a vision-language model against GenEval 2's formula, and the embedded world's classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import gmean

from semdpo.data.atoms import Atom
from semdpo.data.records import content_id
from semdpo.errors import DataError, ModelError
from semdpo.models.answerer import load_answerer
from semdpo.models.atom_scorer import AtomScorer
from semdpo.models.device import Compute
from semdpo.models.registry import resolve
from semdpo.models.vision_language import VisionLanguage
from semdpo.protocols import Answerer
from semdpo.tiny_world.atoms import atoms_of
from semdpo.tiny_world.grammar import Item, Scene
from semdpo.tiny_world.painter import paint
from tests import tiny_models, tiny_multimodal

ASKED = [("Is there a cat?", "yes"), ("How many cats are there?", "two"), ("Is the cat red?", "yes")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model whose tokenizer has a token of its own for each spelling of the answers."""
    return tiny_multimodal.llava(tmp_path_factory.mktemp("answerer") / "llava", ["Yes", "yes", "two", "Two"])


def _soft_tifa(folder: Path, image: Image.Image, asked: Sequence[tuple[str, str]]) -> list[float]:
    """The public evaluation's formula, by transformers alone: one question at a time, one softmax, sums of tokens."""
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    found = []
    for question, right in asked:
        words = ["two", "Two", " two", " Two", "2", " 2"] if right == "two" else ["Yes", "yes", " yes", " Yes"]
        inputs = processor(images=image, text=f"<image>\n{question} Answer in one word. ", return_tensors="pt")
        with torch.no_grad():
            chances = torch.nn.functional.softmax(model(**inputs).logits[0, -1], dim=-1)
        firsts = [processor.tokenizer.encode(word, add_special_tokens=False)[0] for word in words]
        assert len(set(firsts)) == len(words), "no token counts twice"
        found.append(sum(chances[first].item() for first in firsts))
    return found


def test_answers_and_means_are_those_of_the_public_evaluation(folder: Path) -> None:
    answerer = load_answerer(str(folder), batch_size=2)
    assert isinstance(answerer, Answerer)
    images = [tiny_models.image(1, 40, 33), tiny_models.image(2)]
    wanted = [_soft_tifa(folder, image, ASKED) for image in images]
    found = answerer.answer([image for image in images for _ in ASKED], ASKED * 2)
    np.testing.assert_allclose(found, np.ravel(wanted), rtol=0, atol=1e-5)
    assert np.ptp(found) > 1e-4
    prompt = "two red cats"
    atoms = {content_id(prompt): [Atom("", "object", question, right) for question, right in ASKED]}
    for mean, formula in (("arithmetic", lambda s: sum(s) / len(s)), ("geometric", gmean)):
        scores = AtomScorer(answerer, atoms, mean).score(images, [prompt, prompt])
        np.testing.assert_allclose(scores.values, [formula(each) for each in wanted], rtol=0, atol=1e-5)
        assert not scores.truncated.any()


def test_a_token_of_two_spellings_counts_once(tmp_path: Path) -> None:
    """A tokenizer of bytes begins " yes" and " Yes" with the same token."""
    folder = tiny_multimodal.llava(tmp_path / "llava")
    image = tiny_models.image(1)
    model = VisionLanguage(resolve(str(folder)), Compute(torch.device("cpu"), torch.float32))
    with torch.inference_mode():
        logps, _ = model.log_probabilities([image], ["Is it? Answer in one word."], ["Is it?"])
    ids = {model.first_token(text) for text in ("Yes", "yes", " yes")}
    assert len(ids) == 3
    (found,) = load_answerer(str(folder)).answer([image], [("Is it?", "yes")])
    assert found == pytest.approx(float(logps[0, -1].exp()[sorted(ids)].sum()), abs=1e-6)


def test_control_tokens_and_other_models_and_prompts_without_atoms_are_refused(folder: Path, tmp_path: Path) -> None:
    answerer = load_answerer(str(folder))
    with pytest.raises(DataError, match="contains '<image>'"):
        answerer.answer([tiny_models.image(1)], [("Is there an <image>?", "yes")])
    assert answerer.answer([], []).shape == (0,)
    with pytest.raises(ModelError, match=r"CLIPModel\) answers no questions about images"):
        load_answerer(str(tiny_models.clip(tmp_path / "clip")))
    with pytest.raises(DataError, match="the prompt 'a cat' has no atoms"):
        AtomScorer(answerer, {}, "arithmetic").score([tiny_models.image(1)], ["a cat"])


# --------------------------------------------------------------------------------------------------- tiny:judge


def _painted(scene: Scene) -> Image.Image:
    return Image.fromarray(paint(scene, np.random.default_rng(3)))


def test_the_tiny_worlds_classifier_answers_its_own_atoms() -> None:
    cat, car = Item("cat", "red", "large"), Item("car", "blue", "small")
    alone = _painted(Scene((cat,), "row", "snow", "night"))
    both = _painted(Scene((cat, car), "row", "meadow", "day"))
    judge = load_answerer("tiny:judge")
    right = [(alone, "a red cat in the snow at night"), (both, "a red cat to the left of a blue car in a meadow")]
    wrong = [
        (alone, "Is there a car?"), (alone, "Is there a blue cat?"), (alone, "Are there exactly two things?"),
        (alone, "Is it in a meadow?"), (alone, "Is it at sunset?"), (both, "Is there a blue cat?"),
        (both, "Is a car to the left of a cat?"), (both, "Is a cat above a car?"),
        (both, "Is there exactly one thing?"),
    ]  # fmt: skip
    asked = [(image, question) for image, prompt in right for _, question in atoms_of(prompt)]
    assert len(asked) == 5 + 7
    yes = judge.answer([image for image, _ in asked], [(question, "yes") for _, question in asked])
    assert dict(zip([question for _, question in asked], (yes > 0.5).tolist(), strict=True)) == {
        question: True for _, question in asked
    }
    no = judge.answer([image for image, _ in wrong], [(question, "yes") for _, question in wrong])
    assert (no < 0.3).all(), dict(zip(wrong, no, strict=True))
    nearby = judge.answer([both], [("Is a car next to a cat?", "yes")])
    assert nearby[0] > 0.5, "next to leaves the order open"
    resized = judge.answer([alone.resize((128, 128))], [("Is there a cat?", "yes")])
    assert resized[0] > 0.5


def test_the_tiny_worlds_classifier_refuses_other_words() -> None:
    judge, image = load_answerer("tiny:judge"), Image.new("RGB", (64, 64))
    with pytest.raises(DataError, match="cannot answer 'Is there a zeppelin"):
        judge.answer([image], [("Is there a zeppelin?", "yes")])
    with pytest.raises(ModelError, match="asks for a number"):
        judge.answer([image], [("How many cats are there?", "two")])
