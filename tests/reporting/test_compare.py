"""Two rewriters compared: every number as another path through the models gives it, and what cannot be compared."""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from semdpo.analysis.semantics import cosine_distance
from semdpo.analysis.statistics import mean_interval, paired_difference
from semdpo.errors import ConfigError, DataError, ModelError
from semdpo.models.rewriter import load_rewriter
from semdpo.models.text_encoder import load_text_encoder
from semdpo.reporting.compare import Comparison, compare
from tests import tiny_models

PROMPTS = ["a red ball", "the cat on a mat", "two blue dogs", "a snowy peak at night"]
BUDGET = 12


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("a", "b", "reference")):
        tiny_models.gpt2(folder / name, seed=seed)
    tiny_models.causal(folder / "other", "llama", words=("ball", "cat"))
    tiny_models.clip(folder / "clip")
    return folder


@pytest.fixture(scope="module")
def compared(models: Path) -> Comparison:
    return _compare(models, "a", "b", reference=str(models / "reference"))


def _compare(models: Path, a: str, b: str, **more: str) -> Comparison:
    usual = {"encoder": str(models / "clip")}
    return compare(PROMPTS, str(models / a), str(models / b), max_new_tokens=BUDGET, **usual | more)  # type: ignore[arg-type]


def _likelihood(folder: Path, prompt: str, rewrite: str) -> float:
    """log π per token as transformers' own forward pass gives it, the end token (id 0) counted."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    asked = tokenizer(f"{prompt} Rephrase:")["input_ids"]
    learnt = [*tokenizer(f" {rewrite}", add_special_tokens=False)["input_ids"], 0]
    with torch.no_grad():
        logps = model(torch.tensor([[*asked, *learnt]])).logits[0].log_softmax(-1)
    return float(np.mean([logps[len(asked) + k - 1, token].item() for k, token in enumerate(learnt)]))


def test_the_rewrites_are_the_most_probable_ones(compared: Comparison, models: Path) -> None:
    for side, name in ((compared.a, "a"), (compared.b, "b")):
        greedy = load_rewriter(str(models / name), temperature=0.0, max_new_tokens=BUDGET)
        assert side.rewrites == [row[0] for row in greedy.rewrite(PROMPTS, 1, 0)]
        assert len(side.truncated) == len(side.unread) == len(PROMPTS)


def test_drift_and_tokens(compared: Comparison, models: Path) -> None:
    encoder = load_text_encoder(str(models / "clip"))
    tokenizer = AutoTokenizer.from_pretrained(models / "reference")
    for side in (compared.a, compared.b):
        expected = cosine_distance(encoder.encode(PROMPTS).vectors, encoder.encode(side.rewrites).vectors)
        assert side.values["drift"] == pytest.approx(expected.tolist(), abs=1e-6)
        assert side.values["tokens"] == [len(tokenizer(text)["input_ids"]) for text in side.rewrites]


def test_the_likelihood_is_the_references(compared: Comparison, models: Path) -> None:
    for side in (compared.a, compared.b):
        expected = [_likelihood(models / "reference", p, r) for p, r in zip(PROMPTS, side.rewrites, strict=True)]
        assert side.values["likelihood"] == pytest.approx(expected, abs=1e-4)


def test_without_a_reference_each_reads_the_others(models: Path) -> None:
    found = _compare(models, "a", "b")
    assert found.reference is None
    for side, reader in ((found.a, "b"), (found.b, "a")):
        expected = [_likelihood(models / reader, p, r) for p, r in zip(PROMPTS, side.rewrites, strict=True)]
        assert side.values["likelihood"] == pytest.approx(expected, abs=1e-4)
    assert found.measures["likelihood"].difference is not None


def test_likelihoods_of_different_tokens_have_no_difference(models: Path) -> None:
    found = _compare(models, "a", "other")
    assert found.measures["likelihood"].difference is None
    assert found.measures["drift"].difference is not None
    with_reference = _compare(models, "a", "other", reference=str(models / "reference"))
    assert with_reference.measures["likelihood"].difference is not None


def test_means_and_paired_intervals(compared: Comparison) -> None:
    assert compared.measures.keys() == {"drift", "tokens", "words_added", "words_dropped", "likelihood"}
    for name, measure in compared.measures.items():
        a, b = compared.a.values[name], compared.b.values[name]
        assert (measure.a, measure.b) == (mean_interval(a), mean_interval(b))
        assert measure.difference == paired_difference(b, a)


def test_the_other_way_round_is_the_mirror_image(compared: Comparison, models: Path) -> None:
    mirrored = _compare(models, "b", "a", reference=str(models / "reference"))
    assert (mirrored.a, mirrored.b) == (compared.b, compared.a)
    for name, measure in compared.measures.items():
        assert measure.difference is not None
        assert mirrored.measures[name].difference is not None
        assert mirrored.measures[name].difference.mean == pytest.approx(-measure.difference.mean)


def test_words_that_come_and_go(monkeypatch: pytest.MonkeyPatch, models: Path) -> None:
    texts = {"a": ["a ball of snow, oil", "THE cat, on a mat!", "dogs", ""], "b": list(PROMPTS)}
    monkeypatch.setattr(
        "semdpo.reporting.compare._rewritten",
        lambda name, *_: [(text, False) for text in texts[Path(name).name]],
    )
    found = _compare(models, "a", "b")
    assert found.a.values["words_added"] == [2, 0, 0, 0]  # snow, oil
    assert found.a.values["words_dropped"] == [1, 0, 2, 3]  # red; two, blue; snowy, peak, night
    assert found.b.values["words_added"] == found.b.values["words_dropped"] == [0, 0, 0, 0]
    assert found.b.values["drift"] == pytest.approx([0] * 4, abs=1e-6)
    assert found.same == 0
    assert found.examples(2) == sorted(range(4), key=lambda place: -found.a.values["drift"][place])[:2]
    assert len(found.examples(9)) == 4


def test_the_encoder_is_the_rewriters_own(models: Path, tmp_path: Path) -> None:
    for name, encoder in (("x", "clip"), ("y", None), ("z", "clip2")):
        tiny_models.gpt2(tmp_path / name, seed=4)
        kept = {"template": "{prompt} Rephrase:", "max_new_tokens": 3 if encoder else 5}
        path = str(models / "clip") if encoder == "clip" else str(tmp_path / "clip2")
        (tmp_path / name / "semdpo.json").write_text(json.dumps(kept | ({"encoder": path} if encoder else {})))
    tiny_models.clip(tmp_path / "clip2", seed=1)
    found = compare(PROMPTS, str(tmp_path / "x"), str(tmp_path / "y"))
    assert found.encoder == str(models / "clip")
    assert max(found.a.values["tokens"]) > 3, "the larger of the two budgets is both's"
    with pytest.raises(ConfigError, match="name one of these encoders with --encoder"):
        compare(PROMPTS, str(tmp_path / "x"), str(tmp_path / "z"))


def test_what_cannot_be_compared(models: Path) -> None:
    with pytest.raises(ConfigError, match="name two different ones"):
        _compare(models, "a", "a")
    with pytest.raises(ModelError, match="neither a folder nor a known name"):
        _compare(models, "a", "absent")
    with pytest.raises(ModelError, match="neither a folder nor a known name"):
        _compare(models, "a", "b", reference="absent")
    with pytest.raises(DataError, match="there is 1 prompt, and an interval needs at least two"):
        compare(PROMPTS[:1], str(models / "a"), str(models / "b"), encoder=str(models / "clip"))
    with pytest.raises(DataError, match="knows only its world's words"):
        compare(["colourless quokkas", "furious ideas"], str(models / "a"), str(models / "b"), encoder="tiny:clip")


def test_an_estimate_of_every_measure_is_finite(compared: Comparison) -> None:
    for measure in compared.measures.values():
        assert measure.difference is not None
        for part in (measure.a, measure.b, measure.difference):
            assert np.isfinite(astuple(part)).all()
