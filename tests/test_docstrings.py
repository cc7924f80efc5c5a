"""Every public name and every objective says what it takes, gives and raises, with an example that runs."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import torch

import semdpo
from semdpo import objectives
from semdpo.recipe.discovery import OBJECTIVES

PUBLIC = [n for n in semdpo.__all__ if n != "objectives" and not n.endswith("Error")]
FORMULAS = [name for name in OBJECTIVES if name in objectives.__all__]


def _examples(thing: Any, name: str) -> list[doctest.DocTest]:
    own: dict[str, Any] = dict(vars(importlib.import_module(thing.__module__)))
    found = doctest.DocTestFinder(recurse=False).find(thing, name, globs=own | {"torch": torch})
    return [each for each in found if each.examples]


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_of_a_public_name_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEMDPO_CACHE", str(tmp_path / "cache"))
    thing = getattr(semdpo, name)
    text = inspect.getdoc(thing) or ""
    for heading in ("Args:", *(["Returns:"] if isinstance(thing, FunctionType) else []), "Raises:"):
        assert heading in text, f"{name} lacks {heading}"
    tests = _examples(thing, name)
    assert tests, f"{name} has no example"
    for test in tests:
        assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed == 0


@pytest.mark.parametrize("name", FORMULAS)
def test_the_example_of_an_objective_runs(name: str) -> None:
    formula = getattr(objectives, name)
    text = inspect.getdoc(formula) or ""
    assert all(heading in text for heading in ("Args:", "Returns:", "Raises:", "Example:")), name
    for test in _examples(formula, name):
        assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed == 0


def test_every_objective_has_its_formula() -> None:
    files = {each.name for each in pkgutil.iter_modules(objectives.__path__)} - {"base", "apply"}
    assert files == set(OBJECTIVES) == set(FORMULAS)
