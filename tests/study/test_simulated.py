"""Simulated raters look at images, majorities become pairs, and generated judgements have the truth they say."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semdpo.cli import study as cli
from semdpo.data.pairs import read_pairs
from semdpo.errors import DataError
from semdpo.study.blinding import study_id
from semdpo.study.design import MATCH, QUESTIONS, RIGHT_ANSWER, Judgement
from semdpo.study.judgements import chosen_method, exclude, judgements
from semdpo.study.pairs import pairs_of_study
from semdpo.study.plan import Study
from semdpo.study.power import centre
from semdpo.study.simulated import Habits, generated, simulate
from semdpo.study.tiny_raters import read_images, tiny_opinion
from semdpo.study.votes import VoteStore
from tests.study import example


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return example.study(tmp_path_factory.mktemp("study") / "study")


def test_they_prefer_what_was_asked_pass_checks_and_repeat_themselves(made: Study) -> None:
    votes = simulate(made.plan, tiny_opinion(made), Habits(), 5)
    rows = judgements(made.plan, votes)
    assert len(rows) == len(made.plan.trials) * 2
    match = [row for row in rows if row.question == MATCH]
    shares = {
        kind: np.mean([chosen_method(row) in ("good", RIGHT_ANSWER) for row in match if row.kind == kind])
        for kind in ("comparison", "repeat", "attention")
    }
    assert min(shares.values()) > 0.8
    assert all(vote.seconds > 0 for vote in votes)
    assert simulate(made.plan, tiny_opinion(made), Habits(), 5) == votes
    assert simulate(made.plan, tiny_opinion(made), Habits(), 6) != votes


def test_they_look_at_the_image_and_not_at_its_method(made: Study) -> None:
    """With the images of both methods exchanged, and their names kept, they prefer the other one."""
    images = {(image.prompt_id, image.method): image for image in made.plan.images}
    other = {"good": "bad", "bad": "good"}
    exchanged = tuple(replace(i, sha256=images[i.prompt_id, other[i.method]].sha256) for i in made.plan.images)
    turned = replace(made, plan=replace(made.plan, images=exchanged))
    rows = judgements(turned.plan, simulate(turned.plan, tiny_opinion(turned), Habits(), 5))
    chosen = [chosen_method(row) for row in rows if row.kind == "comparison" and row.question == MATCH]
    assert chosen.count("bad") > 0.8 * len(chosen)


def test_the_judge_reads_what_was_painted(made: Study) -> None:
    shown = [image for image in made.plan.images if image.method == "good"]
    scenes, sure = read_images([made.folder / "images" / f"{image.sha256}.png" for image in shown])
    read = [(scene.items[0].color, scene.items[0].thing, scene.place) for scene in scenes]
    right = sum(each == (*asked, "desert") for each, asked in zip(read, example.ASKED, strict=True))
    assert right >= len(shown) - 1
    assert (sure <= 0).all()


def test_habits_do_what_they_say(made: Study) -> None:
    calm = Habits(noise=0.001, rater_sd=0, side_sd=0, lapse=0)
    plan = replace(made.plan, questions={MATCH: QUESTIONS[MATCH]})
    flat = simulate(plan, lambda *_: 0.0, calm, 1)
    assert {vote.choice for vote in flat} == {"tie"}
    assert {vote.choice for vote in simulate(replace(plan, tie=None), lambda *_: 0.0, calm, 1)} == {"left", "right"}
    leaning = simulate(plan, lambda *_: 0.0, replace(calm, side_sd=50), 1)
    assert all(len({vote.choice for vote in leaning if vote.rater == rater}) == 1 for rater in range(plan.raters))
    lapsing = simulate(plan, lambda *_: 0.0, replace(calm, lapse=1.0), 1)
    assert {vote.choice for vote in lapsing} == {"left", "right"}


def test_they_answer_no_question_that_they_do_not_know(made: Study) -> None:
    with pytest.raises(DataError, match="cannot answer 'fun'; ask them match, prefer, artefacts only"):
        tiny_opinion(replace(made, plan=replace(made.plan, questions={"fun": "Which is funnier?"})))
    with pytest.raises(DataError, match="names nothing of the tiny world"):
        tiny_opinion(replace(made, plan=replace(made.plan, prompts={"p0": "a dragon"})))


def test_majorities_become_pairs_that_are_read_as_pairs(made: Study, tmp_path: Path) -> None:
    votes = simulate(made.plan, tiny_opinion(made), Habits(), 5)
    rows = judgements(made.plan, votes)
    kept = exclude(rows, made.plan.exclusion).judgements
    found = pairs_of_study(made.plan, kept, MATCH)
    assert len(found.pairs) + found.ties == 6
    assert found.methods.count(("good", "bad")) >= 5
    with closing(VoteStore(made.folder, study_id(made))) as store:
        store.add((vote, f"{vote.trial} {vote.question}") for vote in votes)
    out = tmp_path / "pairs.jsonl"
    cli.pairs(made.folder, out)
    assert read_pairs(out) == found.pairs
    assert '"votes": ' in out.read_text()
    for pair in found.pairs:
        assert pair.chosen.startswith(pair.prompt)
        assert pair.chosen_score is not None
        assert pair.rejected_score is not None
        assert pair.chosen_score > 0.5 > pair.rejected_score


def test_ties_and_equal_rewrites_make_no_pair_and_are_counted(made: Study) -> None:
    rows = judgements(made.plan, simulate(made.plan, lambda *_: 0.0, Habits(0.001, 0, 0, 0), 1))
    found = pairs_of_study(made.plan, rows, MATCH)
    assert (found.pairs, found.ties) == ([], 6)
    same = replace(made.plan, images=tuple(replace(image, rewrite="one") for image in made.plan.images))
    liked = judgements(made.plan, simulate(made.plan, tiny_opinion(made), Habits(0.001, 0, 0, 0), 1))
    assert (pairs_of_study(same, liked, MATCH).same, pairs_of_study(same, liked, MATCH).pairs) == (24, [])
    with pytest.raises(DataError, match="no votes on the question 'prefr'; did you mean 'prefer'"):
        pairs_of_study(made.plan, rows, "prefr")
    with pytest.raises(DataError, match="no image of method 'x'"):
        pairs_of_study(made.plan, [replace(rows[0], left_method="x", right_method="bad", choice="left")], MATCH)


def test_methods_with_one_rewrite_make_one_pair_of_all_their_votes(made: Study) -> None:
    """Otherwise a pair would count twice in training."""
    image = made.plan.images[0]
    plan = replace(made.plan, images=(*made.plan.images, replace(image, name="i9999", method="also good")))
    row = Judgement("r0", image.prompt_id, MATCH, "comparison", "good", "bad", "left", "t0")
    rows = [
        row,
        replace(row, left_method="also good", trial="t1"),
        replace(row, rater="r1", choice="right", trial="t2"),
    ]
    found = pairs_of_study(plan, rows, MATCH)
    assert [pair.chosen_score for pair in found.pairs] == [2 / 3]
    assert (found.votes, found.methods) == ([3], [("also good, good", "bad")])


def test_generated_judgements_have_the_share_that_was_asked_for() -> None:
    rows = generated(400, 100, centre(0.65, 0.5, 1.0), rater_sd=0.5, prompt_sd=1.0, side=0.4, tie=0.1, seed=2)
    decided = [row for row in rows if row.choice != "tie"]
    assert len(decided) / len(rows) == pytest.approx(0.9, abs=0.01)
    assert np.mean([chosen_method(row) == "a" for row in decided]) == pytest.approx(0.65, abs=0.05)
    assert np.mean([row.choice == "left" for row in decided]) > 0.55
    lefts = np.mean([row.left_method == "a" for row in rows])
    assert lefts == 0.5
