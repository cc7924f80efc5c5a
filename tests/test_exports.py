"""`semdpo` exports what it says, and importing it costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import semdpo

ROOT = Path(semdpo.__file__).parent


def _names_for_type_checkers() -> list[str]:
    stub = ast.parse((ROOT / "__init__.pyi").read_text())
    return [alias.asname or "" for node in ast.walk(stub) if isinstance(node, ast.ImportFrom) for alias in node.names]


def test_every_exported_name_is_there() -> None:
    for name in semdpo.__all__:
        assert getattr(semdpo, name) is not None
    assert dir(semdpo) == sorted(semdpo.__all__)


def test_type_checkers_see_the_same_names() -> None:
    assert sorted(_names_for_type_checkers()) == sorted(semdpo.__all__)


def test_these_names_are_public() -> None:
    """A new one is a decision: it is documented in docs/reference/python.md, and stays."""
    errors = {"ConfigError", "DataError", "ModelError", "SemdpoError", "StoreError"}
    classes = {"PreferenceConfig", "PreferenceTrainer", "PromptOptimizer"}
    functions = {"audit", "load_recipe", "measure_drift", "run", "semantic_weight", "train"}
    assert set(semdpo.__all__) == errors | classes | functions | {"objectives"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(semdpo, "no_such_name")


def test_the_version_is_the_packages() -> None:
    project = tomllib.loads((ROOT.parents[1] / "pyproject.toml").read_text())["project"]
    assert project["version"] == semdpo.__version__


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, semdpo; print([m for m in ('torch', 'numpy', 'transformers', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
