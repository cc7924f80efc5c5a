"""What is optional: pyproject.toml, the code and the messages agree, and the commands on pairs need none of it."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import semdpo
from semdpo import extras, pipeline
from semdpo.errors import ConfigError
from semdpo.preflight import libraries
from semdpo.recipe.load import load_recipe
from semdpo.stages import drift
from semdpo.stages.flow import flow
from semdpo.stages.sweep import sweep_flow
from tests import tiny_models

ROOT = Path(semdpo.__file__).parent
PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
# Where a library's name differs from the one that is imported, or it comes with another one.
INSTALLED_AS = {
    "huggingface_hub": "transformers",
    "lazy_loader": "lazy-loader",
    "markupsafe": "jinja2",
    "pil": "pillow",
    "pydantic_core": "pydantic",
    "prometheus_client": "prometheus-client",
    "sentence_transformers": "sentence-transformers",
    "starlette": "fastapi",
    "tokenizers": "transformers",
    "yaml": "pyyaml",
}
# The files that only somebody with these extras reaches. All others belong to the core.
ONLY_WITH = {
    "render": (
        "models/renderer.py",
        "models/images.py",
        "models/scorers/",
        "tiny_world/painter.py",
        "tiny_world/people.py",
        "tiny_world/show.py",
        "tiny_world_training/",
    ),
    "report": ("reporting/", "analysis/length_control.py"),
    "mcp": ("mcp_server.py",),
    "serve": ("serve/", "web/"),
    "study": ("study/",),
    "gguf": tuple(f"exporting/{name}.py" for name in ("architectures", "gguf_file", "ollama", "vocabulary")),
}
CORE_AFTER_ALL = ("reporting/audit_page.py",)  # an audit's text and numbers

# Runs commands, one after the other, where the libraries of some extras cannot be imported.
COMMANDS = """
import contextlib, io, json, sys
from importlib.machinery import PathFinder
from semdpo import extras
hidden = {module for extra in json.loads(sys.argv[1]) for module in extras.EXTRAS[extra].values()}
class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in hidden else super().find_spec(name, path, target)
sys.meta_path = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
assert not hidden & sys.modules.keys()
from semdpo.cli import main
ends = []
for arguments in json.loads(sys.argv[2]):
    sys.argv = ["semdpo", *arguments]
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as end:
            ends.append([end.code, said.getvalue()])
print(json.dumps(ends))
"""


def _run(folder: Path, commands: Sequence[Sequence[str]]) -> list[tuple[int, str]]:
    """Exit code and stderr of commands that run without any extra."""
    arguments = [json.dumps(list(extras.EXTRAS)), json.dumps(commands)]
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [(code, said) for code, said in json.loads(done.stdout)]


def _names(requirements: Sequence[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9_-]", each)[0] for each in requirements}


def _imports(node: ast.AST, lazy: bool = False) -> Iterator[tuple[str, bool]]:
    """The libraries that a file imports, and whether it does so within a function; types alone do not count."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            names = [alias.name for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            names = [child.module or ""]
        else:
            yield from _imports(child, lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))
            continue
        for name in names:
            root = name.split(".")[0]
            if root not in sys.stdlib_module_names and root != "semdpo":
                yield INSTALLED_AS.get(root.lower(), root), lazy


def _extra_of(path: Path) -> str | None:
    name = path.relative_to(ROOT).as_posix()
    if name in CORE_AFTER_ALL:
        return None
    return next((extra for extra, places in ONLY_WITH.items() if name.startswith(places)), None)


FILES = {path: list(_imports(ast.parse(path.read_text()))) for path in sorted(ROOT.rglob("*.py"))}
CORE = {path: found for path, found in FILES.items() if _extra_of(path) is None}
OPTIONAL = {name for names in extras.EXTRAS.values() for name in names}


def test_the_files_that_are_not_of_the_core_are_there() -> None:
    for name in (*(place for places in ONLY_WITH.values() for place in places), *CORE_AFTER_ALL):
        assert (ROOT / name).exists(), name


def test_the_core_list_is_what_the_core_imports() -> None:
    imported = {name for found in CORE.values() for name, _ in found}
    assert _names(PROJECT["dependencies"]) == imported - OPTIONAL


