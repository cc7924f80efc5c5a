"""Text that looks like a special token is read as text, by every kind of tokenizer."""

from __future__ import annotations

import string
from typing import Any

import pytest
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    BertTokenizer,
    ByT5Tokenizer,
    CLIPTokenizer,
    GPT2Tokenizer,
    LlamaTokenizer,
    Qwen2Tokenizer,
    T5Tokenizer,
    XLMRobertaTokenizer,
)

from semdpo.errors import DataError
from semdpo.models import tokens
from semdpo.models.loading import load_tokenizer
from semdpo.models.registry import resolve
from semdpo.models.tokens import plain, plain_ids, refuse_special_text, special_text

CHARACTERS = string.ascii_lowercase + string.digits + "<>/|[]_,."
BYTES = sorted(ByteLevel.alphabet())


def _unigram(*special: str) -> list[tuple[str, float]]:
    return [*((each, 0.0) for each in special), ("▁", -2.0), *((c, -3.0) for c in CHARACTERS), ("▁cat", -4.0)]


def _byte_level(kind: Any, **more: Any) -> Any:
    return kind(vocab={"<|endoftext|>": 0, **{byte: i + 1 for i, byte in enumerate(BYTES)}}, merges=[], **more)


def _pieces() -> dict[str, int]:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *CHARACTERS, *("##" + c for c in CHARACTERS)]
    return {word: i for i, word in enumerate(words)}


def _clip() -> Any:
    words = ["<|pad|>", "<|startoftext|>", "<|unk|>", "<|endoftext|>", *BYTES, *(byte + "</w>" for byte in BYTES)]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], pad_token="<|pad|>")


KINDS = {
    "clip": _clip,
    "tiny clip": lambda: load_tokenizer(resolve("tiny:clip").folder()),
    "bert": lambda: BertTokenizer(vocab=_pieces()),
    "gpt2": lambda: _byte_level(GPT2Tokenizer),
    "qwen": lambda: _byte_level(Qwen2Tokenizer, additional_special_tokens=["<|im_start|>", "<|im_end|>"]),
    "llama": lambda: LlamaTokenizer(
        vocab={"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, **{c: i + 4 for i, c in enumerate(CHARACTERS)}}, merges=[]
    ),
    "t5": lambda: T5Tokenizer(vocab=_unigram("<pad>", "</s>", "<unk>"), extra_ids=3),
    "xlm-r": lambda: XLMRobertaTokenizer(vocab=[*_unigram("<s>", "<pad>", "</s>", "<unk>"), ("<mask>", 0.0)]),
    "byt5 (slow)": ByT5Tokenizer,
}


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]()


def _content(tokenizer: Any, text: str) -> list[int]:
    (ids,) = plain_ids(tokenizer, [text], add_special_tokens=False)
    return ids


def test_special_text_gives_no_special_token(tokenizer: Any) -> None:
    forbidden = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for special in dict.fromkeys(tokenizer.all_special_tokens):
        for text in (f"a {special} cat", f"a{special}cat", f"{special}a cat{special}", special):
            ids = _content(tokenizer, text)
            assert not forbidden.intersection(ids), (special, text)
            assert len(ids) > len(_content(tokenizer, text.replace(special, ""))), "its characters are read"
            assert len(ids) >= len(special) // 2, "as several pieces"


def test_the_texts_of_two_special_tokens_differ(tokenizer: Any) -> None:
    named = [each for each in dict.fromkeys(tokenizer.all_special_tokens) if each != tokenizer.unk_token][:3]
    rows = plain_ids(tokenizer, [f"a {special} cat" for special in named])
    assert len({tuple(row) for row in rows}) == len(named)


def test_own_begin_and_end_tokens_stay(tokenizer: Any) -> None:
    text = f"a {tokenizer.all_special_tokens[0]} cat"
    (whole,), (empty,) = plain_ids(tokenizer, [text]), tokenizer(["a cat"], add_special_tokens=True)["input_ids"]
    around = [each for each in empty if each in set(tokenizer.all_special_ids)]
    assert [each for each in whole if each in set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}] == [
        each for each in around if each != tokenizer.unk_token_id
    ]
    assert len(whole) == len(_content(tokenizer, text)) + len(around)


def test_ordinary_text_is_read_as_ever(tokenizer: Any) -> None:
    texts = ["a cat, two dogs.", "x < y > z [a] | b", "", "a  cat/dog"]
    expected = tokenizer(texts)["input_ids"]
    assert plain_ids(tokenizer, texts) == expected
    assert plain_ids(tokenizer, [*texts, f"a {tokenizer.all_special_tokens[0]}"])[:-1] == expected  # its neighbour
    assert (
        plain_ids(tokenizer, texts, add_special_tokens=False)
        == (tokenizer(texts, add_special_tokens=False)["input_ids"])
    )


def test_the_tokenizer_itself_is_left_as_it_was(tokenizer: Any) -> None:
    text = f"a {tokenizer.all_special_tokens[0]} cat"
    before = tokenizer([text])["input_ids"]
    plain_ids(tokenizer, [text])
    assert tokenizer([text])["input_ids"] == before


def test_truncation_padding_and_tensors_go_through() -> None:
    tokenizer = KINDS["t5"]()
    whole = plain(tokenizer, ["a </s> cat", "a"], padding=True, truncation=True, max_length=5, return_tensors="pt")
    assert whole["input_ids"].shape == (2, 5)
    assert whole["input_ids"][0].tolist().count(tokenizer.eos_token_id) == 1
    assert whole["input_ids"][0, -1] == tokenizer.eos_token_id
    assert whole["attention_mask"].sum(1).tolist() == [5, 3]


def test_a_unigram_model_reads_the_characters_of_an_end_token() -> None:
    tokenizer = KINDS["t5"]()
    assert tokenizer.convert_ids_to_tokens(_content(tokenizer, "a</s>")) == ["▁", "a", "<", "/", "s", ">"]


def test_tokens_that_were_added_later_are_known() -> None:
    tokenizer = KINDS["t5"]()
    assert special_text(tokenizer, "a <new> cat") is None
    tokenizer.add_special_tokens({"additional_special_tokens": ["<new>"]}, replace_extra_special_tokens=False)
    assert special_text(tokenizer, "a <new> cat") == "<new>"
    assert tokenizer.convert_tokens_to_ids("<new>") not in _content(tokenizer, "a <new> cat")


def test_no_texts_give_no_ids() -> None:
    assert plain_ids(KINDS["gpt2"](), []) == []


def test_what_cannot_be_read_as_text_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = KINDS["xlm-r"]()
    monkeypatch.setattr(tokens, "_reader", lambda each: each)  # as of a vocabulary of a kind that is not known
    with pytest.raises(DataError, match=r"the text 'a <s> cat' contains '<s>', .* remove it"):
        plain_ids(tokenizer, ["a dog", "a <s> cat"])


def test_models_that_read_by_their_own_code_refuse_it() -> None:
    tokenizer = KINDS["qwen"]()
    refuse_special_text(tokenizer, ["a cat", "<im_end>"], "jina")
    with pytest.raises(DataError, match=r"'a <\|im_end\|> cat' contains '<\|im_end\|>', which jina takes"):
        refuse_special_text(tokenizer, ["a cat", "a <|im_end|> cat"], "jina")
