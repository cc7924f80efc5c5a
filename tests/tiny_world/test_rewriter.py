"""The rewriter that the demo starts preference training from keeps what was asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from semdpo.data.pairs import read_rewrites
from semdpo.data.prompts import read_prompts
from semdpo.models.rewriter import load_rewriter
from semdpo.progress import silent
from semdpo.protocols import Rewriter
from semdpo.recipe.load import load_recipe
from semdpo.tiny_world.facts import compare, parse
from semdpo.training.fine_tune import fine_tune

TYPED = (Path(__file__).parent / "typed.txt").read_text().splitlines()  # typed by hand before any model was trained


@pytest.fixture(scope="module")
def rewriter(tmp_path_factory: pytest.TempPathFactory) -> Rewriter:
    recipe, folder = load_recipe("tiny", []), tmp_path_factory.mktemp("sft") / "model"
    fine_tune(read_rewrites(recipe.sft.file), recipe.sft, folder, silent)
    return load_rewriter(folder, temperature=0.0, max_new_tokens=recipe.evaluate.rewrite.max_new_tokens)


def _share_wrong(rewriter: Rewriter, prompts: Sequence[str]) -> float:
    rewrites = [row[0] for row in rewriter.rewrite(prompts, 1, 0)]
    return sum(bool(compare(parse(x), parse(y)).wrong) for x, y in zip(prompts, rewrites, strict=True)) / len(prompts)


@pytest.mark.slow
def test_greedy_rewrites_keep_the_facts(rewriter: Rewriter) -> None:
    assert _share_wrong(rewriter, list(read_prompts("tiny:evaluation.jsonl"))[:300]) <= 0.01
    assert _share_wrong(rewriter, list(read_prompts("tiny:unseen.jsonl"))) <= 0.02
    assert len(TYPED) == 50
    assert _share_wrong(rewriter, TYPED) <= 0.02
