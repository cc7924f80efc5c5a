"""Image-text-to-text models that are asked about images: what all scorers that ask a question share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from semdpo.errors import ModelError
from semdpo.models.device import Compute
from semdpo.models.loading import UNREADABLE, load_model, quiet, read_json, unreadable
from semdpo.models.qwen_vl import KINDS, load_reader, to_device
from semdpo.models.registry import Place
from semdpo.models.tokens import refuse_special_text

if TYPE_CHECKING:
    from PIL import Image


class _Reader(Protocol):
    """What makes a model's inputs from images and questions."""

    @property
    def tokenizer(self) -> Any: ...

    def refuse_special(self, prompts: Sequence[str]) -> None: ...

    def read(self, images: Sequence[Image.Image], texts: Sequence[str], answer: str = "") -> dict[str, Tensor]: ...


class _ProcessorReader:
    """transformers' own processor of a model."""

    def __init__(self, folder: Path, name: str) -> None:
        from transformers import AutoProcessor

        try:
            with quiet():
                self._processor: Any = AutoProcessor.from_pretrained(str(folder), local_files_only=True)
        except (*UNREADABLE, ImportError) as error:
            raise unreadable(folder, "processor", error) from error
        self.tokenizer, self._name = self._processor.tokenizer, name

    def refuse_special(self, prompts: Sequence[str]) -> None:
        # The question is inside a template of special tokens, so special tokens' text in a prompt must be refused.
        named = (getattr(self._processor, name, None) for name in ("image_token", "video_token"))
        refuse_special_text(self.tokenizer, prompts, self._name, [text for text in named if isinstance(text, str)])

    def read(self, images: Sequence[Image.Image], texts: Sequence[str], answer: str = "") -> dict[str, Tensor]:
        whole = [_chat(self._processor, text) + answer for text in texts]
        rows = [[image] for image in images]
        # Some chat templates write the begin token themselves. The tokenizer would put a second one before it, which
        # transformers avoids in the same way.
        begin = self.tokenizer.bos_token
        begun = begin is not None and whole[0].startswith(begin)
        named = {"add_special_tokens": False} if begun else {}
        return dict(self._processor(images=rows, text=whole, padding=True, return_tensors="pt", **named))


class VisionLanguage:
    """A model that reads an image and a question, and says how probable each next token of the answer is.

    Args:
        place: The place of an image-text-to-text model that transformers loads, with its processor.
        where: The device and the weights' type.

    Raises:
        ModelError: The folder cannot be read.
    """

    def __init__(self, place: Place, where: Compute) -> None:
        from transformers import AutoModelForImageTextToText

        self.folder, self._where = place.folder(), where
        self._model = load_model(AutoModelForImageTextToText, self.folder, where)
        of_qwen = read_json(self.folder / "config.json").get("model_type") in KINDS
        self._reader: _Reader = (load_reader if of_qwen else _ProcessorReader)(self.folder, place.name)
        tokenizer = self._reader.tokenizer
        tokenizer.padding_side = "left"  # so that every row ends with its answer
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token

    def tokens(self, text: str) -> list[int]:
        """The ids of a text's tokens, without special ones."""
        return list(self._reader.tokenizer(text, add_special_tokens=False)["input_ids"])

    def first_token(self, text: str) -> int:
        """The id of a text's first token."""
        return self.tokens(text)[0]

    def log_probabilities(
        self, images: Sequence[Image.Image], questions: Sequence[str], texts: Sequence[str], answer: str = ""
    ) -> tuple[Tensor, Tensor]:
        """The log-probabilities of the tokens of an answer, and of the token after it.

        Args:
            images: The images, n.
            questions: What is asked about them, n.
            texts: What a user wrote of each question, n; it must hold no control token.
            answer: What the model is made to answer; an empty text only asks for the first token of its own answer.

        Returns:
            log P of all tokens at the places of the answer's tokens and behind it, [n, answer + 1, vocabulary]; and
            the ids that the model read in place of the answer, [n, answer].

        Raises:
            DataError: A text holds a control token; it is named.
            ModelError: The tokenizer joins the answer with the question.
        """
        self._reader.refuse_special(texts)
        expected = self.tokens(answer) if answer else []
        with quiet():
            inputs = to_device(self._reader.read(images, questions, answer), self._where.device, self._where.dtype)
        read = inputs["input_ids"][:, inputs["input_ids"].shape[1] - len(expected) :]
        if any(row != expected for row in read.tolist()):
            raise ModelError(f"'{self.folder}' reads '{answer}' together with what precedes it; use another model")
        logits = self._model(**inputs).logits[:, -len(expected) - 1 :].float()
        return logits.log_softmax(-1), read


def answers_questions(config: Mapping[str, Any]) -> bool:
    """Whether transformers loads a model with this ``config.json`` as an image-text-to-text model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    return config.get("model_type") in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


def _chat(processor: Any, question: str) -> str:
    if getattr(processor, "chat_template", None) is None:
        return f"{getattr(processor, 'image_token', '<image>')}\n{question} "
    content = [{"type": "image"}, {"type": "text", "text": question}]
    text: str = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return text
