from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers.utils import logging

from semdpo.errors import DataError, ModelError
from semdpo.models.rewriter import load_rewriter
from semdpo.protocols import Rewriter
from semdpo.recipe.base import Template
from tests import tiny_models

PROMPTS = ["a red ball", "two cats on a mat {prompt}", "a"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.gpt2(tmp_path_factory.mktemp("gpt2") / "model")


def test_rewrites_do_not_depend_on_the_batch(
    folder: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    rewriter = load_rewriter(folder, max_new_tokens=12, batch_size=2)
    assert isinstance(rewriter, Rewriter)
    found = rewriter.rewrite(PROMPTS, 3, seed=5)
    assert [len(row) for row in found] == [3, 3, 3]
    assert found == [rewriter.rewrite([prompt], 3, seed=5)[0] for prompt in PROMPTS]
    assert found == load_rewriter(folder, max_new_tokens=12).rewrite(PROMPTS, 3, seed=5)
    assert found[0] == rewriter.rewrite(PROMPTS[:1], 1, seed=5)[0] + found[0][1:]
    assert found != rewriter.rewrite(PROMPTS, 3, seed=6)
    assert len(set(found[0])) == 3
    assert all(text == " ".join(text.split()) for row in found for text in row)
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []


def test_sampling_leaves_the_global_generator_alone(folder: Path) -> None:
    before = torch.get_rng_state()
    load_rewriter(folder, max_new_tokens=3).rewrite(["a"], 2, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("decoding", [{}, {"temperature": 0.0}, {"temperature": 0.0, "num_beams": 2}])
def test_scores_that_are_not_finite_are_refused(folder: Path, decoding: dict[str, float]) -> None:
    rewriter = load_rewriter(folder, max_new_tokens=3, **decoding)
    assert rewriter.rewrite(["a"], 2, seed=0)
    with torch.no_grad():
        rewriter._model.transformer.ln_f.bias.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite; use precision float32"):
        rewriter.rewrite(["a"], 2, seed=0)


def test_temperature_zero_is_greedy(folder: Path) -> None:
    rewriter = load_rewriter(folder, temperature=0.0, max_new_tokens=8)
    found = rewriter.rewrite(PROMPTS, 2, seed=1)
    assert all(row[0] == row[1] for row in found)
    assert found == rewriter.rewrite(PROMPTS, 2, seed=2)
    model, tokenizer = rewriter._model, rewriter._tokenizer
    ids = tokenizer("a Rephrase:", return_tensors="pt")["input_ids"]
    for _ in range(8):
        with torch.no_grad():
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
    new = ids[0, len("a Rephrase:") :].tolist()
    assert found[2][0] == " ".join(tokenizer.decode(new[: new.index(0)] if 0 in new else new).split())
    assert rewriter.at_temperature(1.0).rewrite(PROMPTS, 2, seed=1) != found


def test_what_the_budget_cut_is_flagged(folder: Path) -> None:
    rewriter = load_rewriter(folder, temperature=0.0, max_new_tokens=4)
    model = rewriter._model
    assert rewriter.rewrite_flagged(["a"], 1, seed=0)[0][0][1] is True
    with torch.no_grad():  # make the end token certain
        model.lm_head.weight.zero_()
        model.transformer.wte.weight.zero_()
        model.transformer.wte.weight[0] = 100 * model.transformer.ln_f.weight
        model.transformer.ln_f.bias.fill_(1.0)
    assert rewriter.rewrite_flagged(["a"], 1, seed=0) == [[("", False)]]


def test_rows_that_end_early_raise_no_warning(
    folder: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    rewriter = load_rewriter(folder, temperature=5.0, top_p=1.0, max_new_tokens=30)
    logging.warning_once.cache_clear()
    found = rewriter.rewrite_flagged(["a"], 64, seed=0)[0]
    assert {cut for _, cut in found} == {True, False}
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []


def test_tokens_are_counted_without_special_ones(folder: Path) -> None:
    assert load_rewriter(folder).tokens(["abc", "", "a b"]) == [3, 0, 3]
    assert load_rewriter(folder).tokens([]) == []


def test_the_template_comes_from_the_folder(tmp_path: Path) -> None:
    folder = tiny_models.gpt2(tmp_path)
    (folder / "semdpo.json").write_text(json.dumps({"template": "Q {prompt} A"}))
    assert load_rewriter(folder).template == Template("Q {prompt} A")
    assert load_rewriter(folder, template="{prompt}!").template == Template("{prompt}!")
    with pytest.raises(ModelError, match="exactly once"):
        load_rewriter(folder, template="no slot")
    (folder / "semdpo.json").write_text("{}")
    with pytest.raises(ModelError, match="exactly once"):
        load_rewriter(folder)
    (folder / "semdpo.json").unlink()
    assert load_rewriter(folder).template == Template("{prompt} Rephrase:")


def test_a_prompt_without_room_for_the_rewrite_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"110 tokens with its template, and with max_new_tokens 40 exceeds .* 128"):
        load_rewriter(folder).rewrite(["x" * 100], 1, seed=0)


def test_bad_options_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="temperature must be"):
        load_rewriter(folder, temperature=-1.0)
    with pytest.raises(ModelError, match="max_new_tokens must be at least 1"):
        load_rewriter(folder, max_new_tokens=0)
    with pytest.raises(ModelError, match="n must be at least 1"):
        load_rewriter(folder).rewrite(["a"], 0, seed=0)
    with pytest.raises(ModelError, match="does not hold a readable model"):
        load_rewriter(tmp_path)
