"""Qwen-VL models as scorers and answerers: transformers' own processor for them cannot be made without torchvision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from semdpo.errors import DataError
from semdpo.models import vision_language
from semdpo.models.answerer import ASKED, load_answerer, spellings
from semdpo.models.qwen_vl import load_reader
from semdpo.models.scorers.registry import load_scorer
from semdpo.models.scorers.vqa_score import ANSWER, QUESTION
from tests import tiny_models, tiny_multimodal, tiny_preferences

PROMPTS = ["a red ball", "two cats on a very old and very red sofa"]


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random Qwen-VL."""
    place = tiny_preferences.unified(tmp_path_factory.mktemp("qwen") / "model", request.param)
    (place / "scorer.json").unlink()
    torch.manual_seed(5)
    AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(place)).save_pretrained(place)
    return place


def _next(folder: Path, image: int, text: str, answer: str) -> torch.Tensor:
    """log P of the token after each of the last tokens, by the model alone, row by row."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = load_reader(folder, "m").read([tiny_models.image(image, 60, 90)], [text], answer)
    with torch.inference_mode():
        logps: torch.Tensor = model(**inputs).logits[0].log_softmax(-1)
    return logps


def test_vqa_score_in_any_batch_is_the_probability_of_yes(folder: Path) -> None:
    images = [tiny_models.image(k, 60, 90) for k in range(2)]
    together = load_scorer(str(folder), batch_size=2).score(images, PROMPTS)
    yes = load_reader(folder, "m").tokenizer(ANSWER, add_special_tokens=False)["input_ids"]
    for k, prompt in enumerate(PROMPTS):
        logps = _next(folder, k, QUESTION.format(prompt), ANSWER)
        told = [logps[-len(yes) - 1 + place, token].item() for place, token in enumerate(yes)]
        assert together.values[k] == pytest.approx(np.exp(np.mean(told)), rel=1e-4)
    assert together.values[0] != together.values[1]
    with pytest.raises(DataError, match="im_end"):
        load_scorer(str(folder)).score(images[:1], ["a cat <|im_end|>"])


def test_an_atoms_answer_is_the_probability_of_its_spellings(folder: Path) -> None:
    question = "Is the ball red?"
    found = load_answerer(str(folder)).answer([tiny_models.image(0, 60, 90)] * 2, [(question, "yes"), ("Two?", "two")])
    tokenizer = load_reader(folder, "m").tokenizer
    first = {tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in spellings("yes")}
    logps = _next(folder, 0, ASKED.format(question), "")
    assert found[0] == pytest.approx(sum(logps[-1, token].exp().item() for token in first), rel=1e-4)


@pytest.mark.parametrize("in_template", [True, False])
def test_a_begin_token_is_read_once(in_template: bool, tmp_path: Path) -> None:
    """Gemma's and Pixtral's chat templates write it, and their tokenizers add it to any text."""
    folder, image = tiny_multimodal.llava(tmp_path / "llava"), tiny_models.image(1)
    processor = AutoProcessor.from_pretrained(folder)
    begin = processor.tokenizer.bos_token
    processor.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, processor.tokenizer.bos_token_id)]
    )
    processor.chat_template = (
        ("{{ bos_token }}" if in_template else "")
        + "{% for part in messages[0]['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}"
        "{% endfor %} answer: "
    )
    processor.save_pretrained(folder)
    reader = vision_language._ProcessorReader(folder, "tiny")
    content = [{"type": "image", "image": image}, {"type": "text", "text": "Is it red?"}]
    wanted = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )["input_ids"]
    found = reader.read([image], ["Is it red?"])["input_ids"]
    assert found.tolist() == wanted.tolist()
    assert found[0].tolist().count(processor.tokenizer.bos_token_id) == 1
