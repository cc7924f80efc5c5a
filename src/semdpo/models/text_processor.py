"""How pipelines read prompts whose processor also reads images: FLUX.2 [dev] and Qwen-Image-2.1.

Transformers' own processors of these models need torchvision, even where there is no image to read. So their pipelines
get a processor of texts alone. It has transformers' own code for a processor's texts and chat template.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast, ProcessorMixin

from semdpo.errors import ModelError
from semdpo.models.loading import UNREADABLE, load_tokenizer, quiet, read_json, unreadable

PIXTRAL = "PixtralProcessor"  # without torchvision, transformers has only a placeholder of this class
QWEN = "Qwen3VLProcessor"


class TextProcessor(ProcessorMixin):  # type: ignore[misc,unused-ignore]
    """A processor that reads texts and no images.

    Args:
        tokenizer: The tokenizer.
        chat_template: The chat template, in Jinja.
    """

    def __init__(self, tokenizer: Any = None, chat_template: str | None = None) -> None:
        super().__init__(tokenizer, chat_template=chat_template)

    def __call__(self, text: Any = None, **named: Any) -> Any:  # type: ignore[override,unused-ignore]
        """The tokens of texts, [n, length]; one text is a batch of one, as for processors of images.

        Args:
            text: A text, or n of them.
            named: Further arguments of a processor's call.
        """
        return super().__call__(text=[text] if isinstance(text, str) else text, **named)


def text_processors(folder: Path, index: Mapping[str, Any]) -> dict[str, TextProcessor]:
    """The processors of texts that take the place of a pipeline's own, by the name of its part.

    Args:
        folder: The folder of a diffusers pipeline.
        index: The content of its ``model_index.json``.

    Raises:
        ModelError: A tokenizer cannot be read, or has no chat template.
    """
    kinds = {name: entry[1] for name, entry in index.items() if isinstance(entry, list) and len(entry) == 2}
    return {name: _processor(folder / name, kind) for name, kind in kinds.items() if kind in (PIXTRAL, QWEN)}


def in_place_of(processors: Mapping[str, TextProcessor], index: Mapping[str, Any]) -> dict[str, TextProcessor | None]:
    """What diffusers is given for these parts when it makes the pipeline.

    It compares a part with the class in the index, and a placeholder has none that it could be compared with. Such a
    part is None at first, and set once the pipeline is made.

    Args:
        processors: The result of ``text_processors``.
        index: The content of the pipeline's ``model_index.json``.
    """
    return {name: None if index[name][1] == PIXTRAL else each for name, each in processors.items()}


def chat_template_of(folder: Path, tokenizer: Any) -> str:
    """The chat template of a folder; older releases have it in a file of its own.

    Raises:
        ModelError: There is none.
    """
    template = tokenizer.chat_template
    if template is None and (folder / "chat_template.json").is_file():
        template = read_json(folder / "chat_template.json").get("chat_template")
    if not isinstance(template, str):
        raise ModelError(f"'{folder}' has no chat template; download the model again")
    return template


def _processor(folder: Path, kind: str) -> TextProcessor:
    tokenizer = _pixtral_tokenizer(folder) if kind == PIXTRAL else load_tokenizer(folder)
    return TextProcessor(tokenizer, chat_template_of(folder, tokenizer))


def _pixtral_tokenizer(folder: Path) -> Any:
    """The tokenizer as its file has it: its settings name Llama's class, which splits words in another way."""
    try:
        with quiet():
            return PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    except UNREADABLE as error:
        raise unreadable(folder, "tokenizer", error) from error
