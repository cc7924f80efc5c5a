"""Atoms in a run: who makes them, what uses them, what is refused, and what a recipe without them keeps."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from semdpo import pipeline
from semdpo.analysis.drift import by_atoms, by_scores
from semdpo.data.atoms import NO_ATOMS, Atom, AtomAnswer, by_prompt
from semdpo.data.records import Candidate, Pair, RenderedImage, Score, content_id
from semdpo.engine import store
from semdpo.engine.providers import Models, own_models
from semdpo.errors import ConfigError, DataError, StoreError
from semdpo.protocols import Float64
from semdpo.recipe.atoms import SYSTEM
from semdpo.recipe.label import LabelConfig
from semdpo.recipe.load import load_recipe
from semdpo.recipe.models import RendererConfig, ScoringConfig
from semdpo.recipe.pairs import DriftConfig, PairsConfig
from semdpo.recipe.schema import Recipe
from semdpo.reporting.collect import WEIGHED_BY
from semdpo.stages.atom_answers import answered
from semdpo.stages.label import label
from semdpo.stages.pairs import choose
from tests import tiny_models
from tests.loopback import Asked, Loopback, chat
from tests.stand_ins import Renderer, Scorer, files_of, models, recipe_of

SENTENCE = "a red ball on a table"


@dataclass(frozen=True)
class Answerer:
    """Surer of images that are redder, and of longer questions; the stand-in of a scorer likes bright ones."""

    def answer(self, images: Sequence[Image.Image], questions: Sequence[tuple[str, str]]) -> Float64:
        values = [
            np.asarray(i)[..., 0].mean() / 300 + len(q) / 500 for i, (q, _) in zip(images, questions, strict=True)
        ]
        return np.array(values, np.float64)


def _answerer(name: str, config: ScoringConfig) -> Answerer:
    return Answerer()


def _models() -> Models:
    return replace(models(), answerer=_answerer)


def _atoms_file(folder: Path, *left_out: str) -> Path:
    """Two atoms for each prompt of the stand-ins' files."""
    prompts = [*(f"a thing {k}" for k in range(20)), *(f"another {k}" for k in range(6))]
    rows = [
        {
            "prompt": prompt,
            "atoms": [
                {"question": f"Is there {prompt}?", "skill": "object"},
                {"question": f"Is the {prompt.split()[1]} red?", "skill": "attribute"},
            ],
        }
        for prompt in prompts
        if prompt not in left_out
    ]
    path = folder / "atoms.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def _recipe(folder: Path, atoms: dict[str, Any], *overrides: str) -> Recipe:
    return recipe_of(folder, f"atoms={json.dumps(atoms)}", *overrides)


def _made(folder: Path, recipe: Recipe) -> list[Atom]:
    for stage in ("prompts", "atoms"):
        pipeline.run(recipe, folder / "run", only=stage, models=_models())
    return store.read_rows(folder / "run/atoms", Atom)


# ------------------------------------------------------------------------------------------------- whole runs


