from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from semdpo.errors import ConfigError, DataError
from semdpo.models.rewriter import load_rewriter
from semdpo.training.batches import Example, draw_batches, encode, micro_size, mismatched, refuse_too_long, split
from semdpo.training.packing import Group
from tests import tiny_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.gpt2(tmp_path_factory.mktemp("gpt2") / "model")


def test_the_completions_follow_the_template_and_end(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    [found] = encode(tokenizer, "Q: {prompt} A:", [" a {prompt} cat "], [(" a fat cat ", "b")])
    assert tokenizer.decode(found.prompt) == "Q: a {prompt} cat A:"
    assert [tokenizer.decode(each) for each in found.completions] == [" a fat cat<|endoftext|>", " b<|endoftext|>"]
    assert found.tokens == len(found.prompt) + sum(map(len, found.completions))
    assert found.longest == len(found.prompt) + len(found.completions[0])
    assert encode(tokenizer, "{prompt}", [], []) == []


def test_training_reads_what_the_rewriter_reads(folder: Path) -> None:
    rewriter = load_rewriter(folder)
    [found] = encode(rewriter._tokenizer, rewriter.template, ["a cat"], [("b",)])
    assert list(found.prompt) == rewriter._tokenizer("a cat Rephrase:")["input_ids"]


def test_too_long_sequences_are_refused_with_the_cure() -> None:
    groups, names = [Group((1,) * 4, ((2,) * k, (2,))) for k in (1, 3, 9)], ["row 1", "row 2", "row 3"]
    refuse_too_long(groups, names, 13, None)
    with pytest.raises(
        DataError, match=r"2 of 3 rows are longer than 6 tokens \(row 2, row 3\); raise max_length to 13"
    ):
        refuse_too_long(groups, names, 6, None)
    with pytest.raises(DataError, match="raise max_length to 13"):
        refuse_too_long(groups, names, 6, 13)
    with pytest.raises(DataError, match="remove them, because the model reads at most 12"):
        refuse_too_long(groups, names, 20, 12)


@given(
    lengths=st.lists(st.integers(1, 99), min_size=1, max_size=60),
    batch_size=st.integers(1, 9),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 5),
)
def test_every_row_is_learnt_once_an_epoch(lengths: list[int], batch_size: int, epochs: int, seed: int) -> None:
    found = draw_batches(lengths, batch_size, epochs, seed)
    assert Counter(row for step in found for row in step) == dict.fromkeys(range(len(lengths)), epochs)
    joined = batch_size == 2 and len(lengths) % 2 == 1 and len(lengths) > 1
    assert len(found) == epochs * (-(-len(lengths) // batch_size) - joined)
    assert sum(len(step) > batch_size for step in found) == epochs * joined
    assert max(map(len, found)) <= max(batch_size, 3 * joined)
    assert draw_batches(lengths, batch_size, epochs, seed) == found
    if batch_size > 1 and len(lengths) > 1:
        assert min(map(len, found)) > 1  # KTO and beta-DPO compare the pairs of a batch


def test_rows_of_like_length_come_together_and_seeds_differ() -> None:
    lengths = [1, 50] * 16
    steps = draw_batches(lengths, 4, 1, 0)
    assert all(len({lengths[row] for row in step}) == 1 for step in steps)
    assert draw_batches(lengths, 4, 1, 1) != steps


def _example(k: int) -> Example:
    return Example(str(k), Group((k,), ((10 + k,), (20 + k,))))


def test_a_mismatched_completion_is_that_of_the_next_example() -> None:
    found = mismatched([_example(k) for k in range(3)])
    # examples: chosen 10, 11, 12, then rejected 20, 21, 22
    assert [group.prompt for group in found] == [(0,), (1,), (2,)]
    assert [group.completions for group in found] == [((11,), (21,)), ((12,), (22,)), ((20,), (10,))]


def test_a_short_step_is_filled_up_and_says_so() -> None:
    assert split([_example(k) for k in range(3)], 2, 2) == [([0, 1], [True, True]), ([2, 0], [True, False])]


def test_a_batch_is_divided_evenly_or_not_at_all() -> None:
    assert micro_size(8, None, 2) == 4
    assert micro_size(8, 2, 2) == 2
    with pytest.raises(ConfigError, match="batch_size 8 cannot be divided among 3 processes"):
        micro_size(8, None, 3)
    with pytest.raises(ConfigError, match="micro_batch_size 3 does not divide the 8 rows"):
        micro_size(8, 3, 1)
