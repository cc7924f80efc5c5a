"""Stage 3: distinct rewrites, seeded by content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from semdpo.data.records import Candidate, Prompt, content_id
from semdpo.engine.counts import described
from semdpo.errors import ConfigError
from semdpo.models.rewriter import load_rewriter
from semdpo.recipe.load import load_recipe
from semdpo.recipe.schema import CandidatesConfig
from semdpo.stages.candidates import CandidateCounts, sample
from tests import tiny_models

PROMPTS = [Prompt.of("a cat", "s", "train"), Prompt.of("a dog", "s", "train")]
CONFIG = CandidatesConfig(n=4)
CANDIDATES_WITH_PROMPT = CandidatesConfig(n=4, user_prompt=True)


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


# ------------------------------------------------------------------------------------------------- the user's prompt


def test_the_users_prompt_competes_where_it_is_asked_for() -> None:
    config = CANDIDATES_WITH_PROMPT
    rewriter = Scripted([["a cat, oil", "a cat, oil", "a hat", ""], ["a dog", "a dog, ink", "", " "]])
    rows, counts = sample([Prompt.of(" a  cat", "s", "train"), PROMPTS[1]], rewriter, config)
    assert [(r.rewrite, r.index) for r in rows] == [
        *(("a cat, oil", 0), ("a hat", 2), ("a cat", 4)),
        *(("a dog", 0), ("a dog, ink", 1)),
    ]
    assert counts == CandidateCounts(kept=5, duplicates=1, empty=3, truncated=0, prompts_without=0, own=1)
    assert rows[2].candidate_id == content_id(rows[2].prompt_id, "a cat"), "as if a rewriter had written it"
    assert {row.seed for row in rows} == {rows[0].seed}


def test_a_prompt_without_a_rewrite_has_itself() -> None:
    rows, counts = sample(PROMPTS[:1], Scripted([["", "", "", ""]]), CANDIDATES_WITH_PROMPT)
    assert [row.rewrite for row in rows] == ["a cat"]
    assert (counts.prompts_without, counts.own) == (0, 1)


def test_the_counts_are_in_words() -> None:
    counts = {"rows": 5, "kept": 5, "own": 1, "duplicates": 1, "empty": 3, "tokens": 9}
    assert described("candidates", counts) == (
        "5 candidates of 8 rewrites and 1 prompt of users, 1 duplicate left out, 3 empty rewrites left out"
    )


def test_a_render_budget_would_save_nothing() -> None:
    budget = [
        "candidates.user_prompt=true",
        "render_budget.alpha=8",
        "train.methods={sem_dpo: {name: sem_dpo, alpha: 8.0}}",
    ]
    with pytest.raises(ConfigError, match=r"it saves nothing; set candidates\.user_prompt=false"):
        load_recipe("tiny", [*budget, "report.baseline=sft"])
