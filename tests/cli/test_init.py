"""``semdpo init``: a shipped recipe with its comments and a name of its own; and the hints that name the command."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from semdpo.errors import ConfigError
from semdpo.recipe.load import RECIPES, load_recipe, read_yaml
from semdpo.stages.sweep import sweep_flow

NAMES = sorted(path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*.yaml"))


def _semdpo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "semdpo", *arguments], cwd=folder, capture_output=True, check=False)


@pytest.mark.parametrize("name", NAMES)
def test_it_writes_the_recipe_with_its_comments(name: str, tmp_path: Path) -> None:
    done = _semdpo(tmp_path, "init", name)
    assert (done.returncode, done.stderr) == (0, b"")
    written, shipped = done.stdout.splitlines(), (RECIPES / f"{name}.yaml").read_bytes().splitlines()
    assert [new for new, old in zip(written, shipped, strict=True) if new != old] == [
        line for line in written if line.startswith(b"name: mine")
    ]
    (tmp_path / "mine.yaml").write_bytes(done.stdout)
    assert load_recipe(str(tmp_path / "mine.yaml")) == load_recipe(name).model_copy(update={"name": "mine"})


def test_into_a_file_which_is_not_replaced(tmp_path: Path) -> None:
    done = _semdpo(tmp_path, "init", "-o", "new/mine.yaml")
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"semdpo run new/mine.yaml" in done.stderr
    assert (tmp_path / "new/mine.yaml").read_bytes() == _semdpo(tmp_path, "init").stdout
    (tmp_path / "new/mine.yaml").write_text("mine")
    again = _semdpo(tmp_path, "init", "-o", "new/mine.yaml")
    assert again.returncode == 2
    assert again.stderr == b"semdpo: new/mine.yaml already exists; choose another name, or remove it\n"
    assert (tmp_path / "new/mine.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("papr/gpt2",), "unknown recipe 'papr/gpt2'; did you mean 'paper/gpt2'?"),
        (("zzz",), f"unknown recipe 'zzz'; known: {', '.join(NAMES)}"),
        (("-o", "mine.txt"), "a recipe's file must end in .yaml"),
        (("-o", "."), "must end in .yaml"),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = _semdpo(tmp_path, "init", *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert said in done.stderr.decode()
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def _hinted(error: pytest.ExceptionInfo[ConfigError]) -> str:
    found = re.search(r"`semdpo (init[^`]*)`", str(error.value))
    assert found is not None, error.value
    return found[1]


@pytest.mark.parametrize("content", ["- a list", "", "# " + "x" * 1_000_001])
def test_the_hint_of_what_is_no_recipe_can_be_run(content: str, tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text(content)
    with pytest.raises(ConfigError) as error:
        read_yaml(tmp_path / "list.yaml")
    hint = _hinted(error)
    done = subprocess.run(
        f"{sys.executable} -m semdpo {hint}", shell=True, cwd=tmp_path, check=True, capture_output=True
    )
    assert done.stderr == b""
    load_recipe(str(tmp_path / "mine.yaml"))


def test_the_hint_of_a_recipe_without_a_sweep_can_be_run(tmp_path: Path) -> None:
    recipe = load_recipe("tiny").model_copy(update={"sweep": None})
    with pytest.raises(ConfigError) as error:
        sweep_flow(recipe)
    assert b"\nsweep:" in _semdpo(tmp_path, *_hinted(error).split()).stdout
