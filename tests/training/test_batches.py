from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from semdpo.errors import DataError
from semdpo.models.rewriter import load_rewriter
from semdpo.objectives import IGNORED
from semdpo.training.batches import Tokens, encode, pad, refuse_too_long
from tests import tiny_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.gpt2(tmp_path_factory.mktemp("gpt2") / "model")


def test_the_completion_follows_the_template_and_ends(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    [found] = encode(tokenizer, "Q: {prompt} A:", [" a {prompt} cat "], [" a fat cat "])
    assert tokenizer.decode(found.prompt) == "Q: a {prompt} cat A:"
    assert tokenizer.decode(found.completion) == " a fat cat<|endoftext|>"
    assert len(found) == len(found.prompt) + len(found.completion)
    assert encode(tokenizer, "{prompt}", [], []) == []


def test_training_reads_what_the_rewriter_reads(folder: Path) -> None:
    rewriter = load_rewriter(folder)
    [found] = encode(rewriter._tokenizer, rewriter.template, ["a cat"], ["b"])
    assert found.prompt == rewriter._tokenizer("a cat Rephrase:")["input_ids"]


def test_padding_is_masked_by_position_and_the_end_token_is_learnt() -> None:
    end = 0  # also the padding
    batch = pad([Tokens([5, 6], [7, end]), Tokens([5], [end])], pad_id=end)
    assert batch.input_ids.tolist() == [[5, 6, 7, 0], [5, 0, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.labels.tolist() == [[IGNORED, IGNORED, 7, 0], [IGNORED, 0, IGNORED, IGNORED]]
    assert batch.labels.dtype == torch.long


def test_too_long_sequences_are_refused_with_the_cure() -> None:
    sequences, names = [Tokens([1] * 4, [2] * k) for k in (1, 3, 9)], ["row 1", "row 2", "row 3"]
    refuse_too_long(sequences, names, 13, None)
    with pytest.raises(
        DataError, match=r"2 of 3 sequences are longer than 6 tokens \(row 2, row 3\); raise max_length to 13"
    ):
        refuse_too_long(sequences, names, 6, None)
    with pytest.raises(DataError, match="raise max_length to 13"):
        refuse_too_long(sequences, names, 6, 13)
    with pytest.raises(DataError, match="remove them, for the model itself reads 12"):
        refuse_too_long(sequences, names, 20, 12)