@pytest.mark.parametrize("path", list(CORE), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_of_the_core_imports_nothing_optional_at_once(path: Path) -> None:
    assert {name for name, lazy in CORE[path] if not lazy} & OPTIONAL == set()


def test_extras_are_those_of_the_project() -> None:
    declared = PROJECT["optional-dependencies"]
    assert {extra: set(names) for extra, names in extras.EXTRAS.items()} == {
        extra: _names(declared[extra]) for extra in declared if extra not in ("all", "dev", "docs")
    }
    assert declared["all"] == [f"semdpo[{','.join(sorted(extras.EXTRAS))}]"]


@pytest.mark.parametrize("extra", ONLY_WITH)
def test_an_extra_brings_what_its_files_import(extra: str) -> None:
    imported = {name for path, found in FILES.items() if _extra_of(path) == extra for name, _ in found}
    assert imported - _names(PROJECT["dependencies"]) <= set(extras.EXTRAS[extra])
    everywhere = {name for found in FILES.values() for name, _ in found}
    assert set(extras.EXTRAS[extra]) <= everywhere, "nothing is installed that nobody imports"


def test_the_command_is_written_once() -> None:
    assert [path.name for path in FILES if "pip install 'semdpo" in path.read_text()] == ["extras.py"]


def test_what_is_absent_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    extras.require(render="rendering", report="the report", lora="train.lora")  # all are there
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError) as one:
        extras.require(render="rendering", lora="train.lora")
    assert str(one.value) == "train.lora needs peft; install it with: pip install 'semdpo[lora]'"
    for module in ("diffusers", "PIL", "ftfy"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError) as several:
        extras.require(render="rendering", lora="train.lora")
    assert str(several.value) == (
        "rendering needs diffusers, ftfy and pillow, and train.lora needs peft; "
        "install them with: pip install 'semdpo[render,lora]'"
    )


def test_a_stage_is_asked_what_it_needs(tmp_path: Path) -> None:
    recipe = load_recipe("tiny")
    assert set(libraries.wanted(recipe, tmp_path)) == {"render", "report", "study"}
    assert set(libraries.wanted(load_recipe("tiny", ["report.study=null"]), tmp_path)) == {"render", "report"}
    assert set(libraries.wanted(recipe, tmp_path, sweep_flow(recipe))) == {"render", "report"}
    stages = {stage.name: stage for stage in flow(recipe)}
    light = [stages[name] for name in ("prompts", "sft", "candidates", "pairs", drift.NAME, "train/sem_dpo")]
    assert libraries.wanted(recipe, tmp_path, light, report=False) == {}
    for name in ("label", "evaluate/human/images", "evaluate/human/hps", "evaluate/human/consistency"):
        assert libraries.wanted(recipe, tmp_path, [stages[name]], report=False).keys() == {"render"}, name


def test_a_cluster_is_asked_for_what_takes_long(tmp_path: Path) -> None:
    stages = {stage.name: stage for stage in flow(load_recipe("tiny", ["engine=ray"]))}
    for name, needed in {"prompts": {}, "sft": {}, "candidates": {"ray": "engine: ray"}, "pairs": {}}.items():
        assert libraries.wanted(load_recipe("tiny", ["engine=ray"]), tmp_path, [stages[name]], report=False) == needed


def test_what_is_finished_needs_nothing(tmp_path: Path) -> None:
    recipe = load_recipe("tiny", ["prompts.limit=2", "prompts.test_limit=2"])
    stages = flow(recipe)
    recipe = recipe.model_copy(update={"prompts": recipe.prompts.model_copy(update={"file": "hub:a/b"})})
    prompts = flow(recipe)[:1]
    assert libraries.wanted(recipe, tmp_path, prompts, report=False) == {"hub": "reading hub:a/b"}
    pipeline.run(load_recipe("tiny", ["prompts.limit=2", "prompts.test_limit=2"]), tmp_path, only=stages[0].name)
    assert libraries.wanted(recipe, tmp_path, prompts, report=False) == {}
    assert libraries.wanted(recipe, tmp_path, prompts, fresh=True, report=False).keys() == {"hub"}


