"""A byte-level BPE tokenizer in llama.cpp's form.

llama.cpp splits a text into words by rules that it knows by name. The name is found by the rule of the tokenizer
itself; another rule is refused, because the ids would differ without any error.

Source:
    llama.cpp's ``src/llama-vocab.cpp`` (the rules, and which of them look up whole words before merging).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from gguf import TokenType

from semdpo.errors import ModelError
from semdpo.models.prompting import THINKING, prompt_ids
from semdpo.models.tokens import plain_ids
from semdpo.recipe.base import SLOT

# Expression by which a tokenizer splits a text into words → llama.cpp's name of the rule. GPT-2's own is built in.
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = _QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
RULES = {None: "gpt-2", _QWEN2: "qwen2", _LLAMA3: "llama-bpe"}
WHOLE_WORDS = {"llama-bpe"}  # rules with which llama.cpp takes a word that is a token without merging


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer in llama.cpp's form.

    Attributes:
        rule: The name of the rule that splits a text into words.
        tokens: The texts of the tokens by id, one for each row of the embeddings.
        types: What each token is.
        merges: The merges in their order, with a space between the two parts.
        begin: The id of the begin token.
        adds_begin: Whether the begin token stands before each text.
        ends: The ids at which a rewrite ends; the first is the tokenizer's own.
        padding: The id of the padding token.
        suppressed: The ids of tokens that a rewriter must not write.
    """

    rule: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    begin: int
    adds_begin: bool
    ends: list[int]
    padding: int
    suppressed: list[int]


def vocabulary(tokenizer: Any, model: Any, name: str) -> Vocabulary:
    """The tokenizer's vocabulary, rules and control tokens.

    Args:
        tokenizer: The rewriter's tokenizer.
        model: Its model, whose generation settings name the end tokens.
        name: The rewriter's name, for messages.

    Raises:
        ModelError: llama.cpp would tokenize differently.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    spec = {} if backend is None else json.loads(backend.to_str())
    rule = _rule(spec)
    if rule is None:
        raise ModelError(
            f"llama.cpp cannot tokenize as '{name}' does; its tokenizer must be a byte-level BPE that splits texts as "
            "GPT-2, Qwen2 or Llama 3 do"
        )
    own = tokenizer.eos_token_id
    ends = [own, *(end for end in model.generation_config.eos_token_id if end != own)]
    if len(ends) > 3:  # an end of text, of a turn, and of a message
        raise ModelError(f"'{name}' has {len(ends)} end tokens, and a GGUF file names at most three; keep fewer")
    rows = model.get_input_embeddings().weight.shape[0]
    tokens, types = _tokens(tokenizer, rows, name)
    begin = next(each for each in (tokenizer.bos_token_id, model.config.bos_token_id, own) if each is not None)
    return Vocabulary(
        rule=rule,
        tokens=tokens,
        types=types,
        merges=[" ".join(pair) for pair in spec["model"]["merges"]],
        begin=begin,
        adds_begin=_adds_begin(tokenizer, begin, name),
        ends=ends,
        padding=tokenizer.pad_token_id,
        suppressed=[tokens.index(THINKING)] if THINKING in tokens else [],
    )


def _rule(spec: dict[str, Any]) -> str | None:
    """The name of the rule by which a tokenizer splits a text; None if llama.cpp has no such rule."""
    model, splitting = spec.get("model") or {}, spec.get("pre_tokenizer") or {}
    steps = splitting.get("pretokenizers", [splitting])
    *splits, last = steps if steps else [{}]
    plain = (
        model.get("type") == "BPE"
        and not any(model.get(key) for key in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"))
        and not model.get("byte_fallback")
        # llama.cpp does not normalize. NFC changes only texts whose accents are characters of their own.
        and (spec.get("normalizer") or {"type": "NFC"})["type"] == "NFC"
        and last.get("type") == "ByteLevel"
        and not last.get("add_prefix_space", True)
        and last.get("use_regex", True) == (not splits)
        and len(splits) <= 1
    )
    if not plain:
        return None
    split = splits[0] if splits else {}
    if split and (split.get("type"), split.get("behavior"), split.get("invert")) != ("Split", "Isolated", False):
        return None
    rule = RULES.get((split.get("pattern") or {}).get("Regex")) if split else RULES[None]
    return rule if bool(model.get("ignore_merges")) == (rule in WHOLE_WORDS) else None


def _tokens(tokenizer: Any, rows: int, name: str) -> tuple[list[str], list[int]]:
    """The texts and types of all tokens; rows of the embeddings without a token are marked as unused."""
    added, special = tokenizer.added_tokens_decoder, set(tokenizer.all_special_ids)
    tokens = [f"[PAD{index}]" for index in range(rows)]
    types = [int(TokenType.UNUSED)] * rows
    for token, index in tokenizer.get_vocab().items():
        if index >= rows:
            raise ModelError(f"the tokenizer of '{name}' has the token {index}, but the model has {rows} rows only")
        tokens[index], types[index] = token, int(TokenType.NORMAL)
    for index, token in added.items():
        if token.lstrip or token.rstrip or token.single_word:
            raise ModelError(
                f"the token '{token.content}' of '{name}' takes spaces around it, or stands only between words, which "
                "llama.cpp does not do; set lstrip, rstrip and single_word to false in its tokenizer"
            )
        types[index] = int(TokenType.CONTROL if token.special or index in special else TokenType.USER_DEFINED)
    return tokens, types


def _adds_begin(tokenizer: Any, begin: int, name: str) -> bool:
    (whole,), (bare,) = prompt_ids(tokenizer, SLOT, ["a"]), plain_ids(tokenizer, ["a"], add_special_tokens=False)
    before = whole[: len(whole) - len(bare)]
    if before not in ([], [begin]):
        raise ModelError(f"the tokenizer of '{name}' puts more than a begin token before a text; export to hf")
    return bool(before)
