"""Scorers on the second device that torch takes for a GPU: the newer ones as the others, and all in half precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from semdpo.models.scorers.registry import load_scorer
from semdpo.protocols import ScoreBatch
from tests import tiny_models, tiny_preferences
from tests.models.test_images import BUILDERS
from tests.second_device.build import needs_second_device
from tests.second_device.cuda import as_cuda, operators_run

pytestmark = needs_second_device

IMAGES = [*tiny_preferences.unlike(), tiny_models.image(1, 90, 50)]
PROMPTS = ["a red ball", "two cats", "a house on a hill"]


def _asked(folder: Path) -> Path:
    """A Qwen-VL that is asked for "Yes", with weights that are not made to answer in one way."""
    (tiny_preferences.unified(folder) / "scorer.json").unlink()
    torch.manual_seed(5)
    AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    return folder


NEWER: dict[str, Callable[[Path], Path]] = {
    "laion-aesthetic": tiny_preferences.laion,
    "mps": tiny_preferences.mps_folder,
    "hpsv3": tiny_preferences.hpsv3_folder,
    "unified-reward": tiny_preferences.unified,
    "vqa-score of Qwen": _asked,
}
OTHERS = {kind: build for kind, build in BUILDERS.items() if kind != "jina"}


def _scores(name: str, precision: str = "float32") -> ScoreBatch:
    return load_scorer(name, precision=precision, allow_remote_code=[name]).score(IMAGES, PROMPTS)


@pytest.mark.parametrize("kind", NEWER)
def test_scores_are_those_of_the_cpu(kind: str, tmp_path: Path) -> None:
    name = str(NEWER[kind](tmp_path / "model"))
    plain, before = _scores(name), operators_run()
    with as_cuda():
        found = _scores(name)
    assert operators_run() > before + 10  # it was computed there
    assert np.ptp(plain.values) > 1e-6
    np.testing.assert_allclose(found.values, plain.values, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", sorted((NEWER | OTHERS).keys() - {"unified-reward"}))  # whose score is one of two
def test_scores_in_half_precision_are_near(kind: str, precision: str, tmp_path: Path) -> None:
    """No tensor is left in float32 beside weights of half precision."""
    name = str((NEWER | OTHERS)[kind](tmp_path / "model"))
    plain = _scores(name)
    with as_cuda():
        half = _scores(name, precision)
    np.testing.assert_allclose(half.values, plain.values, rtol=0.05, atol=0.05)
