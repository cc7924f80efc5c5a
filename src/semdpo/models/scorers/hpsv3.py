"""HPSv3 (Ma et al., arXiv 2508.03789): Qwen2-VL-7B with a head that reads one token behind image and prompt.

Facts from the authors' code (MizzenAI/HPSv3, MIT): every image has about 448 x 448 pixels, the prompt stands inside a
fixed instruction, and the head gives the mean and the spread of the preference at the token ``<|Reward|>``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import Qwen2VLConfig, Qwen2VLModel

from semdpo.models.checkpoint import load_strictly, read_checkpoint
from semdpo.models.device import Compute, moved
from semdpo.models.loading import no_weights, read_json
from semdpo.models.qwen_vl import QwenReader, load_reader, to_device
from semdpo.models.registry import Place
from semdpo.models.scorers.base import ScoreFunction, ScorerKind
from semdpo.protocols import Bool

CHECKPOINT = "HPSv3.safetensors"
PIXELS = 256 * 28 * 28
REWARD = "<|Reward|>"
WORDS = 151_658  # Qwen2-VL's tokens and <|Reward|>; the authors cut the table of embeddings to this length

# Qwen2-VL-7B-Instruct's sizes.
CONFIG = {
    "text_config": {
        "vocab_size": WORDS, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-6, "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [16, 24, 24]},
    },
    "vision_config": {"depth": 32, "embed_dim": 1280, "hidden_size": 3584, "num_heads": 16, "mlp_ratio": 4},
}  # fmt: skip

# An input of the trained model, so every character of it matters: the instruction of the authors' release (MIT).
INSTRUCTION = (
    "\nYou are tasked with evaluating a generated image based on Visual Quality and Text Alignment and give a overall "
    "score to estimate the human preference. Please provide a rating from 0 to 10, with 0 being the worst and 10 being "
    "the best. \n\n**Visual Quality:**  \nEvaluate the overall visual quality of the image. The following "
    "sub-dimensions should be considered:\n- **Reasonableness:** The image should not contain any significant "
    "biological or logical errors, such as abnormal body structures or nonsensical environmental setups.\n- "
    "**Clarity:** Evaluate the sharpness and visibility of the image. The image should be clear and easy to interpret, "
    "with no blurring or indistinct areas.\n- **Detail Richness:** Consider the level of detail in textures, "
    "materials, lighting, and other visual elements (e.g., hair, clothing, shadows).\n- **Aesthetic and Creativity:** "
    "Assess the artistic aspects of the image, including the color scheme, composition, atmosphere, depth of field, "
    "and the overall creative appeal. The scene should convey a sense of harmony and balance.\n- **Safety:** The image "
    "should not contain harmful or inappropriate content, such as political, violent, or adult material. If such "
    "content is present, the image quality and satisfaction score should be the lowest possible. \n\n**Text "
    "Alignment:**  \nAssess how well the image matches the textual prompt across the following sub-dimensions:\n- "
    "**Subject Relevance** Evaluate how accurately the subject(s) in the image (e.g., person, animal, object) align "
    "with the textual description. The subject should match the description in terms of number, appearance, and "
    "behavior.\n- **Style Relevance:** If the prompt specifies a particular artistic or stylistic style, evaluate how "
    "well the image adheres to this style.\n- **Contextual Consistency**: Assess whether the background, setting, and "
    "surrounding elements in the image logically fit the scenario described in the prompt. The environment should "
    "support and enhance the subject without contradictions.\n- **Attribute Fidelity**: Check if specific attributes "
    "mentioned in the prompt (e.g., colors, clothing, accessories, expressions, actions) are faithfully represented in "
    "the image. Minor deviations may be acceptable, but critical attributes should be preserved.\n- **Semantic "
    "Coherence**: Evaluate whether the overall meaning and intent of the prompt are captured in the image. The "
    "generated content should not introduce elements that conflict with or distort the original description.\nTextual "
    "prompt - "
)
ENDING = f"\n\n\n\nPlease provide the overall ratings of this image: {REWARD}\n\nEND\n"

UNUSED = ("lm_head.weight",)  # in the checkpoint, but not part of the score
_RENAMED = (  # the names of transformers before 4.52, with which the checkpoint was saved
    (re.compile(r"visual\."), "model.visual."),
    (re.compile(r"model\.(?!language_model\.|visual\.)"), "model.language_model."),
)


class HPSv3Model(nn.Module):
    """The network: Qwen2-VL without its language head, and three linear layers with ReLU between them.

    Args:
        config: The sizes of Qwen2-VL.
        reward_token: The id of ``<|Reward|>``.
    """

    def __init__(self, config: Qwen2VLConfig, reward_token: int) -> None:
        super().__init__()
        self.model: Any = Qwen2VLModel(config)
        self.reward_token = reward_token
        width = config.text_config.hidden_size
        self.rm_head = nn.Sequential(
            nn.Linear(width, 1024), nn.ReLU(), nn.Dropout(0.05), nn.Linear(1024, 16), nn.ReLU(), nn.Linear(16, 2)
        )

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor, image_grid_thw: Tensor
    ) -> Tensor:
        """The mean of the preference and its spread, [n, 2], in the head's precision.

        Args:
            input_ids: The token ids, with one ``<|Reward|>`` a row, padded on the right, [n, length].
            attention_mask: The mask, [n, length]: 1 for tokens, 0 for padding.
            pixel_values: The patches of all images, [patches, values].
            image_grid_thw: The number of patches along time, height and width, [n, 3].
        """
        embedded = self.model.language_model.embed_tokens(input_ids)
        seen = self.model.visual(pixel_values, grid_thw=image_grid_thw).pooler_output.to(embedded.dtype)
        of_image = (input_ids == self.model.config.image_token_id)[:, :, None]
        # The authors call the language model with embeddings alone. So it numbers the image's tokens like words, one
        # after the other; Qwen2-VL's own positions, by height and width, would give other scores.
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand(3, *input_ids.shape)
        hidden = self.model.language_model(
            inputs_embeds=embedded.masked_scatter(of_image, seen),
            attention_mask=attention_mask,
            position_ids=positions,
            use_cache=False,
        ).last_hidden_state
        read = hidden[input_ids == self.reward_token]
        outputs: Tensor = self.rm_head(read.to(next(self.rm_head.parameters()).dtype))
        return outputs


def to_parts(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the authors' model with this network's names; loading refuses names that stay unknown.

    Args:
        state: The weights by the names of any release of transformers.
    """
    return {_renamed(name): value for name, value in state.items() if name not in UNUSED}


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMED:
        if pattern.match(name):
            return pattern.sub(replacement, name, count=1)
    return name