@pytest.mark.slow
@pytest.mark.usefixtures("stand_in_trainings")
def test_a_run_uses_atoms_as_fidelity_as_filter_as_drift_and_in_its_report(tmp_path: Path) -> None:
    file = _atoms_file(tmp_path)
    atoms = {"maker": "file", "file": str(file), "model": "seer"}
    uses = ["label.fidelity=atoms", "drift.source=atoms_lost", "pairs.faithful=true", "report.facts=null"]
    recipe, run = _recipe(tmp_path, atoms, *uses), tmp_path / "run"
    pipeline.run(recipe, run, models=_models())
    scores = [row for row in store.read_rows(run / "label", Score) if row.scorer == "atoms"]
    assert scores
    assert all(row.score is not None and 0 < row.score < 1 for row in scores)
    pairs = store.read_rows(run / "drift", Pair)
    assert all(pair.chosen_fidelity >= pair.rejected_fidelity for pair in pairs), "others are left out"
    assert {pair.distance for pair in pairs} == {0.0}, "the stand-in keeps all words, and red is no word of a prompt"
    assert {(pair.encoder, pair.encoder_fingerprint) for pair in pairs} == {(None, None)}
    counts = store.counts(run / "pairs")
    assert counts["less_faithful"] > 0
    assert counts["kept"] == len(pairs)
    assert counts["below_fidelity"] == counts["without_atoms"] == 0
    answers = store.read_rows(run / "evaluate/dpo/atoms", AtomAnswer)
    images = store.read_rows(run / "evaluate/dpo/images", RenderedImage)
    assert len(answers) == 2 * len(images)
    page = (run / "report/index.html").read_text()
    assert "Which facts are shown, and which are lost" in page
    assert "Soft-TIFA GM" in page
    assert "exp(−4 · share of the prompt&#39;s facts that the chosen rewrite no longer states)" in page
    table = (run / "report/tables/atoms_differences.csv").read_text()
    assert "sem_dpo,dpo,images show,attribute," in table
    before = files_of(run)
    pipeline.run(recipe, run, models=_models())
    assert files_of(run) == before, "a second run makes nothing"
    file.write_text(file.read_text().replace("red?", "blue?", 1))
    with pytest.raises(StoreError, match=r"atoms was made from a different version of atoms\.file"):
        pipeline.run(recipe, run, models=_models())


@pytest.mark.usefixtures("stand_in_trainings")
def test_a_recipe_without_atoms_keeps_its_settings_and_counts(tmp_path: Path) -> None:
    recipe, run = recipe_of(tmp_path), tmp_path / "run"
    for stage in ("prompts", "sft", "candidates", "label", "pairs", "drift"):
        pipeline.run(recipe, run, only=stage, models=_models())
    written = json.loads((run / "recipe.json").read_text())
    assert "atoms" not in written
    assert written["pairs"] == {"margin": 0.0}
    assert set(written["drift"]) == {"encoder", "batch_size"}
    assert set(store.counts(run / "pairs")) == {"rows", "kept", "tied", "below_margin", "single", "blackened", "failed"}
    assert set(store.counts(run / "label")) == {"rows", "truncated", "blackened", "failed"}
    assert not (run / "atoms").exists()


# ------------------------------------------------------------------------------------------------- makers


def test_prompts_without_atoms_are_refused_by_name_or_counted(tmp_path: Path) -> None:
    file = _atoms_file(tmp_path, "a thing 3", "another 2")
    atoms = {"maker": "file", "file": str(file)}
    with pytest.raises(DataError, match=r"2 prompts have no atoms \('a thing 3'; 'another 2'\); add a line for each"):
        _made(tmp_path, _recipe(tmp_path, atoms))
    rows = _made(tmp_path, _recipe(tmp_path, atoms | {"without": "leave_out"}))
    counts = store.counts(tmp_path / "run/atoms")
    assert (counts["prompts"], counts["prompts_without"], len(rows)) == (26, 2, 48)
    assert rows[0] == Atom(content_id("a thing 0"), "object", "Is there a thing 0?", words="thing 0")


def test_the_rules_count_what_they_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "ask.txt").write_text(f"{SENTENCE}, 8k\na cat sits here\n")
    (tmp_path / "held.txt").write_text("two cats\nthree cats\n")
    rows = _made(tmp_path, _recipe(tmp_path, {"maker": "rules", "without": "leave_out"}))
    assert {prompt_id: len(atoms) for prompt_id, atoms in by_prompt(rows).items()} == {
        content_id(f"{SENTENCE}, 8k"): 6,
        **{content_id(f"{number} cats"): 2 for number in ("two", "three")},
    }
    counts = store.counts(tmp_path / "run/atoms")
    assert (counts["prompts_without"], counts["unread_clauses"]) == (1, 2)