def test_settings_and_models_need_extras(tmp_path: Path) -> None:
    sentence, adapters = tmp_path / "sentence", tmp_path / "adapters"
    sentence.mkdir()
    (sentence / "modules.json").write_text("[]")
    adapters.mkdir()
    (adapters / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "tiny:gpt2"}))
    values = [f"drift.encoder={sentence}", f"sft.model={adapters}", "train.lora={rank: 2}"]
    needed = libraries.wanted(load_recipe("tiny", values), tmp_path / "run")
    assert needed.keys() == {"lora", "sentence", "render", "report", "study"}
    assert needed["sentence"] == "drift.encoder"
    assert needed["lora"] == "sft.model, which holds adapters,"
    trained = [stage for stage in flow(load_recipe("tiny", values[2:])) if stage.name.startswith("train/")]
    assert libraries.wanted(load_recipe("tiny", values[2:]), tmp_path / "run", trained, report=False) == {
        "lora": "train.lora"
    }


@pytest.mark.slow
def test_the_commands_on_pairs_need_no_extra(tmp_path: Path) -> None:
    clip, gpt2 = tiny_models.clip(tmp_path / "clip"), tiny_models.gpt2(tmp_path / "gpt2")
    words = ["a red ball", "a cat", "a blue tree", "a house"]
    rows = [{"prompt": word, "chosen": f"{word}, oil", "rejected": f"{word} dog"} for word in words]
    (tmp_path / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    commands = [
        ["weigh", "pairs.jsonl", "-o", "weighed.parquet", "--encoder", str(clip)],
        ["audit", "weighed.parquet", "--json", "audit.json"],
        ["train", "weighed.parquet", "--model", str(gpt2), "-o", "out", "--batch-size", "2", "--max-length", "64"],
        ["optimize", "a red ball", "--model", "out", "--max-new-tokens", "4"],
        ["doctor", "tiny", "--no-measure"],
        ["world", "card"],
    ]
    ends = _run(tmp_path, commands)
    assert [code for code, _ in ends] == [0, 0, 0, 0, 1, 0], ends
    assert json.loads((tmp_path / "audit.json").read_text())["pairs"] == 4
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.slow
def test_what_needs_an_extra_is_refused_before_any_work(tmp_path: Path) -> None:
    row = {"prompt": "a cat", "chosen": "a cat, oil", "rejected": "a dog", "distance": 0.1}
    (tmp_path / "pairs.jsonl").write_text(f"{json.dumps(row)}\n")
    gpt2 = tiny_models.gpt2(tmp_path / "gpt2")
    commands = {
        "render,report,study": ["demo"],
        "report,render": ["sweep", "tiny"],
        "report": ["report", "pairs.jsonl", "-o", "page", "--fidelity", "x"],
        "report ": ["audit", "pairs.jsonl", "--html", "page.html"],
        "report,study": ["demo", "--only", "report"],
        "render": ["demo", "--only", "label"],
        "render ": ["world", "show"],
        "render  ": ["world", "build", "-o", "build"],
        "lora": ["train", "pairs.jsonl", "--model", str(gpt2), "-o", "out", "--lora-rank", "2"],
        "hub": ["audit", "hub:owner/name"],
        "mcp": ["mcp"],
        "ray": ["demo", "--only", "candidates", "--set", "engine=ray"],
        "serve": ["serve", "--model", str(gpt2)],
        "study": ["study", "serve", "study"],
        "study ": ["study", "page", "study", "--all", "-o", "pages"],
        "study  ": ["study", "check", "pages", "--study", "study"],
        "serve,render": ["serve", "--model", str(gpt2), "--renderer", "tiny:sd"],
    }
    before = {path.name for path in tmp_path.iterdir()}
    for (wanted, arguments), (code, said) in zip(
        commands.items(), _run(tmp_path, list(commands.values())), strict=True
    ):
        assert code == 2, said
        lines = said.splitlines()
        assert len(lines) == 1, lines
        named = re.search(r"; install (?:it|them) with: pip install 'semdpo\[(.+)\]'$", lines[0])
        assert named, said
        assert set(named[1].split(",")) == set(wanted.strip().split(",")), arguments
    assert {path.name for path in tmp_path.iterdir()} == before, "nothing is written"
