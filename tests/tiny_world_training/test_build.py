"""A miniature of every model, so that the world's scripts cannot rot. Each learns for a few steps on few images."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from semdpo.cli.app import app
from semdpo.errors import ConfigError, ModelError
from semdpo.progress import silent
from semdpo.tiny_world_training import blip, build, clip, diffusion, gpt2, judge, pool, preference, vae

POOL_SIZE = 320  # fewer images have no hard groups for a batch
STEPS = 2


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    for model in build.MODELS:
        build.build_one(model.name, folder, POOL_SIZE, STEPS, silent)
    return folder


@pytest.mark.slow
def test_every_model_is_built_and_measured(world: Path) -> None:
    for model in build.MODELS:
        record = json.loads((world / model.name / "quality.json").read_text())
        assert record["quality"], model.name
        assert record["configuration"]["steps"] == STEPS


@pytest.mark.slow
def test_shipping_halves_and_writes_the_card(world: Path, tmp_path: Path) -> None:
    build.ship(world, tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    assert set(card) == set(build.BY_NAME)
    assert sum(record.get("megabytes", 0) for record in card.values()) < 40
    assert not list(tmp_path.rglob("*.partial"))
    from semdpo.models.renderer import load_renderer
    from semdpo.models.scorers.registry import load_scorer

    images = load_renderer(str(tmp_path / "weights" / "sd"), steps=2, guidance=2.0).render(["a red ball"], [1])
    assert images[0].size == (64, 64)
    for name in ("clip", "clip-b", "blip-itm", "image-reward", "pickscore", "hps"):
        batch = load_scorer(str(tmp_path / "weights" / name)).score(images, ["a red ball"])
        assert batch.values.shape == (1,), name


@pytest.mark.slow
def test_the_command_builds_in_processes_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = tuple(replace(model, steps=STEPS) for model in build.MODELS if model.name in ("vae", "judge"))
    monkeypatch.setattr(build, "MODELS", small)
    monkeypatch.setattr(build, "BY_NAME", {model.name: model for model in small})
    monkeypatch.setattr(build.build, "__defaults__", (1, POOL_SIZE))
    done = CliRunner().invoke(app, ["world", "build", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.exception
    for model in small:
        record = json.loads((tmp_path / model.name / "quality.json").read_text())
        assert record["configuration"]["steps"] == 2


@pytest.mark.slow
def test_any_number_of_painters_paints_the_same(tmp_path: Path) -> None:
    alone, _ = (pool.training_pool(tmp_path / str(jobs), 5, jobs)[1] for jobs in (1, 2))
    assert (np.load(tmp_path / "2/pool-5.npy") == alone).all()


def test_an_unknown_model_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'clip'"):
        build.build(["clipp"], tmp_path)


def test_a_model_waits_for_what_it_is_made_from(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="semdpo world build clip-b"):
        build.build_one("hps", tmp_path, POOL_SIZE, 3, silent)


def test_a_model_is_built_again_when_what_it_is_made_from_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def builder(name: str) -> Callable[..., dict[str, float]]:
        def make(folder: Path, out: Path, *_: object) -> dict[str, float]:
            made.append(f"{name} goes on" if (folder / f"{name}.fit.pt").exists() else name)
            out.mkdir(exist_ok=True)
            (out / "model.safetensors").write_bytes(b"a" * 3 * 2**20)
            return {"good": 1.0}

        return make

    monkeypatch.setattr(build, "_builder", builder)
    one, other = build.BY_NAME["clip-b"], build.BY_NAME["hps"]
    for model in (one, other):
        build.build_one(model.name, tmp_path, POOL_SIZE, 3, silent)
    assert build._finished(tmp_path, other)
    (tmp_path / "clip-b" / "model.safetensors").write_bytes(b"a" * 2**20 + b"b" + b"a" * (2**21 - 1))
    assert build._finished(tmp_path, one)
    assert not build._finished(tmp_path, other)
    (tmp_path / "hps.fit.pt").write_bytes(b"half")
    (tmp_path / "hps.started.json").write_text('{"clip-b": "as it was"}')
    build.build_one("hps", tmp_path, POOL_SIZE, 3, silent)
    assert build._finished(tmp_path, other)
    (tmp_path / "hps.fit.pt").write_bytes(b"half")
    (tmp_path / "hps.started.json").write_text(json.dumps(build._made_from(tmp_path, other)))
    build.build_one("hps", tmp_path, POOL_SIZE, 3, silent)
    assert made == ["clip-b", "hps", "hps", "hps goes on"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["clip-b", "hps"]


class _BegunError(Exception):
    """Ends a training before its first update."""


@pytest.mark.slow
@pytest.mark.parametrize("name", build.BY_NAME)
def test_a_training_begins_with_weights_that_its_seed_fixes(
    name: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of image-reward, its towers."""
    begun: list[dict[str, torch.Tensor]] = []

    def fit(model: torch.nn.Module, *_: object) -> None:
        begun.append(model.state_dict())
        raise _BegunError

    for module in (gpt2, vae, clip, judge, diffusion, blip, preference):
        monkeypatch.setattr(module, "fit", fit)
    for path in world.iterdir():
        if path.name != name:
            (tmp_path / path.name).symlink_to(path)
    for process in (1, 2):  # a new process begins with any state of torch's random numbers
        torch.manual_seed(process)
        with pytest.raises(_BegunError):
            build.build_one(name, tmp_path, POOL_SIZE, STEPS, silent)
    first, second = begun
    assert all(torch.equal(second[key], value) for key, value in first.items())


def test_latents_are_of_the_autoencoder_that_made_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from semdpo.tiny_world_training import diffusion

    (tmp_path / "vae").mkdir()
    images = np.zeros((2, 64, 64, 3), np.uint8)
    for value in (1.0, 2.0, 2.0):
        monkeypatch.setattr(diffusion.vae, "encode", lambda *_, value=value: torch.full((2, 4), value))
        (tmp_path / "vae" / "model.safetensors").write_bytes(bytes([int(value)]))
        assert diffusion._latents(tmp_path, None, images).eq(value).all()
    assert len(list(tmp_path.glob("latents-2-*.npy"))) == 2
