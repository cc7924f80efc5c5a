"""Chat models: trained, saved and used with the tokenizer's own chat template, and usable without this package."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import processors
from transformers import AutoTokenizer, GenerationConfig, Qwen3Config, Qwen3ForCausalLM

from semdpo.engine import fingerprint
from semdpo.errors import ConfigError, DataError, ModelError
from semdpo.models.prompting import completion_ids, end_token, prompt_ids
from semdpo.models.rewriter import load_rewriter
from semdpo.models.rewriter_settings import read_settings
from semdpo.models.standalone import chat_template
from semdpo.progress import silent
from semdpo.recipe.base import CHAT, Template
from semdpo.recipe.schema import SFTConfig
from semdpo.training.fine_tune import fine_tune
from semdpo.training.preference_trainer import PreferenceTrainer
from semdpo.training.to_folder import train
from tests import tiny_models
from tests.models.test_prompting import byte_tokenizer
from tests.training.seven_pairs import COLOURS, ROWS, settings_for

SYSTEM = 'Rewrite the prompt. Keep "every" word — {prompt} included.'
# Written for these tests, in the manner of Qwen3's: an empty thought stands before the answer if thinking is off.
QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
PROMPTS = [f"a {colour} cat" for colour in COLOURS]


def _qwen3(folder: Path, template: str | None = QWEN3) -> Path:
    """A Qwen3 with random weights. Its end token is not the one that ends a turn, as in Qwen3's base models."""
    tokenizer = byte_tokenizer("<|endoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
    tokenizer.pad_token, tokenizer.chat_template = "<|endoftext|>", template
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        eos_token_id=0,
        bos_token_id=None,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _qwen3(tmp_path_factory.mktemp("chat") / "qwen3")


@pytest.fixture(scope="module")
def tuned(qwen3: Path) -> Path:
    """The model after SFT with a system message."""
    config = SFTConfig(
        model=str(qwen3), file="none", steps=60, batch_size=7, template=CHAT, system=SYSTEM, max_length=256,
        learning_rate=1e-2,
    )  # fmt: skip
    fine_tune([(prompt, f"{prompt}, oil") for prompt in PROMPTS], config, qwen3.parent / "sft", silent)
    return qwen3.parent / "sft"


def _messages(prompt: str, system: str | None = SYSTEM) -> list[dict[str, str]]:
    return [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": prompt}]


@pytest.mark.parametrize("system", [None, SYSTEM])
def test_the_model_reads_what_the_chat_template_gives(qwen3: Path, system: str | None) -> None:
    tokenizer = AutoTokenizer.from_pretrained(qwen3)
    prompts = ["a cat", "{prompt}", "two cats\n\nand {{ a }} dog", "äöü 猫 🐈", 'say "hi"']
    given: Any = [
        tokenizer.apply_chat_template(
            _messages(prompt, system), add_generation_prompt=True, enable_thinking=False, return_dict=False
        )
        for prompt in prompts
    ]
    assert prompt_ids(tokenizer, Template(CHAT, system), prompts) == given


def test_an_answer_ends_with_the_token_that_ends_a_turn(qwen3: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(qwen3)
    turn = [*_messages("a cat"), {"role": "assistant", "content": "a fat cat"}]
    whole = tokenizer.apply_chat_template(turn, tokenize=False).rstrip("\n")
    template = Template(CHAT, SYSTEM)
    (before,), (after,) = (
        prompt_ids(tokenizer, template, ["a cat"]),
        completion_ids(tokenizer, template, ["a cat"], ["a fat cat"]),
    )
    assert tokenizer.decode(before + after) == whole
    assert after[-1] == end_token(tokenizer, template) == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert tokenizer.eos_token_id != after[-1]


def test_a_control_token_in_a_prompt_is_refused(qwen3: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(qwen3)
    with pytest.raises(DataError, match=re.escape("contains '<|im_end|>'")):
        prompt_ids(tokenizer, Template(CHAT), ["a cat<|im_end|>"])


@pytest.mark.parametrize(
    ("chat_template", "message"),
    [
        (None, "has no chat template"),
        ("{{ raise_exception('no system message here') }}", "no system message here; change or remove system"),
        ("{{ messages[-1].content }}<|im_start|>assistant\n<think>\n", "always begins to think"),
    ],
)
def test_a_chat_template_that_cannot_be_used_is_refused(
    tmp_path: Path, chat_template: str | None, message: str
) -> None:
    folder = _qwen3(tmp_path / "model", chat_template)
    with pytest.raises(ModelError, match=message):
        load_rewriter(folder, Template(CHAT, "be brief"), temperature=0)


@pytest.mark.slow
def test_a_chat_model_trains_and_is_used_without_this_package(tuned: Path, cache: Path, tmp_path: Path) -> None:
    train(
        ROWS,
        tuned,
        tmp_path / "sem_dpo",
        alpha=4,
        epochs=8,
        learning_rate=1e-3,
        micro_batch_size=4,
        precision="float32",
    )
    folders = [tuned, tmp_path / "sem_dpo"]
    rewrites = []
    for folder in folders:
        assert read_settings(folder).reads == Template(CHAT, SYSTEM)
        own = [row[0] for row in load_rewriter(folder, temperature=0).rewrite(PROMPTS, 1, 0)]
        pipe = transformers.pipeline("text-generation", str(folder))
        theirs = [pipe(_messages(prompt))[0]["generated_text"][-1]["content"] for prompt in PROMPTS]
        assert [" ".join(text.split()) for text in theirs] == own
        rewrites.append(own)
    # It learnt, and stops at the end of its turn.
    assert all(re.fullmatch("a [a-z]+ cat, oil", text) for text in rewrites[0])
    assert fingerprint.model(folders[0]) != fingerprint.model(folders[1])


def test_the_saved_template_never_thinks(tuned: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tuned)
    for more in ({}, {"enable_thinking": True}):
        text = tokenizer.apply_chat_template(_messages("a cat"), tokenize=False, add_generation_prompt=True, **more)
        assert text.endswith("<think>\n\n</think>\n\n")
    thought = tokenizer.convert_tokens_to_ids("<think>")
    assert GenerationConfig.from_pretrained(tuned).suppress_tokens == [thought]


def test_a_template_of_text_becomes_a_chat_template(base: Path, cache: Path, tmp_path: Path) -> None:
    train(ROWS, base, tmp_path / "dpo", objective="dpo", precision="float32")
    own = [row[0] for row in load_rewriter(tmp_path / "dpo", temperature=0).rewrite(PROMPTS, 1, 0)]
    pipe = transformers.pipeline("text-generation", str(tmp_path / "dpo"))
    theirs = [pipe(_messages(prompt, None))[0]["generated_text"][-1]["content"] for prompt in PROMPTS]
    assert [" ".join(text.split()) for text in theirs] == own
    tokenizer, start = AutoTokenizer.from_pretrained(tmp_path / "dpo"), AutoTokenizer.from_pretrained(base)
    ids = tokenizer.apply_chat_template(_messages(' a "big" cat ', None), add_generation_prompt=True, return_dict=False)
    assert [ids] == prompt_ids(start, tiny_models.TEMPLATE, [' a "big" cat '])
    with pytest.raises(Exception, match="reads messages of the user only"):
        tokenizer.apply_chat_template(_messages("a cat", "be brief"))


@pytest.mark.parametrize("text", ['\\n"{prompt}" {% y %} }}\n\t=> ', "<s>é😀 {prompt} → ", "{prompt}"])
@pytest.mark.parametrize("begins", [True, False])
def test_any_template_of_text_becomes_a_chat_template(text: str, begins: bool) -> None:
    tokenizer = byte_tokenizer("<s>", "</s>")
    if begins:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    wanted = prompt_ids(tokenizer, text, ["a cat", "ein Übel'"])
    tokenizer.chat_template = chat_template(tokenizer, Template(text))
    found = [
        tokenizer.apply_chat_template(_messages(prompt, None), add_generation_prompt=True, return_dict=False)
        for prompt in ("a cat", "ein Übel'")
    ]
    assert found == wanted


def test_the_card_shows_how_to_use_it_without_this_package(tuned: Path) -> None:
    card = (tuned / "README.md").read_text(encoding="utf-8")
    (line,) = [line for line in card.splitlines() if line.strip().startswith("messages = ")]
    assert json.loads(line.partition("=")[2]) == _messages("a red ball")
    assert 'pipeline("text-generation"' in card


def test_the_trainer_saves_a_chat_model_too(qwen3: Path, cache: Path, tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "out", objective="dpo", template=CHAT, system=SYSTEM)
    trainer = PreferenceTrainer(str(qwen3), args=settings, train_dataset=ROWS)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    assert read_settings(tmp_path / "saved").reads == Template(CHAT, SYSTEM)
    text = AutoTokenizer.from_pretrained(tmp_path / "saved").apply_chat_template(_messages("a cat"), tokenize=False)
    assert SYSTEM in text
    assert GenerationConfig.from_pretrained(tmp_path / "saved").max_new_tokens >= 40


@pytest.mark.parametrize(
    ("template", "system", "message"),
    [
        ("{prompt} Rephrase:", "be brief", "set template to chat"),
        (CHAT, " ", "system is blank"),
        ("hi", None, "or be 'chat'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    qwen3: Path, tmp_path: Path, template: str, system: str | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(ROWS, qwen3, tmp_path / "out", template=template, system=system)
    with pytest.raises(ConfigError, match=message):
        settings_for(tmp_path, template=template, system=system)
