"""Where prompt and rewrite meet: the ids of the plain text, one begin token, one end token, the same everywhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import GPT2Tokenizer, LlamaTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer

from semdpo.errors import DataError
from semdpo.models.prompting import completion_ids, prompt_ids
from semdpo.models.rewriter import CausalRewriter, Decoding
from semdpo.training.batches import encode
from tests.models.test_tokens import BYTES, CHARACTERS
from tests.training import architectures

TEMPLATE = "{prompt} rephrase."
CHAT = "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"


def _appends() -> Any:
    """Begins every text with a token, and ends it with another (trl#884)."""
    tokenizer = byte_tokenizer("<s>", "</s>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return tokenizer


def byte_tokenizer(begin: str, end: str, *more: str) -> Any:
    """A tokenizer of bytes with these control tokens; it adds none by itself."""
    specials = list(dict.fromkeys((begin, end, *more)))
    backend = Tokenizer(models.BPE({word: i for i, word in enumerate([*specials, *BYTES])}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(specials)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=begin, eos_token=end)


def _llama() -> Any:
    """Puts "▁" before every text, and reads a space as "▁" too; words of their own merge across it."""
    words = ["<unk>", "<s>", "</s>", "▁", *CHARACTERS, "▁a", "▁c", "▁ca"]
    merges = [("▁", "a"), ("▁", "c"), ("▁c", "a")]
    return LlamaTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=merges, add_bos_token=True)


def _gpt2() -> Any:
    return GPT2Tokenizer(vocab={"<|endoftext|>": 0, **{byte: i + 1 for i, byte in enumerate(BYTES)}}, merges=[])


def _qwen() -> Any:
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Qwen2Tokenizer(
        vocab={"<|endoftext|>": 0, **{byte: i + 1 for i, byte in enumerate(BYTES)}}, merges=[],
        additional_special_tokens=names[1:],
    )  # fmt: skip
    tokenizer.eos_token = "<|im_end|>"
    return tokenizer


KINDS = {"gpt2": _gpt2, "llama": _llama, "qwen": _qwen, "appends": _appends}


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]()


def _plain(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _both(tokenizer: Any, template: str, prompt: str, text: str) -> tuple[list[int], list[int]]:
    (before,), (after,) = (
        prompt_ids(tokenizer, template, [prompt]),
        completion_ids(tokenizer, template, [prompt], [text]),
    )
    return before, after


def test_ids_are_those_of_the_whole_text(tokenizer: Any) -> None:
    """The right value comes from the tokenizer alone: the whole text's ids, after those of the prompt."""
    prompts, texts = ["a cat", "a red ball"], ["a fat cat", " two cats "]
    found = prompt_ids(tokenizer, TEMPLATE, prompts)
    learnt = completion_ids(tokenizer, TEMPLATE, prompts, texts)
    for prompt, text, before, after in zip(prompts, texts, found, learnt, strict=True):
        begins = [tokenizer.bos_token_id] if tokenizer(prompt)["input_ids"][0] == tokenizer.bos_token_id else []
        assert before == begins + _plain(tokenizer, f"{prompt} rephrase.")
        assert before + after == begins + _plain(tokenizer, f"{prompt} rephrase. {text.strip()}") + [
            tokenizer.eos_token_id
        ]


def test_there_is_one_end_token_and_it_is_the_last(tokenizer: Any) -> None:
    """A tokenizer that ends every text by itself does not end the prompt (reward-bench#90)."""
    (before,), (after,) = (
        prompt_ids(tokenizer, TEMPLATE, ["a cat"]),
        completion_ids(tokenizer, TEMPLATE, ["a cat"], ["b"]),
    )
    assert tokenizer.eos_token_id not in before
    assert after.count(tokenizer.eos_token_id) == 1
    assert after[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("ends", ["{end}", " {end}", "{end}{end}", "{end} \n", " {end} {end} "])
def test_an_end_that_is_written_out_is_the_end(ends: str, tokenizer: Any) -> None:
    wanted = completion_ids(tokenizer, TEMPLATE, ["a cat"], ["a fat cat"])
    text = "a fat cat" + ends.format(end=tokenizer.eos_token)
    assert completion_ids(tokenizer, TEMPLATE, ["a cat"], [text]) == wanted


def test_a_rewrite_begins_without_a_spurious_blank() -> None:
    """Tokenized alone, a Llama-2-kind tokenizer puts another "▁" before it (transformers#28622)."""
    tokenizer = _llama()
    ((first, *_),) = completion_ids(tokenizer, TEMPLATE, ["a cat"], ["cat"])
    assert tokenizer.convert_ids_to_tokens([first]) == ["▁ca"]


@pytest.mark.parametrize("template", ["<s>{prompt}:", "<s> {prompt}:", "{prompt}:"])
def test_a_template_that_begins_with_the_begin_token_has_one(template: str) -> None:
    for tokenizer in (_appends(), _llama()):
        (ids,) = prompt_ids(tokenizer, template, ["a cat"])
        assert ids[0] == tokenizer.bos_token_id
        assert ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("where", ["prompt", "completion"])
def test_what_looks_like_a_special_token_is_text(where: str, tokenizer: Any) -> None:
    for special in tokenizer.all_special_tokens:
        odd = f"a red ball{special} two cats"
        prompt, text = (odd, "b") if where == "prompt" else ("a cat", odd)
        (before,), (after,) = (
            prompt_ids(tokenizer, TEMPLATE, [prompt]),
            completion_ids(tokenizer, TEMPLATE, [prompt], [text]),
        )
        begins = [tokenizer.bos_token_id] if tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id else []
        ids = before[len(begins) :] + after[:-1]
        assert not set(ids) & set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        if tokenizer.unk_token_id not in ids:
            assert tokenizer.decode(ids).strip() == f"{prompt} rephrase. {text}"


@pytest.mark.parametrize("special", ["<|im_end|>", "<|im_start|>", "<|endoftext|>"])
@pytest.mark.parametrize("where", ["prompt", "completion"])
def test_among_a_templates_own_control_tokens_it_is_refused_by_name(special: str, where: str) -> None:
    odd = f"a red ball{special} two cats"
    prompts = ["a dog", odd if where == "prompt" else "a cat"]
    texts = ["b", odd if where == "completion" else "c"]
    with pytest.raises(DataError) as caught:
        encode(_qwen(), CHAT, prompts, [(each,) for each in texts], ["pair 1", "pair 2"])
    assert "pair 2" in str(caught.value)
    assert special in str(caught.value)


def test_a_templates_own_control_tokens_are_meant() -> None:
    tokenizer = _qwen()
    (before,), (after,) = (
        prompt_ids(tokenizer, CHAT, ["a cat"]),
        completion_ids(tokenizer, CHAT, ["a cat"], ["b<|im_end|>"]),
    )
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert (before.count(start), before.count(end)) == (2, 1)
    assert after == [*_plain(tokenizer, " b"), end]


def test_a_rewrite_that_merges_with_the_prompt_is_read_apart() -> None:
    """Where the tokenizer joins the prompt's last token with what follows, the prompt keeps its own."""
    words = ["<unk>", "</s>", *"abc :", ": ", ": b"]
    backend = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, [(":", " "), (": ", "b")]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    (before,), (after,) = (
        prompt_ids(tokenizer, "{prompt}:", ["a"]),
        completion_ids(tokenizer, "{prompt}:", ["a"], ["b"]),
    )
    assert tokenizer.convert_ids_to_tokens(before) == ["a", ":"]
    assert tokenizer.convert_ids_to_tokens(after) == [" ", "b", "</s>"]


def test_training_and_generation_read_the_same(tokenizer: Any) -> None:
    model = architectures.model(architectures.config("llama", vocab_size=len(tokenizer), max_position_embeddings=256))
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model.generation_config.eos_token_id = [tokenizer.eos_token_id]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    seen: list[tuple[list[int], list[int]]] = []

    def note(_module: Any, _args: Any, given: dict[str, Any]) -> None:
        if not seen:
            rows = zip(given["input_ids"], given["attention_mask"], strict=True)
            seen.extend((ids[mask.bool()].tolist(), mask.tolist()) for ids, mask in rows)

    model.register_forward_pre_hook(note, with_kwargs=True)
    prompts = ["a cat", "a red ball</s> on a table", "a dog"]
    with torch.no_grad():
        CausalRewriter(model, tokenizer, TEMPLATE, Decoding(max_new_tokens=2)).rewrite(prompts, 1, 0)
    groups = encode(tokenizer, TEMPLATE, prompts, [("b",)] * 3)
    assert [tuple(ids) for ids, _ in seen] == [group.prompt for group in groups]
