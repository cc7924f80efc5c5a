"""UnifiedReward, point-wise (Wang et al., arXiv 2503.05236): a Qwen-VL that writes about an image and then rates it.

Facts from the authors' code (CodeGoat24/UnifiedReward, MIT): the instruction, and ``Final Score:`` with 1 to 5 at the
end of what the model writes. Their code gives 0 to an answer without a score; here it is an error of that image.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from semdpo.errors import ModelError
from semdpo.models.device import Compute
from semdpo.models.loading import load_model, quiet, read_json
from semdpo.models.qwen_vl import load_reader, to_device
from semdpo.models.registry import Place
from semdpo.models.scorers.base import ScoreFunction, ScorerKind
from semdpo.protocols import Bool, UnscoredError

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
NEW_TOKENS = 512
LOWEST, HIGHEST = 1.0, 5.0
SHOWN = 80  # characters of an answer that a message shows

# An input of the trained model: the instruction of the authors' release (MIT).
INSTRUCTION = (
    "You are given a text caption and a generated image based on that caption. Your task is to evaluate this image "
    "based on two key criteria:\n1. Alignment with the Caption: Assess how well this image aligns with the provided "
    "caption. Consider the accuracy of depicted objects, their relationships, and attributes as described in the "
    "caption.\n2. Overall Image Quality: Examine the visual quality of this image, including clarity, detail "
    "preservation, color accuracy, and overall aesthetic appeal.\nExtract key elements from the provided text caption, "
    "evaluate their presence in the generated image using the format: 'element (type): value' (where value=0 means not "
    "generated, and value=1 means generated), and assign a score from 1 to 5 after 'Final Score:'.\nYour task is "
    "provided as follows:\nText Caption: [{}]"
)
_SCORE = re.compile(r"Final Score:\s*(\d+(?:\.\d+)?)(?:\s*/\s*(\d+))?")

RELEASES = (  # published as well; `semdpo doctor` lists the others
    *("CodeGoat24/UnifiedReward-qwen-32b", "CodeGoat24/UnifiedReward-2.0-qwen-32b"),
    *("CodeGoat24/UnifiedReward-2.0-qwen-72b", "CodeGoat24/UnifiedReward-2.0-qwen3vl-2b"),
    *("CodeGoat24/UnifiedReward-2.0-qwen3vl-4b", "CodeGoat24/UnifiedReward-2.0-qwen3vl-32b"),
)


def final_score(answer: str) -> float:
    """The score in what the model wrote, 1 to 5.

    Args:
        answer: The model's whole answer.

    Raises:
        UnscoredError: The answer has no score, two different ones, or one that is not between 1 and 5.
    """
    found = {(float(value), outof) for value, outof in _SCORE.findall(answer)}
    shown = " ".join(answer.split())
    end = shown if len(shown) <= SHOWN else f"…{shown[-SHOWN:]}"
    if len(found) != 1:
        raise UnscoredError(f"{'no' if not found else 'more than one'} 'Final Score:' in the answer '{end}'")
    value, outof = found.pop()
    if not LOWEST <= value <= HIGHEST or outof not in ("", "5"):
        raise UnscoredError(f"the 'Final Score:' in the answer '{end}' is not between {LOWEST:g} and {HIGHEST:g}")
    return value


def unified_reward(place: Place, where: Compute) -> ScoreFunction:
    """The score that the model writes, 1 to 5; nothing is truncated.

    The answer is generated greedily, with the other generation settings of the model's folder. Images are asked about
    one by one, so that no answer depends on the others of its batch.

    Args:
        place: The place of a Qwen2-VL, Qwen2.5-VL or Qwen3-VL, with tokenizer, chat template and image processor.
        where: The device and the weights' type.

    Raises:
        ModelError: The folder cannot be read, or holds a model of another family.
    """
    from transformers import AutoModelForImageTextToText

    folder = place.folder()
    family = read_json(folder / "config.json").get("model_type")
    if family not in FAMILIES:
        raise ModelError(
            f"'{place.name}' ({family}) is not a UnifiedReward that can be used here; give one that was made from "
            "Qwen2.5-VL or Qwen3-VL, such as unified-reward-qwen-7b"
        )
    reader = load_reader(place.tokenizer_folder(), place.name)
    model = load_model(AutoModelForImageTextToText, folder, where)

    def answer(image: Image.Image, prompt: str) -> str:
        inputs = to_device(reader.read([image], [INSTRUCTION.replace("{}", prompt)]), where.device, where.dtype)
        with quiet():  # about settings of sampling, which a greedy answer does not need
            written = model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=NEW_TOKENS)
        new: Any = written[0, inputs["input_ids"].shape[1] :]
        text: str = reader.tokenizer.decode(new, skip_special_tokens=True)
        return text

    def score(images: Sequence[Image.Image], prompts: Sequence[str]) -> tuple[Tensor, Bool]:
        reader.refuse_special(prompts)
        values = [final_score(answer(image, prompt)) for image, prompt in zip(images, prompts, strict=True)]
        return torch.tensor(values), np.zeros(len(values), np.bool_)

    return score


NAMES = (
    *("unified-reward-qwen-3b", "unified-reward-qwen-7b", "unified-reward-2.0-qwen-3b", "unified-reward-2.0-qwen-7b"),
    "unified-reward-2.0-qwen3vl-8b",
)
# Its files are those of a plain Qwen-VL; only the name, or a scorer.json, shows what it was trained for.
SCORER = ScorerKind("unified-reward", unified_reward, names=(*NAMES, *RELEASES))
