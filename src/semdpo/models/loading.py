"""Loads models and tokenizers from folders: without output, with every weight, by default in float32."""

from __future__ import annotations

import contextlib
import json
import logging
import pickle
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from semdpo import disk
from semdpo.errors import ModelError, out_of_memory
from semdpo.models.device import Compute
from semdpo.models.images import rgb
from semdpo.models.tokens import plain, plain_ids
from semdpo.texts import shown

if TYPE_CHECKING:
    from PIL import Image


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model's folder.

    Raises:
        ModelError: The file is missing, or is not a JSON object.
    """
    try:
        value = json.loads(disk.read(path).decode())
    except OSError as error:
        raise ModelError(f"'{path.parent}' has no readable {path.name}; give the folder of a saved model") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"'{path}' is not valid JSON; save the model again") from error
    if not isinstance(value, dict):
        raise ModelError(f"'{path}' must hold a JSON object; save the model again")
    return value


LAYERS, MOST_LAYERS = ("num_hidden_layers", "n_layer", "num_layers"), 1000  # names of their number; no model has more
TRIAL = "a red ball in the desert, painted in oil"  # what a tokenizer must be able to read
# The errors that transformers and diffusers raise for folders that they cannot read.
UNREADABLE = (
    *(OSError, ValueError, LookupError, RuntimeError, TypeError, AttributeError, ArithmeticError, AssertionError),
    ImportError,  # of a library that only this model needs
    *(SafetensorError, pickle.UnpicklingError, StrictDataclassError),
)


def unreadable(folder: str | Path, what: str, error: BaseException) -> ModelError:
    """The error for a folder that transformers or diffusers cannot read, or that they have no memory for."""
    if out_of_memory(error):
        return ModelError(
            f"there is not enough memory for the {what} in '{folder}' ({reason(error)}); choose a smaller one, a lower "
            "precision, or a machine with more"
        )
    return ModelError(
        f"'{folder}' does not hold a readable {what} ({reason(error)}); give the folder of a saved model, or download "
        "it again"
    )


def reason(error: BaseException) -> str:
    """The first line of a library's message, at most 200 characters."""
    lines = str(error).strip().splitlines()
    return lines[0][:200].rstrip(" .:") if lines else type(error).__name__


