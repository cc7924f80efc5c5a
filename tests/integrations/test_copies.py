"""The files that image programs load hold the client as it is, need nothing, and run on the Python that these bring."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from integrations.copy_client import BEGIN, COPIES, END, MODULES, ROOT, client, with_client

# What each program itself offers.
HOSTS = {"comfyui": {"comfy_api"}, "a1111": {"gradio", "modules"}, "invokeai": {"invokeai"}}
LOADED = sorted(path for host in HOSTS for path in (ROOT / "integrations" / host).rglob("*.py"))
CLIENT = [ROOT / f"src/semdpo/{name}.py" for name in MODULES]


def _imported(path: Path) -> Iterator[tuple[int, str]]:
    """The level (1: this folder) and the name of everything that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "__import__":
            pytest.fail(f"{path} imports in a way that this test does not see")


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_the_client_byte_for_byte(name: str) -> None:
    text = (ROOT / name).read_text()
    assert text == with_client(text), "run: python integrations/copy_client.py"
    assert text.count(BEGIN) == text.count(END) == 1
    assert client() in text


def test_every_program_has_a_copy() -> None:
    assert {Path(name).parts[1] for name in COPIES} == HOSTS.keys()


def test_the_copy_leaves_out_imports_of_semdpo_only() -> None:
    lines = [line for path in CLIENT for line in path.read_text().splitlines() if line]
    copied = [line for line in client().splitlines() if line]
    left_out = [line for line in lines if line not in copied]
    assert left_out == [line for line in lines if line.startswith("from semdpo.")] != []
    assert [line for line in lines if line not in left_out] == copied


def test_a_file_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="no marks"):
        with_client("import os\n")


@pytest.mark.parametrize("path", [*LOADED, *CLIENT], ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_standard_library_and_the_program_are_imported(path: Path) -> None:
    own = {"semdpo"} if path in CLIENT else HOSTS[path.relative_to(ROOT).parts[1]]
    for level, name in _imported(path):
        root = name.split(".")[0]
        if level:
            assert (path.parent / f"{root}.py").is_file(), f"{path.name} imports .{name}"
        else:
            assert root in sys.stdlib_module_names | own, f"{path.name} imports {name}"
            assert root != "semdpo" or name.removeprefix("semdpo.") in MODULES


@pytest.mark.parametrize("path", [*LOADED, *CLIENT], ids=lambda path: str(path.relative_to(ROOT)))
def test_python_3_10_reads_it(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 10))


def test_there_is_something_to_check() -> None:
    assert len(LOADED) == 4
