"""How Qwen-VL models read an image and a text, without torchvision, which transformers' own processor needs for videos.

Facts from the Qwen2-VL report (Wang et al., arXiv 2409.12191) and transformers' code: an image is cut into square
patches, and the placeholder of the image in the text is repeated once for every square of merged patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from semdpo.errors import DataError, ModelError
from semdpo.models.loading import UNREADABLE, load_tokenizer, quiet, read_json, unreadable
from semdpo.models.text_processor import chat_template_of
from semdpo.models.tokens import refuse_special_text

if TYPE_CHECKING:
    from PIL import Image

KINDS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")  # as ``model_type`` in a config.json
PLACEHOLDER = "<|image_pad|>"
MOST_UNLIKE = 200  # an image's longer side divided by its shorter one; the models read no others


@dataclass(frozen=True, slots=True)
class QwenReader:
    """A tokenizer and an image processor of the Qwen-VL family.

    Attributes:
        tokenizer: The tokenizer; it pads on the right unless set otherwise.
        processor: The image processor.
        template: The chat template of the folder.
        name: The model's name, for messages.
    """

    tokenizer: Any
    processor: Any
    template: str
    name: str

    def refuse_special(self, prompts: Sequence[str]) -> None:
        """Refuses prompts that the model would misread, since they are put between its control tokens.

        Raises:
            DataError: A prompt contains the text of a control token; both are named.
        """
        refuse_special_text(self.tokenizer, prompts, self.name)

    def read(self, images: Sequence[Image.Image], texts: Sequence[str], answer: str = "") -> dict[str, Tensor]:
        """The model's inputs for one user's message a row: an image, and a text below it.

        Args:
            images: The RGB images, n ≥ 1.
            texts: The texts, n.
            answer: The beginning of the model's answer.

        Returns:
            ``input_ids``, ``attention_mask`` and ``mm_token_type_ids`` (1 where the image is), [n, length], padded on
            the tokenizer's side; ``pixel_values`` of all patches, and ``image_grid_thw``, [n, 3].

        Raises:
            DataError: An image is more than 200 times as long as it is wide, or the reverse.
        """
        if long := next((image for image in images if max(image.size) > MOST_UNLIKE * min(image.size)), None):
            raise DataError(
                f"{self.name} reads no image of {long.width} x {long.height} pixels, because one side is more than "
                f"{MOST_UNLIKE} times the other; crop it"
            )
        with quiet():
            seen = self.processor(images=list(images), return_tensors="pt")
        squares = seen["image_grid_thw"].prod(-1) // self.processor.merge_size**2
        rows = [
            self.chat(text).replace(PLACEHOLDER, PLACEHOLDER * count, 1) + answer
            for text, count in zip(texts, squares.tolist(), strict=True)
        ]
        tokens = self.tokenizer(rows, padding=True, return_tensors="pt", verbose=False)
        inputs = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == self.image_token).long()
        return inputs | {"pixel_values": seen["pixel_values"], "image_grid_thw": seen["image_grid_thw"]}

    @property
    def image_token(self) -> int:
        """The id of the image's placeholder."""
        return int(self.tokenizer.convert_tokens_to_ids(PLACEHOLDER))

    def chat(self, text: str) -> str:
        """A user's message with an image and a text, in the model's chat template, up to where it answers.

        Raises:
            ModelError: The template does not place one image.
        """
        content = [{"type": "image"}, {"type": "text", "text": text}]
        whole: str = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=self.template,
            tokenize=False,
            add_generation_prompt=True,
        )
        if whole.count(PLACEHOLDER) != 1:
            raise ModelError(f"the chat template of '{self.name}' does not place an image; download the model again")
        return whole


def load_reader(folder: Path, name: str, pixels: int | None = None) -> QwenReader:
    """The tokenizer and image processor of a Qwen2-VL, Qwen2.5-VL or Qwen3-VL.

    Args:
        folder: The folder of its tokenizer and of ``preprocessor_config.json``.
        name: The model's name, for messages.
        pixels: The number of pixels that every image is resized to, about; None is the folder's own range.

    Raises:
        ModelError: The folder lacks one of them or the chat template, or its tokenizer has no token for an image.
    """
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    read_json(folder / "preprocessor_config.json")  # its absence is reported in our words
    size: dict[str, Any] = {} if pixels is None else {"size": {"shortest_edge": pixels, "longest_edge": pixels}}
    try:
        with quiet():
            processor = Qwen2VLImageProcessorPil.from_pretrained(str(folder), local_files_only=True, **size)
    except UNREADABLE as error:
        raise unreadable(folder, "image processor", error) from error
    tokenizer = load_tokenizer(folder)
    if PLACEHOLDER not in tokenizer.get_vocab():
        raise ModelError(f"the tokenizer of '{folder}' has no {PLACEHOLDER}; give a Qwen-VL model")
    return QwenReader(tokenizer, processor, chat_template_of(folder, tokenizer), name)


def to_device(inputs: dict[str, Tensor], device: torch.device | str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Inputs on a device; the pixels in the weights' type."""
    return {
        name: value.to(device, dtype) if name == "pixel_values" else value.to(device) for name, value in inputs.items()
    }
