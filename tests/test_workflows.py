"""Continuous integration runs what the Makefile has, on the versions that the package names, with few rights."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
# Stands for every program that the Makefile calls: notes its name and arguments.
NOTES = '#!/bin/sh\nmkdir -p .venv\necho "$(basename "$0") $*" >> "$NOTED"\n'


def _workflow(path: Path) -> dict[Any, Any]:
    return yaml.safe_load(path.read_text())


def _commands(path: Path) -> list[str]:
    return [step["run"] for job in _workflow(path)["jobs"].values() for step in job["steps"] if "run" in step]


def _made(path: Path) -> list[str]:
    """The targets of make, in the order of the calls."""
    return [target for command in _commands(path) for target in re.findall(r"^make ([\w-]+)$", command, re.MULTILINE)]


def _pythons() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", each) for each in project["classifiers"]]
    return [each[1] for each in found if each]


def test_there_are_two_workflows() -> None:
    assert [path.stem for path in WORKFLOWS] == ["newest", "tests"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_bounded_and_may_only_read(path: Path) -> None:
    whole = _workflow(path)
    assert whole["permissions"] == {"contents": "read"}
    assert "cancel-in-progress" in whole["concurrency"]
    assert whole[True].keys() <= {"push", "pull_request", "schedule", "workflow_dispatch"}, "YAML reads `on` as true"
    for name, job in whole["jobs"].items():
        assert "permissions" not in job, name
        assert 0 < job["timeout-minutes"] <= 60, name
        for action in (step["uses"] for step in job["steps"] if "uses" in step):
            assert re.fullmatch(r"actions/[\w-]+@v\d+", action), f"{name}: {action} is not pinned to a major version"
        assert any(step.get("with", {}).get("cache") == "pip" for step in job["steps"]), name


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_what_a_workflow_makes_is_in_the_makefile(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    made = _made(path)
    assert made
    assert set(made) <= targets
    assert [each for each in _commands(path) if "make" in each] == [f"make {each}" for each in made]


def test_tests_run_on_every_python_that_the_package_names() -> None:
    jobs = _workflow(ROOT / ".github/workflows/tests.yml")["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == _pythons()
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert requires == f">={_pythons()[0]}"
    conditions = [step["if"] for step in jobs["test"]["steps"] if step.get("run") in ("make test", "make coverage")]
    assert conditions == ["matrix.python != '3.11'", "matrix.python == '3.11'"], "each version runs the tests once"
    others = [step["with"]["python-version"] for name in ("check", "docs") for step in jobs[name]["steps"][1:2]]
    assert set(others) <= set(_pythons())


def test_lint_tests_and_documentation_are_all_made() -> None:
    assert _made(ROOT / ".github/workflows/tests.yml") == ["check", "test", "coverage", "docs"]


@pytest.fixture
def noted(tmp_path: Path) -> dict[str, list[str]]:
    """Makes the targets of each workflow in a new folder; returns what pip and pytest were asked."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name in ("python3", "pip", "pytest", "coverage", "ruff", "mypy", "mkdocs"):
        (bin_ / name).write_text(NOTES)
        (bin_ / name).chmod(0o755)
    calls: dict[str, list[str]] = {}
    for path in WORKFLOWS:
        folder = tmp_path / path.stem
        folder.mkdir()
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, folder)
        environment = {"PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}", "NOTED": str(tmp_path / f"{path.stem}.txt")}
        for target in _made(path):
            # A call for each, as in the workflow.
            subprocess.run(
                ["make", f"BIN={bin_}", target], cwd=folder, env=environment, check=True, capture_output=True
            )
        calls[path.stem] = Path(environment["NOTED"]).read_text().splitlines()
    return calls


def test_the_weekly_run_takes_the_newest_and_the_others_take_what_is_pinned(noted: dict[str, list[str]]) -> None:
    installs = {name: [call for call in calls if call.startswith("pip install")] for name, calls in noted.items()}
    assert len(installs["tests"]) == 1
    assert "--constraint constraints.txt" in installs["tests"][0]
    assert len(installs["newest"]) == 2
    assert all("constraint" not in call for call in installs["newest"])
    assert installs["newest"][1].endswith("--upgrade transformers diffusers trl")
    for name, calls in noted.items():
        assert any(re.search(r"^pytest .*-n 2 --dist worksteal$", call) for call in calls), name


def test_the_weekly_run_is_weekly() -> None:
    occasions = _workflow(ROOT / ".github/workflows/newest.yml")[True]
    assert "workflow_dispatch" in occasions
    (schedule,) = occasions["schedule"]
    minute, hour, day, month, weekday = schedule["cron"].split()
    assert (day, month) == ("*", "*")
    assert all(each.isdigit() for each in (minute, hour, weekday))


def test_the_quick_tests_are_those_that_are_not_marked_slow(noted: dict[str, list[str]], tmp_path: Path) -> None:
    environment = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "NOTED": str(tmp_path / "quick.txt")}
    command = ["make", f"BIN={tmp_path / 'bin'}", "test-fast"]
    subprocess.run(command, cwd=tmp_path / "tests", env=environment, check=True, capture_output=True)
    assert Path(environment["NOTED"]).read_text() == "pytest -n 2 --dist worksteal -m not slow\n"


def test_a_commit_is_checked_by_ruff_only() -> None:
    """mypy takes many seconds: it runs before a push."""
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    stages = {hook["id"]: hook["stages"] for hook in repository["hooks"]}
    assert stages == {"ruff-format": ["pre-commit"], "ruff": ["pre-commit"], "mypy": ["pre-push"]}
