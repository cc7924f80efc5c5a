"""Processors of texts: they read as transformers' own do, which need torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import Qwen3VLProcessor

from semdpo.errors import ModelError
from semdpo.models.loading import quiet
from semdpo.models.text_processor import PIXTRAL, QWEN, TextProcessor, in_place_of, text_processors
from tests import tiny_pipelines

TURN = "<|im_start|>{{ m.role }}\n{{ m.content[0].text }}<|im_end|>\n"
TEMPLATE = "{% for m in messages %}" + TURN + "{% endfor %}"
MESSAGES = [{"role": "system", "content": [{"type": "text", "text": "Comprehend the prompt."}]}]


def _own(tokenizer: Any) -> Qwen3VLProcessor:
    """Transformers' own processor, made without its processors of images and videos."""
    own = Qwen3VLProcessor.__new__(Qwen3VLProcessor)
    own.tokenizer, own.chat_template = tokenizer, TEMPLATE
    for name in ("image", "video"):
        token = f"<|{name}_pad|>"
        setattr(own, f"{name}_token", token)
        setattr(own, f"{name}_token_id", tokenizer.convert_tokens_to_ids(token))
    return own


def test_texts_and_chats_are_read_as_transformers_own_processor_reads_them() -> None:
    tokenizer = tiny_pipelines.qwen_tokenizer("<|image_pad|>", "<|video_pad|>")
    both = [TextProcessor(tokenizer, TEMPLATE), _own(tokenizer)]
    settings = {"padding": True, "padding_side": "left", "return_tensors": "pt"}
    with quiet():
        mine, theirs = (each(text=["<|im_start|>a cat<|im_end|>", "a"], **settings) for each in both)
        assert mine["input_ids"].tolist() == theirs["input_ids"].tolist()
        assert mine["attention_mask"].tolist() == theirs["attention_mask"].tolist()
        one, other = (each.apply_chat_template(MESSAGES, tokenize=True, return_dict=False) for each in both)
        assert one == other
        assert len(one) == 1, "one chat is a batch of one"
        truncated = [
            each.apply_chat_template(
                [MESSAGES, MESSAGES], tokenize=True, return_dict=True, return_tensors="pt", padding="max_length",
                truncation=True, max_length=20,
            )["input_ids"].tolist()
            for each in both
        ]  # fmt: skip
    assert truncated[0] == truncated[1]
    assert len(truncated[0][0]) == 20


def test_a_pipeline_gets_them_in_place_of_those_two_alone(tmp_path: Path) -> None:
    tiny_pipelines.pixtral_tokenizer().save_pretrained(tmp_path / "tokenizer")
    index = {"_class_name": "P", "tokenizer": ["transformers", PIXTRAL], "vae": ["diffusers", "AutoencoderKL"]}
    found = text_processors(tmp_path, index)
    assert found.keys() == {"tokenizer"}
    assert in_place_of(found, index) == {"tokenizer": None}
    chat = [{"role": "user", "content": [{"type": "text", "text": "a cat"}]}]
    ids = found["tokenizer"].apply_chat_template(chat, tokenize=True, return_dict=False)[0]
    assert found["tokenizer"].tokenizer.convert_ids_to_tokens(ids)[:3] == ["<s>", "[INST]", "a"]
    assert text_processors(tmp_path, {"tokenizer": ["transformers", "CLIPTokenizer"], "names": ["a", "b", "c"]}) == {}


def test_a_folder_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    tiny_pipelines.qwen_tokenizer().save_pretrained(tmp_path / "processor")
    with pytest.raises(ModelError, match="has no chat template; download the model again"):
        text_processors(tmp_path, {"processor": ["transformers", QWEN]})
    with pytest.raises(ModelError, match="does not hold a readable tokenizer"):
        text_processors(tmp_path / "absent", {"tokenizer": ["transformers", PIXTRAL]})
