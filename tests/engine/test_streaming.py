"""Pairs and their drift are made shard by shard: the same rows, resumed where they stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path

import pytest

from semdpo import pipeline
from semdpo.data.records import Candidate, Pair, Score
from semdpo.engine import store
from semdpo.errors import DataError
from semdpo.protocols import Embeddings
from semdpo.stages import pairs
from tests.stages.test_blackened import _strict
from tests.stand_ins import Encoder, files_of, models, recipe_of, run_without_report

pytestmark = pytest.mark.usefixtures("stand_in_trainings")


@pytest.fixture(scope="module")
def weighed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run in ``run`` that was made up to the weighed pairs; not to be changed."""
    folder = tmp_path_factory.mktemp("weighed")
    run_without_report(recipe_of(folder), folder / "run", models(), "drift")
    return folder


def _shards(run: Path, stage: str) -> int:
    return len(list((run / stage).glob("part-*.parquet")))


def test_the_shards_are_those_of_label_and_change_no_row(weighed: Path, tmp_path: Path) -> None:
    recipe, run = recipe_of(weighed), weighed / "run"
    assert [_shards(run, stage) for stage in ("label", "pairs", "drift")] == [5, 5, 5]
    whole = pairs.choose(
        store.read_rows(run / "candidates", Candidate), store.read_rows(run / "label", Score), recipe.pairs
    )
    assert store.read_rows(run / "pairs", Pair) == whole[0]
    expected = {"rows": len(whole[0])} | dict(zip(pairs.PairCounts.__slots__, astuple(whole[1]), strict=True))
    unused = [expected.pop(name) for name in (*pairs.FILTERED, "without_atoms")]  # this recipe has no use for them
    assert store.counts(run / "pairs") == expected
    assert unused == [0, 0, 0]
    for size, count in ((100, 1), (7, 3)):
        other = tmp_path / str(size)
        sizes = (f"label.shard_size={size}", "candidates.shard_size=3")
        run_without_report(recipe_of(weighed, *sizes), other, models(), "drift")
        assert [_shards(other, stage) for stage in ("candidates", "label", "pairs", "drift")] == [7, *[count] * 3]
        for stage in ("pairs", "drift"):
            assert store.read_rows(other / stage, Pair) == store.read_rows(run / stage, Pair)
            assert store.counts(other / stage) == store.counts(run / stage)


def test_two_judges_scores_of_a_prompt_lie_in_one_shard(tmp_path: Path) -> None:
    recipe, run = recipe_of(tmp_path, "label.fidelity=faithful"), tmp_path / "run"
    run_without_report(recipe, run, models(), "pairs")
    by_scorer: dict[str, list[Score]] = {}
    for score in store.read_rows(run / "label", Score):
        by_scorer.setdefault(score.scorer, []).append(score)
    whole, _ = pairs.choose(
        store.read_rows(run / "candidates", Candidate),
        by_scorer[recipe.label.scorer],
        recipe.pairs,
        by_scorer["faithful"],
    )
    assert store.read_rows(run / "pairs", Pair) == whole


def test_weighing_goes_on_at_the_first_missing_shard(weighed: Path, tmp_path: Path) -> None:
    class Watched(Encoder):
        def __init__(self, fails_at: str | None = None) -> None:
            self.fails_at, self.seen = fails_at, set[str]()

        def encode(self, texts: Sequence[str]) -> Embeddings:
            if self.fails_at in texts:
                raise DataError("it fails here")
            self.seen |= set(texts)
            return super().encode(texts)

    recipe, run = recipe_of(weighed), tmp_path / "run"
    run_without_report(recipe, run, models(), "pairs")
    failing, going_on = Watched("a thing 9"), Watched()
    with pytest.raises(DataError, match=r"it fails here"):
        pipeline.run(recipe, run, only="drift", models=replace(models(), encoder=lambda _: failing))
    assert _shards(run, "drift") == 2
    assert not store.is_complete(run / "drift")
    pipeline.run(recipe, run, only="drift", models=replace(models(), encoder=lambda _: going_on))
    rows = store.read_rows(run / "drift", Pair)
    missing = [row for row in rows if int(row.prompt.split()[-1]) >= 8]
    assert going_on.seen == {text for row in missing for text in (row.prompt, row.chosen, row.rejected)}
    assert files_of(run) == files_of(weighed / "run")


def test_choosing_goes_on_at_the_first_missing_shard(
    weighed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, run, choose, calls = recipe_of(weighed), tmp_path / "run", pairs.choose, []

    def watched(candidates, *given):  # type: ignore[no-untyped-def]
        calls.append({row.prompt for row in candidates})
        if len(calls) == 4:
            raise DataError("the fourth time, it fails")
        return choose(candidates, *given)

    monkeypatch.setattr(pairs, "choose", watched)
    with pytest.raises(DataError, match="fourth time"):
        run_without_report(recipe, run, models(), "pairs")
    run_without_report(recipe, run, models(), "drift")
    assert [len(each) for each in calls] == [4, 4, 4, 4, 4, 4], "each shard's candidates alone, the fourth twice"
    assert calls[3] == calls[4]
    assert files_of(run) == files_of(weighed / "run")


@pytest.mark.parametrize("black", [range(16, 20), range(4)])
def test_a_shard_without_a_pair_is_weighed_too(black: range, tmp_path: Path) -> None:
    recipe, run = recipe_of(tmp_path), tmp_path / "run"
    run_without_report(recipe, run, _strict(*(f"a thing {i}," for i in black)), "drift")
    counts = store.counts(run / "pairs")
    assert counts["blackened"] == 4
    rows = store.read_rows(run / "drift", Pair)
    assert len(rows) == counts["kept"] > 8
    assert all(row.distance is not None for row in rows)
    assert {int(row.prompt.split()[-1]) for row in rows}.isdisjoint(black)


def test_without_any_pair_weighing_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there are no pairs to weigh; lower pairs\.margin"):
        run_without_report(recipe_of(tmp_path, "pairs.margin=9"), tmp_path / "run", models(), "drift")
