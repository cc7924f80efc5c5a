from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from semdpo.errors import DataError, ModelError
from semdpo.models.rewriter import load_rewriter
from semdpo.progress import silent
from semdpo.recipe.schema import SFTConfig
from semdpo.training.fine_tune import fine_tune
from tests import tiny_models

PAIRS = [("a cat", "cat!"), ("a dog", "dog!")]


def _config(base: Path, **changes: object) -> SFTConfig:
    values = {"model": str(base), "file": "x", "steps": 120, "batch_size": 2, "learning_rate": 1e-2, "seed": 3}
    return SFTConfig.model_validate(values | changes)


def test_it_learns_the_rewrites_and_when_to_stop(base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    steps: list[tuple[int, int, str]] = []
    output = tmp_path / "sft"
    curves = fine_tune(PAIRS, _config(base), output, lambda done, total, note="": steps.append((done, total, note)))
    assert capfd.readouterr() == ("", "")
    found = load_rewriter(output, temperature=0.0, max_new_tokens=12).rewrite_flagged(["a cat", "a dog"], 1, 0)
    assert found == [[("cat!", False)], [("dog!", False)]]
    loss = {curve.step: curve.value for curve in curves if curve.name == "loss"}
    assert sorted(loss) == list(range(120))
    assert loss[0] > 4 > 0.5 > loss[119]
    rates = [curve.value for curve in curves if curve.name == "learning_rate"]
    assert rates[0] == 0
    assert max(rates) == rates[12] == 1e-2
    assert {curve.method for curve in curves} == {"sft"}
    assert steps[-1][:2] == (120, 120)
    assert steps[-1][2].startswith("loss 0.")


@pytest.mark.parametrize(("examples", "batch_size"), [(3, 2), (5, 2), (5, 4), (2, 3)])
def test_it_makes_as_many_updates_as_asked_for(base: Path, tmp_path: Path, examples: int, batch_size: int) -> None:
    """With an odd number of examples and batches of two, a pass has one batch of three, and so fewer batches."""
    pairs = [(f"a {i}", f"b {i}") for i in range(examples)]
    curves = fine_tune(pairs, _config(base, steps=7, batch_size=batch_size), tmp_path / "sft", silent)
    assert [curve.step for curve in curves if curve.name == "loss"] == list(range(7))


def test_the_folder_is_an_ordinary_one(base: Path, tmp_path: Path) -> None:
    output = tmp_path / "sft"
    fine_tune(PAIRS, _config(base, steps=2, template="{prompt} ->"), output, silent)
    AutoModelForCausalLM.from_pretrained(output)
    assert AutoTokenizer.from_pretrained(output)("a")["input_ids"] == [
        AutoTokenizer.from_pretrained(base)("a").input_ids[0]
    ]
    assert json.loads((output / "semdpo.json").read_text()) == {"template": "{prompt} ->", "max_new_tokens": 40}
    assert load_rewriter(output).template.text == "{prompt} ->"
    card = (output / "README.md").read_text()
    assert "library_name: transformers" in card
    assert "| steps | 2 |" in card
    names = {each.name for each in output.iterdir()}
    assert {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json"} <= names
    assert not any(name.startswith(("checkpoint", "training_args", "runs")) for name in names)
    assert [each.name for each in tmp_path.iterdir()] == ["sft"]
    for file in output.iterdir():  # where it was trained is nobody's business
        assert str(tmp_path).encode() not in file.read_bytes(), file.name


def test_the_same_seed_gives_the_same_files(base: Path, tmp_path: Path) -> None:
    pairs = [(f"a {i}", f"b {i}") for i in range(9)]
    for name, seed in (("one", 1), ("two", 1), ("other", 2)):
        fine_tune(pairs, _config(base, steps=4, seed=seed), tmp_path / name, silent)
    one, two, other = ({f.name: f.read_bytes() for f in (tmp_path / n).iterdir()} for n in ("one", "two", "other"))
    assert one == two
    assert one["model.safetensors"] != other["model.safetensors"]


def test_bad_input_is_refused_and_leaves_nothing(base: Path, tmp_path: Path) -> None:
    output = tmp_path / "sft"
    with pytest.raises(DataError, match="no rewrites to learn from"):
        fine_tune([], _config(base), output, silent)
    with pytest.raises(DataError, match="row 2 of the rewrites has an empty text"):
        fine_tune([("a", "b"), ("c", " ")], _config(base), output, silent)
    with pytest.raises(DataError, match=r"1 of 2 rows are longer than 30 tokens \(row 2\); raise max_length to 45"):
        fine_tune([("a", "b"), ("c", "x" * 32)], _config(base, max_length=30), output, silent)
    with pytest.raises(ModelError, match="neither a folder nor a known name"):
        fine_tune(PAIRS, _config(base, model="gtp-2"), output, silent)
    with pytest.raises(DataError, match=r"the loss of 2 of 2 rows is not finite at step 0 \(row "):
        fine_tune(PAIRS, _config(_broken(tmp_path / "base")), tmp_path / "out" / "sft", silent)
    assert not output.exists()
    assert list((tmp_path / "out").iterdir()) == []


def _broken(folder: Path) -> Path:
    from safetensors.torch import load_file, save_file

    tiny_models.gpt2(folder)
    weights = load_file(folder / "model.safetensors")
    weights["transformer.ln_f.bias"][:] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
