"""A scorer is one file of ``semdpo.models.scorers``, which the registry finds."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from semdpo.errors import ModelError
from semdpo.models import scorers
from semdpo.models.registry import resolve
from semdpo.models.scorers.registry import _kind, kinds, load_scorer

TOY = '''
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from semdpo.models.device import Compute
from semdpo.models.registry import Place
from semdpo.models.scorers.base import ScoreFunction, ScorerKind


def redness(place: Place, where: Compute) -> ScoreFunction:
    """How red an image is, whatever the prompt."""

    def score(images: Sequence[Image.Image], prompts: Sequence[str]) -> tuple[torch.Tensor, np.ndarray]:
        values = [float(np.asarray(image)[..., 0].mean()) for image in images]
        return torch.tensor(values), np.array([len(each) > 5 for each in prompts])

    return score


SCORER = ScorerKind("toy-redness", redness, {arguments})
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder that counts as part of the scorers' package."""
    path = tmp_path / "more_scorers"
    path.mkdir()
    monkeypatch.setattr(scorers, "__path__", [*scorers.__path__, str(path)])
    before = set(sys.modules)
    yield path
    for name in set(sys.modules) - before:
        if name.startswith(f"{scorers.__name__}.toy"):
            del sys.modules[name]
            vars(scorers).pop(name.rpartition(".")[2], None)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("arguments", "file", "text"),
    [
        ("", "scorer.json", '{"kind": "toy-redness"}'),
        ('files=("redness.bin",)', "redness.bin", ""),
        ('architectures=("RednessModel",)', "config.json", '{"architectures": ["Other", "RednessModel"]}'),
        ('takes=lambda config: config.get("colour") == "red"', "config.json", '{"colour": "red"}'),
    ],
    ids=["scorer.json", "file", "class", "config"],
)
def test_one_new_file_is_a_scorer(arguments: str, file: str, text: str, folder: Path, model: Path) -> None:
    (model / file).write_text(text)
    with pytest.raises(ModelError):
        load_scorer(str(model))
    (folder / "toy_redness.py").write_text(TOY.replace("{arguments}", arguments))
    red, black = Image.new("RGB", (4, 4), (200, 0, 0)), Image.new("RGB", (4, 4))
    found = load_scorer(str(model), batch_size=2).score([red, black, red], ["a", "a long prompt", "b"])
    assert found.values.tolist() == [200, 0, 200]
    assert found.truncated.tolist() == [False, True, False]


def test_code_of_a_model_runs_only_when_it_is_allowed(folder: Path, model: Path) -> None:
    (model / "scorer.json").write_text('{"kind": "toy-redness"}')
    (folder / "toy_redness.py").write_text(TOY.replace("{arguments}", "runs_code=True"))
    with pytest.raises(ModelError, match=r"runs Python code that comes with it.* scoring\.allow_remote_code="):
        load_scorer(str(model))
    assert load_scorer(str(model), allow_remote_code=[str(model)]).score([], []).values.shape == (0,)


def test_a_file_without_the_constant_is_named(folder: Path, model: Path) -> None:
    (folder / "toy_empty.py").write_text("")
    with pytest.raises(AttributeError, match=r"toy_empty' has no attribute 'SCORER'"):
        load_scorer(str(model))


def test_no_two_scorers_claim_the_same_thing() -> None:
    for of in (
        lambda each: (each.kind,),
        lambda each: each.names,
        lambda each: each.files,
        lambda each: each.architectures,
    ):
        claims = [claim for each in kinds() for claim in of(each)]
        assert len(claims) == len(set(claims)) > 0


# What is asked first wins; each row is stronger than all below it.
ORDER = ("scorer.json", "ImageReward.pt", "architecture", "image-text-to-text")


@pytest.mark.parametrize("first", range(len(ORDER)), ids=ORDER)
def test_the_order_of_preference(first: int, model: Path) -> None:
    wanted = ("blip-itm", "image-reward", "clip-score", "vqa-score")[first]
    config = {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"]}
    if first <= 2:
        config["architectures"] = ["CLIPModel"]
    (model / "config.json").write_text(json.dumps(config))
    if first <= 1:
        (model / "ImageReward.pt").touch()
    if first == 0:
        (model / "scorer.json").write_text('{"kind": "blip-itm"}')
    assert _kind(resolve(str(model))).kind == wanted


def test_the_name_pickscore_is_stronger_than_any_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pickscore").mkdir()
    (tmp_path / "pickscore" / "scorer.json").write_text('{"kind": "clip-score"}')
    monkeypatch.setenv("SEMDPO_MODELS", str(tmp_path))
    assert _kind(resolve("pickscore")).kind == "pickscore"


def test_two_checkpoints_in_one_folder_are_refused(model: Path) -> None:
    for file in ("ImageReward.pt", "HPS_v2.1_compressed.pt"):
        (model / file).touch()
    with pytest.raises(ModelError, match=r"several scorers \(hpsv2\.1, image-reward\); name one in"):
        load_scorer(str(model))
