"""A model's folder whose config.json says nonsense is refused in one sentence, whichever library notices first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from semdpo.errors import ModelError
from semdpo.models.loading import unreadable
from semdpo.models.rewriter import load_rewriter
from semdpo.models.text_encoder import load_text_encoder
from tests import tiny_models

LOADERS: dict[str, Callable[[str], object]] = {"gpt2": load_rewriter, "clip": load_text_encoder}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_models.gpt2(folder / "gpt2")
    tiny_models.clip(folder / "clip")
    return folder


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        *[("gpt2", key, value) for key in ("n_embd", "n_head", "n_layer", "vocab_size") for value in (None, 0, "x", [])
          if (key, value) not in (("n_layer", 0), ("vocab_size", 0))],
        *[("gpt2", "dtype", value) for value in ("x", [])],
        ("gpt2", "activation_function", "unknown"),
        ("gpt2", "initializer_range", "x"),
        *[("clip", key, {}) for key in ("logit_scale_init_value", "projection_dim")],
        *[("clip", key, "text") for key in ("text_config", "vision_config")],
        ("clip", "dtype", []),
    ],
)  # fmt: skip
def test_a_config_that_says_nonsense(folders: Path, name: str, key: str, value: object) -> None:
    path = folders / name / "config.json"
    right = path.read_text()
    try:
        path.write_text(json.dumps(json.loads(right) | {key: value}))
        with pytest.raises(ModelError, match=r"does not hold a readable|holds no") as refusal:
            LOADERS[name](str(folders / name))
    finally:
        path.write_text(right)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_lack_of_memory_is_no_fault_of_the_folder() -> None:
    """Some libraries put weights onto the GPU while they read them."""
    error = unreadable("some/folder", "diffusers pipeline", torch.OutOfMemoryError("CUDA out of memory."))
    assert str(error) == (
        "there is not enough memory for the diffusers pipeline in 'some/folder' (CUDA out of memory); choose a smaller "
        "one, a lower precision, or a machine with more"
    )
    assert "does not hold a readable model" in str(unreadable("some/folder", "model", RuntimeError("other shapes")))
