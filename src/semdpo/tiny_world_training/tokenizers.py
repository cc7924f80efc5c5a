"""The tiny models' tokenizers: trained on the world's own texts, in the classes that published models use."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertTokenizer, CLIPTokenizer, GPT2Tokenizer

from semdpo.tiny_world import grammar, requests, rewrites, wordings

CLIP_LENGTH = 64
BERT_LENGTH = 48
GPT2_LENGTH = 128
_CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def world_text(count: int, seed: int) -> list[str]:
    """Captions, requests and rewrites, ``count`` of each."""
    rng = Random(seed)
    lines = []
    for _ in range(count):
        lines.append(wordings.caption(grammar.scene(rng), rng)[0])
        request = requests.ask(rng)
        lines += [request.prompt, rewrites.rewrite(request, rng)]
    return lines


def write_vocabulary(folder: Path) -> None:
    """Writes ``vocabulary.json``, the words that the world knows, so that an encoder can report unknown words."""
    words = {word for line in world_text(4000, 1) for word in re.findall(r"[a-z]+", line.lower())}
    words |= {"rephrase", "the", "of", "and", "with", "an", "there", "is"}
    (folder / "vocabulary.json").write_text(json.dumps(sorted(words), indent=0) + "\n")


def _pieces(trained: Tokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    model = json.loads(trained.to_str())["model"]
    return model["vocab"], [(a, b) for a, b in model["merges"]]


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's lower-casing byte-pair encoding. It has every byte, also at a word's end, so it encodes any text."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    bpe.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    split = pre_tokenizers.Split(Regex(_CLIP_WORDS), behavior="removed", invert=True)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        min_frequency=2,
        # Without these names, pieces of one character would get their ids in the order of a random hash map.
        # The end token must not have id 2: transformers would then pool CLIP texts at the highest id.
        special_tokens=[
            "<|pad|>",
            "<|startoftext|>",
            "<|unk|>",
            "<|endoftext|>",
            *(byte + "</w>" for byte in alphabet),
        ],
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator(world_text(3000, 1), trainer)
    vocabulary, merges = _pieces(bpe)
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        pad_token="<|pad|>",
        unk_token="<|endoftext|>",
        model_max_length=CLIP_LENGTH,
    )


def bert_tokenizer() -> BertTokenizer:
    """BERT's word pieces, for the models of BLIP's structure."""
    pieces = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    characters = "abcdefghijklmnopqrstuvwxyz0123456789,.'-"
    trainer = trainers.WordPieceTrainer(
        vocab_size=768,
        min_frequency=2,
        # As for CLIP: ids must not depend on a random hash map.
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *("##" + c for c in characters)],
        show_progress=False,
    )
    pieces.train_from_iterator(world_text(3000, 1), trainer)
    vocabulary = json.loads(pieces.to_str())["model"]["vocab"]
    return BertTokenizer(vocab=vocabulary, model_max_length=BERT_LENGTH)


def gpt2_tokenizer() -> GPT2Tokenizer:
    """GPT-2's byte-level encoding, which decodes every text exactly."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        min_frequency=2,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator([line + " Rephrase:" for line in world_text(3000, 1)], trainer)
    vocabulary, merges = _pieces(bpe)
    return GPT2Tokenizer(vocab=vocabulary, merges=merges, model_max_length=GPT2_LENGTH)