def test_a_language_model_behind_a_url_writes_atoms_and_refused_answers_are_counted(tmp_path: Path) -> None:
    def answer(asked: Asked) -> Any:
        if asked.prompt.endswith("3"):
            return chat("I would rather not.")
        return chat(json.dumps({"question": f"Is there {asked.prompt}?", "skill": "object"}))

    with Loopback(answer) as server:
        lm = {"model": server.url, "endpoint": {"model_name": "m"}}
        atoms = {"maker": "lm", "lm": lm, "without": "leave_out"}
        rows = _made(tmp_path, _recipe(tmp_path, atoms))
        asked = server.asked[0].body
        other = _recipe(tmp_path, {**atoms, "lm": {**lm, "system": "Ask otherwise."}})
        with pytest.raises(StoreError, match=r"was made with lm\.system"):
            _made(tmp_path, other)
    assert asked["messages"][0] == {"role": "system", "content": SYSTEM}
    assert (asked["temperature"], asked["max_tokens"]) == (0, 512)
    assert len(rows) == 26 - 3
    assert rows[0] == Atom(content_id("a thing 0"), "object", "Is there a thing 0?", words="thing 0")
    counts = store.counts(tmp_path / "run/atoms")
    assert (counts["refused"], counts["prompts_without"]) == (3, 3)


def test_a_language_model_here_is_asked_in_its_chat_and_babble_is_refused(tmp_path: Path) -> None:
    folder = tiny_models.causal(tmp_path / "llm", "qwen2")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    template = "{% for message in messages %}{{ message.content }} {% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": template}))
    lm = {"model": str(folder), "system": "Ask.", "max_new_tokens": 4}
    recipe = _recipe(tmp_path, {"maker": "lm", "lm": lm, "without": "leave_out"})
    real = replace(_models(), rewriter=own_models().rewriter, fingerprint=own_models().fingerprint)
    for stage in ("prompts", "atoms"):
        pipeline.run(recipe, tmp_path / "run", only=stage, models=real)
    counts = store.counts(tmp_path / "run/atoms")
    assert (counts["rows"], counts["refused"], counts["prompts_without"]) == (0, 26, 26)


# ------------------------------------------------------------------------------------------------- what uses them


def test_candidates_of_prompts_without_atoms_have_no_fidelity_and_are_no_failures() -> None:
    config = LabelConfig(renderer=RendererConfig(model="m"), scorer="judge", fidelity="atoms", max_failed=0)
    candidates = [Candidate(str(k), content_id(p), p, f"{p} {k}", k, 0, False) for p in "ab" for k in (0, 1)]
    scorers = {"judge": Scorer(), "atoms": Scorer()}
    rows = label(candidates, Renderer(0), scorers, config, bare={"b"})
    assert [row.error for row in rows if row.scorer == "atoms"] == [None, None, NO_ATOMS, NO_ATOMS]
    assert all(row.error is None for row in rows if row.scorer == "judge")


def _rows(scores: dict[str, tuple[float, float | None]]) -> tuple[list[Candidate], list[Score], list[Score]]:
    candidates = [Candidate(key, key[0], f"prompt {key[0]}", key, 0, 0, False) for key in scores]
    liked = [Score(key, "judge", value, 0, False) for key, (value, _) in scores.items()]
    shown = [
        Score(k, "atoms", value, 0, False, None if value is not None else NO_ATOMS) for k, (_, value) in scores.items()
    ]
    return candidates, liked, shown


