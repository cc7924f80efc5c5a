"""Stage 3: distinct rewrites, seeded by content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from semdpo.data.records import Candidate, Prompt, content_id
from semdpo.models.rewriter import load_rewriter
from semdpo.recipe.schema import CandidatesConfig
from semdpo.stages.candidates import CandidateCounts, sample
from tests import tiny_models

PROMPTS = [Prompt.of("a cat", "s", "train"), Prompt.of("a dog", "s", "train")]
CONFIG = CandidatesConfig(n=4)


class Scripted:
    def __init__(self, rows: list[list[str]]) -> None:
        self.rows, self.seeds = rows, list[int]()

    def rewrite(self, prompts: Sequence[str], n: int, seed: int) -> list[list[str]]:
        self.seeds.append(seed)
        assert n == 4
        return self.rows[: len(prompts)]


class Flagging(Scripted):
    def rewrite_flagged(self, prompts: Sequence[str], n: int, seed: int) -> list[list[tuple[str, bool]]]:
        return [[(text, len(text) > 6) for text in row] for row in self.rows]


def test_duplicates_and_empty_rewrites_are_dropped_and_counted() -> None:
    rewriter = Scripted([["a  cat", "a cat", " \n", "a cat, oil"], ["", " ", "", ""]])
    rows, counts = sample(PROMPTS, rewriter, CONFIG)
    assert [(r.rewrite, r.index, r.prompt, r.truncated) for r in rows] == [
        ("a cat", 0, "a cat", False),
        ("a cat, oil", 3, "a cat", False),
    ]
    assert counts == CandidateCounts(kept=2, duplicates=1, empty=5, truncated=0, prompts_without=1)
    assert counts.kept + counts.duplicates + counts.empty == 8
    assert rows[0].candidate_id == content_id(PROMPTS[0].prompt_id, "a cat")
    assert rows[0].seed == rewriter.seeds[0]


def test_what_nobody_sees_is_empty_and_makes_no_difference() -> None:
    rows, counts = sample(PROMPTS[:1], Scripted([["a cat", "a cat\u200b", "\u200b\ufeff", "\u3164"]]), CONFIG)
    assert [row.rewrite for row in rows] == ["a cat"]
    assert (counts.duplicates, counts.empty) == (1, 2)


def test_rewrites_that_met_the_budget_are_flagged() -> None:
    rows, counts = sample(PROMPTS, Flagging([["short", "much longer", "x", "y"], ["a", "b", "c", "d"]]), CONFIG)
    assert [r.rewrite for r in rows if r.truncated] == ["much longer"]
    assert counts.truncated == 1


def test_the_seed_is_that_of_the_recipe_whatever_is_in_the_shard() -> None:
    rewriter = Scripted([["a", "b", "c", "d"]] * 2)
    for prompts, config in (
        (PROMPTS, CONFIG),
        (PROMPTS[::-1], CONFIG),
        (PROMPTS[:1], CONFIG),
        (PROMPTS, CandidatesConfig(n=4, seed=1)),
    ):
        sample(prompts, rewriter, config)
    assert len(set(rewriter.seeds[:3])) == 1
    assert rewriter.seeds[3] != rewriter.seeds[0]


def test_a_prompts_candidates_are_the_same_in_every_shard(tmp_path: Path) -> None:
    rewriter = load_rewriter(tiny_models.gpt2(tmp_path / "model"), max_new_tokens=6, batch_size=3)
    prompts = [Prompt.of("a cat" + " and a dog" * k, "s", "train") for k in range(7)]

    def drawn(prompts: Sequence[Prompt], shard_size: int, n: int = 4) -> dict[str, list[Candidate]]:
        config, found = CandidatesConfig(n=n, seed=3), dict[str, list[Candidate]]()
        for part in (prompts[start : start + shard_size] for start in range(0, len(prompts), shard_size)):
            for row in sample(part, rewriter, config)[0]:
                found.setdefault(row.prompt, []).append(row)
        return found

    whole = drawn(prompts, 64)
    assert sum(len(rows) for rows in whole.values()) > 20, "nearly all rewrites differ"
    assert drawn(prompts, 2) == whole
    assert drawn(prompts[::-1], 3) == whole
    some = prompts[4:1:-2]
    assert drawn(some, 64) == {each.prompt: whole[each.prompt] for each in some}
    fewer = drawn(prompts, 64, n=2)
    assert fewer == {prompt: [row for row in rows if row.index < 2] for prompt, rows in whole.items()}


def test_no_prompts_no_candidates() -> None:
    assert sample([], Scripted([]), CONFIG) == ([], CandidateCounts(0, 0, 0, 0, 0))