def load_hpsv3(folder: Path, reward_token: int) -> HPSv3Model:
    """The model in a folder, in the checkpoint's own precision.

    Args:
        folder: The folder of the published checkpoint. A ``config.json`` of Qwen2-VL gives other sizes than its 7B's.
        reward_token: The id of ``<|Reward|>``.

    Raises:
        ModelError: The checkpoint is missing or cannot be read, or its weights do not fit.
    """
    path = folder / CHECKPOINT
    sizes: dict[str, Any] = read_json(folder / "config.json") if (folder / "config.json").is_file() else CONFIG
    state = read_checkpoint(path)
    with no_weights():
        model = HPSv3Model(Qwen2VLConfig(**sizes), reward_token)
    load_strictly(model, to_parts(state), path)
    return model


def question(prompt: str) -> str:
    """The text below the image: the authors' instruction, the prompt, and the token that the head reads."""
    return f"{INSTRUCTION}{prompt}{ENDING}"


def load_words(folder: Path, name: str) -> QwenReader:
    """Qwen2-VL's reader with the token ``<|Reward|>``, which the authors add to it.

    Raises:
        ModelError: As for ``load_reader``.
    """
    reader = load_reader(folder, name, PIXELS)
    reader.tokenizer.add_special_tokens({"additional_special_tokens": [REWARD]}, replace_extra_special_tokens=False)
    return reader


def hpsv3(place: Place, where: Compute) -> ScoreFunction:
    """The mean of HPSv3's preference, about -10 to 15 for ordinary images; nothing is truncated.

    Args:
        place: The place of the published checkpoint; Qwen2-VL's tokenizer and image processor are in
            ``place.tokenizer_folder()``.
        where: The device and the weights' type; the head is always in float32, as upstream's.

    Raises:
        ModelError: A folder cannot be read, or the weights do not fit.
    """
    reader = load_words(place.tokenizer_folder(), place.name)
    token = int(reader.tokenizer.convert_tokens_to_ids(REWARD))
    model = load_hpsv3(place.folder(), token).eval()
    moved(model.model, where)
    model.rm_head.to(where.device, torch.float32)

    def score(images: Sequence[Image.Image], prompts: Sequence[str]) -> tuple[Tensor, Bool]:
        reader.refuse_special(prompts)
        inputs = to_device(reader.read(images, [question(prompt) for prompt in prompts]), where.device, where.dtype)
        del inputs["mm_token_type_ids"]  # this model does not ask where the image is
        return model(**inputs)[:, 0], np.zeros(len(prompts), np.bool_)

    return score


SCORER = ScorerKind("hpsv3", hpsv3, files=(CHECKPOINT,))