def test_pairs_are_left_out_by_their_fidelity_and_counted() -> None:
    candidates, liked, shown = _rows(
        {
            "a1": (1, 0.9), "a2": (0, 0.5),  # kept by all
            "b1": (1, 0.6), "b2": (0, 0.7),  # less faithful than the rejected one
            "c1": (1, 0.4), "c2": (0, 0.1),  # too low
            "d1": (1, None), "d2": (0, None),  # no atoms
        }
    )  # fmt: skip

    def kept(**settings: Any) -> tuple[list[str], tuple[int, int, int]]:
        pairs, counts = choose(candidates, liked, PairsConfig(**settings), shown)
        return [p.chosen for p in pairs], (counts.below_fidelity, counts.less_faithful, counts.without_atoms)

    assert kept() == (["a1", "b1", "c1"], (0, 0, 1))
    assert kept(faithful=True) == (["a1", "c1"], (0, 1, 1))
    assert kept(min_fidelity=0.5) == (["a1", "b1"], (1, 0, 1))
    assert kept(min_fidelity=0.5, faithful=True) == (["a1"], (1, 1, 1))
    assert kept(min_fidelity=0.4) == (["a1", "b1", "c1"], (0, 0, 1)), "as much is enough"


def test_drift_by_atoms_is_the_share_that_a_text_loses() -> None:
    prompt = "a red cat in the snow"
    identity = content_id(prompt)
    questions = ("Is there a cat?", "Is there a red cat?", "Is it in the snow?", "Is there exactly one thing?")
    atoms = {identity: [Atom(identity, "object", question) for question in questions]}
    pair = Pair("1", prompt, "a red cat at night", "a blue fish and a star", 1.0, 0.0)
    drift = by_atoms([pair], atoms, "tiny")
    assert (drift.distance.tolist(), drift.rejected_distance.tolist()) == ([0.25], [1.0])
    with pytest.raises(DataError, match="1 prompts have no atom that a text could lose, such as 'a zeppelin'"):
        by_atoms([pair, replace(pair, prompt="a zeppelin")], atoms, "tiny")


def test_distances_from_scores_are_those_of_all_pairs_and_need_scores() -> None:
    pairs = [
        Pair(str(k), "p", "c", "r", float(k), 0.0, chosen_fidelity=0.0, rejected_fidelity=k - 1.0) for k in range(4)
    ]
    assert by_scores(pairs, "margin") == pytest.approx({"0": 1.0, "1": 1 / 3, "2": 0.0, "3": 0.0})
    found = by_scores(pairs, "scorer_agreement")
    assert (found["0"], found["1"]) == (0, 0)
    assert found["3"] == pytest.approx(2 * found["2"])
    with pytest.raises(DataError, match=r"pair 3 has no scores for drift\.source=scorer_agreement"):
        by_scores([*pairs[:3], replace(pairs[3], chosen_fidelity=None)], "scorer_agreement")
    with pytest.raises(DataError, match=r"drift\.source=margin: half of the pairs have no margin"):
        by_scores([replace(pair, chosen_score=0.0) for pair in pairs], "margin")


@pytest.mark.usefixtures("stand_in_trainings")
def test_a_run_weighs_by_margin(tmp_path: Path) -> None:
    recipe, run = recipe_of(tmp_path, "drift.source=margin"), tmp_path / "run"
    for stage in ("prompts", "sft", "candidates", "label", "pairs", "drift"):
        pipeline.run(recipe, run, only=stage, models=_models())
    before, after = (store.read_rows(run / name, Pair) for name in ("pairs", "drift"))
    assert {pair.pair_id: pair.distance for pair in after} == by_scores(before, "margin")
    assert all(pair.rejected_distance == pair.distance for pair in after)
    assert set(WEIGHED_BY) == set(get_args(DriftConfig.model_fields["source"].annotation)), "the report names each"


def _image(prompt: str, rewrite: str, seed: int, blackened: bool = False) -> RenderedImage:
    from semdpo.models.images import lossless

    picture = Image.new("RGB", (8, 8), (40 * seed, 0, 0))
    return RenderedImage(
        "dpo", content_id(prompt), prompt, "s", seed, rewrite, 1, 0.0, False, lossless(picture), blackened
    )


