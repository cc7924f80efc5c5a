"""The import law: an import goes down a layer or stays in it, never up; stages do not import each other's work."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

import semdpo

ROOT = Path(semdpo.__file__).parent
# From the bottom. The longest name that fits says where a module stands.
LAYERS = (
    # words, files, the embedded world
    (
        *("errors", "extras", "texts", "disk", "locks", "progress", "protocols", "answers"),
        *("span_syntax", "protected_spans", "tiny_world"),
        *("chat_answers", "client", "web"),
    ),
    ("recipe",),
    ("data",),
    ("analysis", "objectives"),
    ("models",),
    ("engine",),
    ("training", "tiny_world_training"),
    ("stages",),
    ("study",),
    (
        "reporting",
        "fitting",
        "guard",
        "best_of",
        "optimized",
        "before_after",
        "prompt_optimizer",
        "many_prompts",
        "mcp_server",
        "exporting",
    ),
    ("preflight", "workforce", "pipeline", "serve", "cli", "__main__"),
)
# Within the uppermost layer, too, an import goes one way.
ORDER = ("preflight", "workforce", "pipeline", "serve", "cli", "__main__")
HEAVY = {
    "torch",
    "transformers",
    "diffusers",
    "pandas",
    "scipy",
    "matplotlib",
    "pyarrow",
    "sentence_transformers",
    "datasets",
    "fastapi",
    "ray",
}
LIGHT_FILES = (
    "__init__.py",
    "errors.py",
    "progress.py",
    "data/records.py",
    *sorted(path.relative_to(ROOT).as_posix() for folder in ("recipe", "cli") for path in (ROOT / folder).glob("*.py")),
)


def _files() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py"))


def _place(module: str, names: Sequence[str]) -> str | None:
    """The longest of the names that a module, without ``semdpo.``, is or lies in."""
    fitting = [name for name in names if module == name or module.startswith(f"{name}.")]
    return max(fitting, key=len, default=None)


def _layer(module: str) -> int:
    place = _place(module, [name for names in LAYERS for name in names])
    assert place is not None, f"{module} stands in no layer; add it to LAYERS"
    return next(level for level, names in enumerate(LAYERS) if place in names)


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _imports(path: Path) -> list[str]:
    """Absolute names of what a file imports from this package."""
    package = ["semdpo", *path.relative_to(ROOT).parts[:-1]]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [f"{module}.{alias.name}" for alias in node.names]
    return [name for name in found if name.split(".")[0] == "semdpo" and len(name.split(".")) > 1]


def test_there_are_eleven_layers_and_every_name_is_there() -> None:
    assert len(LAYERS) == 11
    for names in LAYERS:
        for name in names:
            place = ROOT / name.replace(".", "/")
            assert place.is_dir() or place.with_suffix(".py").is_file(), name


def test_every_module_stands_in_a_layer() -> None:
    for path in _files():
        if path != ROOT / "__init__.py":
            _layer(_module(path))


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_never_go_up(path: Path) -> None:
    if path == ROOT / "__init__.py":
        return
    own = _module(path)
    for name in _imports(path):
        target = name.removeprefix("semdpo.")
        if _place(target, [each for names in LAYERS for each in names]) is None:
            continue  # of the package itself, such as its version
        assert _layer(target) <= _layer(own), f"{path.name} imports {name}, which stands above it"
        places = _place(own, ORDER), _place(target, ORDER)
        if None not in places:
            assert ORDER.index(str(places[1])) <= ORDER.index(str(places[0])), f"{path.name} imports {name}"


def test_nothing_reaches_the_tiny_world_by_its_path() -> None:
    for path in _files():
        if not path.relative_to(ROOT).parts[0].startswith("tiny_world"):
            assert not re.search(r'"tiny_world|/ "(world|weights)"', path.read_text()), path


@pytest.mark.parametrize("path", sorted((ROOT / "stages").glob("*.py")), ids=lambda path: path.name)
def test_stages_do_not_import_each_other(path: Path) -> None:
    if path.name in ("flow.py", "rounds.py", "sweep.py"):  # the lists of stages
        return
    others = {other.stem for other in (ROOT / "stages").glob("*.py")} - {path.stem, "__init__"}
    for name in _imports(path):
        parts = name.split(".")
        assert parts[1] != "stages" or parts[2] not in others, f"{path.name} imports the stage {parts[2]}"


@pytest.mark.parametrize("name", LIGHT_FILES)
def test_light_files_import_nothing_heavy_at_once(name: str) -> None:
    tree = ast.parse((ROOT / name).read_text())
    for node in tree.body:
        if isinstance(node, ast.Import):
            roots = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots = {(node.module or "").split(".")[0]}
        else:
            continue
        assert not roots & HEAVY, f"{name} imports {roots & HEAVY} when it is imported"
