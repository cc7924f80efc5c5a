"""Models that bring Python code of their own: jina-embeddings-v4's ways, and whether it can work, before it must."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from semdpo.cli.app import app
from semdpo.errors import DataError, ModelError
from semdpo.models.remote import has_remote_code, try_remote
from semdpo.models.scorers.registry import load_scorer
from semdpo.preflight import doctor
from semdpo.recipe.load import load_recipe
from tests import tiny_models, tiny_multimodal


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("peft")
    return tiny_multimodal.jina_v4(tmp_path_factory.mktemp("jina") / "jina-embeddings-v4")


def _expected(folder: Path, prompt: str, colours: torch.Tensor) -> float:
    """The cosine, from the files alone."""
    weights, adapters = (
        load_file(folder / "model.safetensors"),
        load_file(folder / "adapters/adapter_model.safetensors"),
    )
    settings = json.loads((folder / "adapters/adapter_config.json").read_text())
    down, up = (adapters[f"base_model.model.layer.lora_{each}.retrieval.weight"] for each in "AB")
    layer = weights["layer.weight"] + settings["lora_alpha"] / settings["r"] * up @ down
    counts = torch.tensor([float(prompt.count(letter)) for letter in "aeiost"])
    text, image = layer @ weights["words.weight"] @ counts, layer @ torch.cat([colours, 1 - colours])
    return float(torch.nn.functional.cosine_similarity(text, image, dim=0))


def test_its_own_from_pretrained_gets_a_model_and_its_adapters_count(folder: Path) -> None:
    scorer = load_scorer(str(folder), allow_remote_code=[str(folder)])
    images, prompts = [tiny_models.image(1), tiny_models.image(2)], ["a red ball on a table", "two cats"]
    scores = scorer.score(images, prompts)
    for image, prompt, value in zip(images, prompts, scores.values, strict=True):
        colours = torch.from_numpy(np.asarray(image, np.float32)).mean((0, 1)) / 255
        assert value == pytest.approx(_expected(folder, prompt, colours), abs=1e-5)


def test_it_does_not_run_unless_it_was_named(folder: Path) -> None:
    with pytest.raises(ModelError, match="allow_remote_code"):
        load_scorer(str(folder))


def test_weights_that_are_not_there_are_noticed_behind_its_own_from_pretrained(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    broken = tiny_multimodal.jina_v4(tmp_path / "model", without="words.weight")
    with pytest.raises(ModelError, match=r"lacks 1 of its model's weights, such as words\.weight"):
        load_scorer(str(broken), allow_remote_code=[str(broken)])


def test_adapters_that_are_not_there_are_noticed(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from safetensors.torch import save_file

    broken = tiny_multimodal.jina_v4(tmp_path / "model")
    adapters = broken / "adapters/adapter_model.safetensors"
    kept = {name: value for name, value in load_file(adapters).items() if "lora_B" not in name}
    save_file(kept, adapters, {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 2 of its model's weights, such as .*lora_B\.code\.weight"):
        load_scorer(str(broken), allow_remote_code=[str(broken)])


def _with_code(folder: Path, before: str, after: str) -> Path:
    """Another copy of the stand-in, its code changed."""
    path = tiny_multimodal.jina_v4(folder) / "modeling_stand_in.py"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))
    return folder


@pytest.mark.parametrize(
    "owner",
    [
        "self.processor = type('Processor', (), {'tokenizer': %s})()",
        "self.tokenizer = %s",
        "self.get_tokenizer = lambda: %s",
    ],
    ids=["in a processor, as jina-embeddings-v4", "beside the model", "given out, as jina-clip-v2"],
)
def test_its_control_tokens_are_refused_in_prompts(owner: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    made = "__import__('tests.tiny_models').tiny_models.clip_tokenizer()"
    after = f"        {owner % made}\n        self.post_init()\n"
    folder = _with_code(tmp_path / "model", "        self.post_init()\n", after)
    scorer = load_scorer(str(folder), allow_remote_code=[str(folder)])
    assert scorer.score([tiny_models.image(1)], ["a cat"]).values.shape == (1,)
    with pytest.raises(DataError, match=r"'a <\|endoftext\|> cat' contains '<\|endoftext\|>'"):
        scorer.score([tiny_models.image(1)], ["a <|endoftext|> cat"])


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("import numpy as np\n", "import numpy as np\nfrom transformers.utils import LossKwargs\n", "LossKwargs"),
        ("import numpy as np\n", "import numpy as np\nimport a_package_of_theirs\n", "a_package_of_theirs"),
        ("        self.post_init()\n", "        self.post_init()\n        {}['default']\n", "'default'"),
        (
            "import numpy as np\n",
            "import numpy as np\nassert not 'ready', 'wants an older one'\n",
            "wants an older one",
        ),
    ],
    ids=[
        "a name that transformers 5 has no more",
        "a package that is not installed",
        "a class that cannot be built",
        "whatever it raises",
    ],
)
def test_code_that_cannot_run_is_found_before_anything_is_drawn(
    before: str, after: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft")
    monkeypatch.chdir(tmp_path)
    folder = _with_code(tmp_path / "jina-embeddings-v4", before, after)
    message = rf"does not run with transformers \d+\..*{reason}.*use jina-clip-v2 in its place"
    with pytest.raises(ModelError, match=message):
        try_remote(folder)
    changes = [f"label.fidelity={folder}", f"scoring.allow_remote_code=[{folder}]"]
    recipe = load_recipe("tiny", changes)
    (found,) = doctor.remote_code(recipe)
    assert (found.level, reason in found.found) == ("error", True)
    with pytest.raises(ModelError, match=message):
        doctor.refuse_the_impossible(recipe, tmp_path / "run")
    said = CliRunner().invoke(app, ["run", "tiny", *(x for each in changes for x in ("--set", each)), "-o", "out"])
    assert "jina-clip-v2" in str(said.exception)
    assert not list(tmp_path.glob("out/candidates*")), "nothing was begun"


def test_jina_clip_is_not_offered_in_its_own_place(tmp_path: Path) -> None:
    code = (tiny_multimodal.jina(tmp_path / "jina-clip-v2")) / "modeling_toy.py"
    code.write_text("import a_package_of_theirs\n" + code.read_text())
    with pytest.raises(ModelError, match="a_package_of_theirs") as raised:
        try_remote(code.parent)
    assert "in its place" not in str(raised.value)


def test_code_that_runs_is_told(folder: Path) -> None:
    recipe = load_recipe("tiny", [f"label.fidelity={folder}", f"scoring.allow_remote_code=[{folder}]"])
    (found,) = doctor.remote_code(recipe)
    assert (found.level, found.found) == ("ok", "its own Python code runs")
    assert has_remote_code(folder)


def test_without_the_users_word_nothing_is_imported(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    folder = _with_code(tmp_path / "model", "import os\n", "import os\nraise SystemExit('it ran')\n")
    assert doctor.remote_code(load_recipe("tiny", [f"label.fidelity={folder}"])) == []
    with pytest.raises(ModelError, match="allow_remote_code"):
        load_scorer(str(folder))