def check_positive(name: str, value: int) -> None:
    """Refuses a count below 1.

    Raises:
        ModelError: The count is below 1; the option is named.
    """
    if value < 1:
        raise ModelError(f"{name} must be at least 1, not {value}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers, diffusers and the hub from printing advice that a user cannot act on.

    Their settings are restored afterwards. A library that is first imported inside is not silenced.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for name in ("transformers.utils.logging", "diffusers.utils.logging"):
            voice: Any = sys.modules.get(name)
            if voice is not None:
                stack.callback(voice.set_verbosity, voice.get_verbosity())
                voice.set_verbosity_error()
                if voice.is_progress_bar_enabled():
                    stack.callback(voice.enable_progress_bar)
                    voice.disable_progress_bar()
        hub: Any = sys.modules.get("huggingface_hub.utils")
        if hub is not None and not hub.are_progress_bars_disabled():
            stack.callback(hub.enable_progress_bars)
            hub.disable_progress_bars()
        for name in ("accelerate", "huggingface_hub", "sentence_transformers"):
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        yield


def load_model(model_class: Any, folder: str | Path, where: Compute | None = None, **more: Any) -> Any:
    """A transformers model in evaluation mode, with every weight read from the folder.

    Args:
        model_class: The model's class, such as ``CLIPModel`` or ``AutoModelForCausalLM``.
        folder: The folder of a saved model.
        where: The device and the weights' type; None is the CPU and float32.
        more: Other arguments of ``from_pretrained``.

    Raises:
        ModelError: The folder cannot be read, or lacks weights (which transformers would leave random).
    """
    _refuse_endless(Path(folder))
    try:
        with quiet():
            model, info = model_class.from_pretrained(
                str(folder),
                # float32: half-precision weights would be slow and inexact on a CPU
                dtype=torch.float32 if where is None else where.dtype,
                local_files_only=True,
                # Old models have only torch's own file; transformers reads it with weights_only.
                use_safetensors=any(Path(folder).glob("*.safetensors")) or not any(Path(folder).glob("*.bin")),
                output_loading_info=True,
                **more,
            )
    except UNREADABLE as error:
        raise unreadable(folder, "model", error) from error
    refuse_missing(folder, info)
    return model.eval() if where is None else model.to(where.device).eval()


def _refuse_endless(folder: Path) -> None:
    """Refuses a number of layers that would be built for hours before the weights turn out to be missing."""
    try:
        values = read_json(folder / "config.json")
    except ModelError:  # transformers says what is wrong
        return
    for part in (values, *(inner for inner in values.values() if isinstance(inner, dict))):
        for name in LAYERS:
            if isinstance(count := part.get(name, 0), int) and not 0 <= count <= MOST_LAYERS:
                raise ModelError(
                    f"'{folder / 'config.json'}': {name} is {shown(count)}; save or download the model again"
                )


def refuse_missing(folder: str | Path, info: Mapping[str, Any]) -> None:
    """Refuses a model with weights that transformers left random.

    Args:
        folder: The model's folder, for the message.
        info: The loading information from transformers.

    Raises:
        ModelError: Weights are missing in the files, or have another shape.
    """
    if missing := sorted([*info["missing_keys"], *map(str, info["mismatched_keys"])]):
        raise ModelError(
            f"'{folder}' lacks {len(missing)} of its model's weights, such as {missing[0]}; save or download it again"
        )


@contextlib.contextmanager
def no_weights() -> Iterator[None]:
    """Creates networks without weights, to save the time of initialising weights that are loaded afterwards."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):  # buffers are computed, not read
        yield


def load_tokenizer(folder: str | Path) -> Any:
    """The folder's tokenizer; it pads on the right.

    Raises:
        ModelError: The folder has no tokenizer that transformers can read, or it reads no words.
    """
    from transformers import AutoTokenizer

    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, padding_side="right")
            words = tokenizer(TRIAL, truncation=True)["input_ids"]  # some settings are only used then
    except Exception as error:  # the library ``tokenizers`` raises no other class
        raise unreadable(folder, "tokenizer", error) from error
    if not words:
        raise ModelError(f"'{folder}' holds a tokenizer without words; save or download it again")
    return tokenizer


def refuse_unfit(tokens: Sequence[int], words: Any, folder: str | Path) -> None:
    """Refuses a tokenizer with tokens that its model does not know.

    Args:
        tokens: Some of the tokenizer's tokens, such as those of ``TRIAL``.
        words: The model's input embeddings.
        folder: The model's folder, for the message.

    Raises:
        ModelError: A token has no embedding.
    """
    known = words.weight.shape[0]
    if max(tokens) >= known:
        raise ModelError(
            f"the tokenizer of '{folder}' has a token {max(tokens)}, but its model knows {known} tokens only; save or "
            "download both again"
        )


def load_image_processor(folder: str | Path) -> Any:
    """The folder's ``preprocessor_config.json`` as CLIP's or BLIP's image processor, without torchvision.

    Raises:
        ModelError: The file is missing, or is for another kind of model.
    """
    # The PIL classes are not exported at the top level, and AutoImageProcessor warns when torchvision is absent.
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    kind = str(read_json(Path(folder) / "preprocessor_config.json").get("image_processor_type", "CLIP"))
    processor = BlipImageProcessorPil if kind.startswith("Blip") else CLIPImageProcessorPil
    try:
        with quiet():
            return processor.from_pretrained(str(folder), local_files_only=True)
    except UNREADABLE as error:
        raise unreadable(folder, "image processor", error) from error


@dataclass(frozen=True, slots=True)
class Texts:
    """The tokens of n texts, padded on the right.

    Attributes:
        input_ids: The token ids, [n, length].
        attention_mask: The mask, [n, length]: 1 for tokens, 0 for padding.
        truncated: Which texts were longer than the model reads, [n].
    """

    input_ids: Tensor
    attention_mask: Tensor
    truncated: NDArray[np.bool_]


def tokenize(tokenizer: Any, texts: Sequence[str], max_tokens: int, device: torch.device | str = "cpu") -> Texts:
    """The tokens of texts; texts that are too long are truncated and flagged. Special tokens' text is read as text.

    Args:
        tokenizer: A transformers tokenizer.
        texts: The texts, n.
        max_tokens: The number of tokens that the model reads, special tokens included.
        device: The device of the tensors.

    Raises:
        DataError: The tokenizer cannot read a text as plain text; the text is named.
    """
    truncated = np.array([len(ids) > max_tokens for ids in plain_ids(tokenizer, texts)], np.bool_)
    batch = plain(tokenizer, texts, truncation=True, max_length=max_tokens, padding=True, return_tensors="pt")
    return Texts(batch["input_ids"].to(device), batch["attention_mask"].to(device), truncated)


def pixels(processor: Any, images: Sequence[Image.Image]) -> Tensor:
    """The images, resized and normalised by the processor, [n, 3, height, width]."""
    values: Tensor = processor(images=[rgb(image) for image in images], return_tensors="pt")["pixel_values"]
    return values


def to_tensor(image: Image.Image) -> Tensor:
    """An image as numbers from 0 to 1, [3, height, width]."""
    return torch.from_numpy(np.array(rgb(image))).permute(2, 0, 1).float() / 255
