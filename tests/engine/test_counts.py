from __future__ import annotations

from dataclasses import fields

import pytest

from semdpo.engine.counts import described
from semdpo.engine.stage import shown_name
from semdpo.recipe.load import load_recipe
from semdpo.recipe.render_budget import RenderBudgetConfig
from semdpo.stages.candidates import CandidateCounts
from semdpo.stages.flow import flow
from semdpo.stages.pairs import PairCounts
from semdpo.stages.sweep import sweep_flow


@pytest.mark.parametrize(
    ("line", "counts", "said"),
    [
        ("prompts", {"rows": 26, "test": 6, "train": 20}, "20 prompts to train on and 6 held out"),
        (
            "prompts",
            {"rows": 2, "test": 1, "train": 1, "also_held_out": 3, "in_two_sets": 1},
            "1 prompt to train on and 1 held out, 3 prompts left out of training (also held out), "
            "1 held-out prompt left out (also in an earlier set)",
        ),
        ("sft", {"rows": 1200}, "a trained rewriter, and 1,200 points of its curves"),
        ("train/sem_dpo", {"rows": 1}, "a trained rewriter, and 1 point of its curves"),
        ("sweep/train/alpha-4", {"rows": 9}, "a trained rewriter, and 9 points of its curves"),
        (
            "candidates",
            {"rows": 1599, "kept": 1599, "duplicates": 3, "empty": 0, "prompts_without": 0, "tokens": 9},
            "1,599 candidates of 1,602 rewrites, 3 duplicates left out",
        ),
        (
            "candidates",
            {"rows": 5, "kept": 5, "duplicates": 0, "empty": 2, "truncated": 4, "prompts_without": 1, "tokens": 9},
            "5 candidates of 7 rewrites, 2 empty rewrites left out, 4 candidates truncated at the token budget, "
            "1 prompt without a candidate",
        ),
        (
            "render_budget",
            {"rows": 400, "kept": 300, "images": 1199, "prompts_left_out": 100, "images_left_out": 400, "truncated": 2},
            "1,199 of 1,599 images to render, for 300 of 400 prompts, 2 candidates with a text longer than the encoder "
            "reads",
        ),
        ("label", {"rows": 1599, "truncated": 0, "blackened": 0}, "1,599 scores of images"),
        ("label", {"rows": 9, "without_atoms": 2}, "9 scores of images, 2 candidates of prompts without atoms"),
        (
            "atoms",
            {"rows": 96, "prompts": 18, "prompts_without": 1, "unread_clauses": 2, "refused": 0},
            "96 atoms of 18 prompts, 1 prompt without atoms, 2 clauses that the rules cannot read",
        ),
        ("atoms", {"rows": 0, "prompts": 1, "refused": 1}, "0 atoms of 1 prompt, 1 answer refused"),
        (
            "evaluate/…/atoms",
            {"rows": 315, "images_without": 6},
            "315 questions about images, 6 images of prompts without atoms",
        ),
        (
            "pairs",
            {"rows": 2, "kept": 2, "below_fidelity": 1, "less_faithful": 3, "without_atoms": 1},
            "2 pairs of 7 prompts, 1 prompt left out (fidelity of the chosen image too low), "
            "3 prompts left out (chosen image less faithful than the rejected one), 1 prompt left out (no atoms)",
        ),
        (
            "label",
            {"rows": 8, "truncated": 1, "blackened": 2, "failed": 1},
            "8 scores of images, 1 candidate with a text longer than the renderer or the scorer reads, "
            "2 images blackened by the safety checker, 1 candidate that could not be rendered or scored",
        ),
        (
            "pairs",
            {"rows": 395, "kept": 395, "tied": 2, "below_margin": 1, "single": 2, "blackened": 0, "failed": 0},
            "395 pairs of 400 prompts, 2 prompts left out (equal scores), "
            "1 prompt left out (scores within the margin), "
            "2 prompts left out (only one candidate)",
        ),
        ("drift", {"rows": 395, "truncated": 0}, "the drift of 395 pairs"),
        ("drift", {"rows": 1, "truncated": 1}, "the drift of 1 pair, 1 pair with a text longer than the encoder reads"),
        ("losses/sem_dpo", {"rows": 395}, "the losses of 395 pairs"),
        (
            "evaluate/dpo/images",
            {"rows": 240, "truncated": 1, "empty": 1, "rewrites_truncated": 2, "blackened": 3},
            "240 images rendered, 1 image of a text longer than the renderer or the encoder reads, 1 empty rewrite, "
            "2 rewrites truncated at the token budget, 3 images blackened by the safety checker",
        ),
        ("evaluate/…/clip", {"rows": 960, "truncated": 0}, "960 scores"),
        ("evaluate/…/clip", {"rows": 9, "truncated": 2}, "9 scores, 2 scores of a text longer than the scorer reads"),
        ("evaluate/dpo/images", {"rows": 12, "failed": 2}, "10 images rendered, 2 images that could not be rendered"),
        ("evaluate/…/consistency", {"rows": 960, "truncated": 0}, "960 images compared with the rewrites"),
        ("sweep/evaluate/…/clip", {"rows": 5, "truncated": 0}, "5 scores"),
        (
            "sweep/prompts",
            {"rows": 200, "used_elsewhere": 5},
            "200 tuning prompts, 5 prompts left out (trained on or held out)",
        ),
        ("export", {"rows": 3, "left_out": 0}, "3 rows, 0 left out"),  # a stage that is not known here
        ("drift", {"rows": 3, "truncated": 0, "new_count": 7}, "the drift of 3 pairs, 7 new count"),
    ],
)  # fmt: skip
def test_counts_in_words(line: str, counts: dict[str, int], said: str) -> None:
    assert described(line, counts) == said


def test_every_stage_of_a_run_and_a_sweep_has_words_of_its_own() -> None:
    recipe = load_recipe("tiny")
    budget = recipe.model_copy(update={"render_budget": RenderBudgetConfig(alpha=8)})
    for stage in [*flow(budget), *sweep_flow(recipe)]:
        assert "row" not in described(shown_name(stage), {"rows": 2}), stage.name


@pytest.mark.parametrize(("line", "kind"), [("candidates", CandidateCounts), ("pairs", PairCounts)])
def test_every_count_of_a_stage_has_words_of_its_own(line: str, kind: type) -> None:
    counts = {field.name: 3 for field in fields(kind)}
    generic = {f"3 {name.replace('_', ' ')}" for name in counts}
    assert generic.isdisjoint(described(line, counts).split(", "))