def test_every_image_answers_the_atoms_of_its_own_prompt() -> None:
    prompt = "a red cat"
    identity = content_id(prompt)
    atoms = {
        identity: [Atom(identity, "object", "Is there a cat?"), Atom(identity, "attribute", "Is there a red cat?")]
    }
    images = [_image(prompt, "a blue cat", 1), _image(prompt, "a red cat", 2, blackened=True), _image("other", "x", 1)]
    images.append(replace(_image(prompt, "a red cat", 3), image=b"", error="refused"))
    rows = answered(images, atoms, Answerer, "tiny")
    assert [(row.image_seed, row.skill, row.kept) for row in rows] == [
        (1, "object", True), (1, "attribute", False), (2, "object", True), (2, "attribute", True),
        (3, "object", True), (3, "attribute", True),
    ]  # fmt: skip
    assert [row.probability is None for row in rows] == [False, False, True, True, True, True]
    assert all(row.probability is None for row in answered(images, atoms, lambda: None, "tiny"))

    class Short(Answerer):
        def answer(self, images: Sequence[Image.Image], questions: Sequence[tuple[str, str]]) -> Float64:
            return super().answer(images, questions)[:1]

    with pytest.raises(DataError, match="a model gave 1 answers to 2 questions"):
        answered(images, atoms, Short, "tiny")
    with pytest.raises(DataError, match=r"seed 1 is damaged or incomplete .*evaluate/dpo/images"):
        answered([replace(images[0], image=b"no")], atoms, Answerer, "tiny")


# ------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["atoms={maker: file}"], "maker is file, and file is missing; add it"),
        (["atoms={maker: rules, file: a.jsonl}"], "file has no effect, because maker is rules"),
        (["atoms={maker: rule}"], "'atoms.maker' is 'rule'; it must be 'tiny', 'rules', 'file' or 'lm'"),
        (["atoms={maker: rules, modle: x}"], "unknown key 'atoms.modle'; did you mean 'model'?"),
        (["atoms={maker: lm, lm: {model: 'tiny:gpt2', template: '{prompt} x'}}"], "set template to chat"),
        (["atoms={maker: lm, lm: {model: m, template: '{prompt} x', system: ''}}"], "is asked in a chat"),
        (["atoms={maker: lm, lm: {model: 'http://h/v1'}}"], "say which of its models to use"),
        (["atoms=null", "label.fidelity=atoms"], "label.fidelity needs atoms, and there is no section atoms"),
        (["atoms=null", "drift.source=atoms_lost"], "drift.source needs atoms, and there is no section atoms"),
        (["atoms={maker: rules}", "label.fidelity=atoms"], "atoms.model is missing"),
        (["label.scorer=atoms"], "not of label.scorer"),
        (["evaluate.metrics.atoms=tiny:clip"], "not of label.scorer or of one of evaluate.metrics"),
        (
            ["report.study=null", "evaluate.renderer.model=stable-diffusion-v1-4"],
            "atoms.model is tiny:judge, which knows images of the tiny world only",
        ),
        (["drift.source=scorer_agreement"], "which compares two scorers; set label.fidelity to one"),
        (["pairs.faithful=true"], "set label.fidelity to a fidelity scorer or atoms"),
        (["pairs.min_fidelity=0.5"], "set label.fidelity to a fidelity scorer or atoms"),
        (
            [
                "drift.source=atoms_lost",
                "render_budget={alpha: 8}",
                "train.methods={sem_dpo: {name: sem_dpo, alpha: 16}}",
            ],
            "render_budget draws by the encoder's drift",
        ),
    ],
)
def test_a_recipe_that_cannot_use_its_atoms_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_recipe("tiny", ["report.baseline=sft", *overrides] if "render_budget" in str(overrides) else overrides)


def test_a_local_writer_is_asked_in_a_chat_with_the_instruction() -> None:
    lm = load_recipe("tiny", ["atoms={maker: lm, lm: {model: some/chat-model}}"]).atoms.lm
    assert (lm.reads.is_chat, lm.reads.system, lm.temperature, lm.max_new_tokens) == (True, SYSTEM, 0.0, 512)
    assert lm.of_results()["system"] == SYSTEM
