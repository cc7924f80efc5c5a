"""The import law: an import goes down a layer or stays in it, never up; stages never import each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import semdpo

ROOT = Path(semdpo.__file__).parent
# From the bottom. A module or folder stands in exactly one layer.
LAYERS = (
    {"texts", "defaults", "paths"},
    {"errors", "records", "protocols", "progress", "trackers"},
    {"fields", "objective", "models_config", "config", "yaml_values", "recipe"},
    {"semantics", "objectives", "statistics", "length_control", "wording", "paper"},
    {"selection"},
    {"bounds"},
    {
        "models",
        "arrow_files",
        "readers",
        "writers",
        "tables",
        "conversations",
        "hub_data",
        "files",
        "store",
        "prompt_sets",
        "timing",
        "fingerprint",
        "disk",
        "parquet",
        "shards",
        "output",
    },
    {"audit"},
    {"training", "reporting"},
    {"stages"},
    {"parts"},
    {"stage"},
    {"evaluation"},
    {"flow"},
    {"resources"},
    {"sweep", "doctor", "downloads", "estimate"},
    {"gather"},
    {"pipeline"},
    {"optimizer", "world"},
    {"cli", "commands"},
    {"__main__"},
)
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
}
LIGHT_FILES = (
    "__init__.py",
    "cli.py",
    "config.py",
    "defaults.py",
    "fields.py",
    "objective.py",
    "errors.py",
    "records.py",
    "recipe.py",
    "progress.py",
)


def _files() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py"))


def _layer(part: str) -> int:
    for level, names in enumerate(LAYERS):
        if part in names:
            return level
    raise AssertionError(f"{part} stands in no layer; add it to LAYERS")


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


def test_every_module_stands_in_a_layer() -> None:
    for path in _files():
        part = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if part != "__init__":
            _layer(part)


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_never_go_up(path: Path) -> None:
    part = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if part == "__init__":
        return
    for name in _imports(path):
        target = name.split(".")[1]
        if (ROOT / target).is_dir() or (ROOT / f"{target}.py").is_file():
            assert _layer(target) <= _layer(part), f"{path.name} imports {name}, which stands above it"


@pytest.mark.parametrize("path", sorted((ROOT / "stages").glob("*.py")), ids=lambda path: path.name)
def test_stages_do_not_import_each_other(path: Path) -> None:
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
