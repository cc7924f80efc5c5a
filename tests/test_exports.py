"""`semdpo` exports what it says, and importing it costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import semdpo

ROOT = Path(semdpo.__file__).parent


def test_all_equals_what_is_exported() -> None:
    for name in semdpo.__all__:
        assert getattr(semdpo, name) is not None
    assert dir(semdpo) == sorted(semdpo.__all__)
    assert set(semdpo._HOMES) | {"__version__"} == set(semdpo.__all__)


def test_type_checkers_see_the_same_names() -> None:
    names = set()
    for node in ast.walk(ast.parse((ROOT / "__init__.py").read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("semdpo."):
            names |= {alias.name for alias in node.names}
    assert names | {"__version__"} == set(semdpo.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(semdpo, "no_such_name")


def test_the_version_is_the_packages() -> None:
    project = tomllib.loads((ROOT.parents[1] / "pyproject.toml").read_text())["project"]
    assert project["version"] == semdpo.__version__


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, semdpo; print([m for m in ('torch', 'numpy', 'transformers', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
