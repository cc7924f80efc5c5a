"""Every fenced command and snippet of README and documentation is run, page by page, as a reader would go through it.

Commands are the real ones, in processes of their own (forked: tests/fork_server.py says why). Only sizes are smaller:
``semdpo`` is a script that adds them to commands that run a recipe. Published models are stand-ins of the same names
(tests/published.py).
"""

from __future__ import annotations

import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import yaml

from semdpo.recipe.load import RECIPES, load_recipe
from tests import published, tiny_models

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
# What takes longer than a test may, and what runs it instead.
NOT_RUN = {
    "make demo": "`.ci/run` runs the same pipeline at a smaller size",
    "make test": "it runs this test",
    "semdpo world build": "too long; tests/tiny_world_training/test_build.py builds two models, and all in miniature",
    "python benchmarks/study.py --out runs/study": "an hour and a half; tests/test_study.py runs it in miniature",
}
SMALL = [
    *("prompts.limit=24", "prompts.test_limit=6", "sft.steps=10", "sft.batch_size=8", "candidates.n=3"),
    *("label.renderer.steps=2", "train.epochs=1", "evaluate.renderer.steps=2", "evaluate.image_seeds=[0]"),
    *("sweep.alphas=[0,4,8]", "sweep.prompts.limit=6"),
]
MINE = [
    *("prompts.limit=12", "prompts.test_limit=4", "sft.steps=3", "candidates.n=2", "candidates.max_new_tokens=6"),
    *("label.renderer.steps=1", "evaluate.renderer.steps=1", "evaluate.image_seeds=[0]"),
]
BLOCK = re.compile(r"^(?P<indent> *)```(?P<language>\w+)\n(?P<text>.*?)^(?P=indent)```", re.DOTALL | re.MULTILINE)
NAMED = re.compile(r"`([\w.-]+\.(?:jsonl|yaml))`[^`]*\Z")
CODE = re.compile(r"`([^`]+)`")
FILE = re.compile(r"(?:src|tests|benchmarks|recipes|docs)/[\w./-]*|[\w./-]+\.py\b")
MODULE = re.compile(r"\bsemdpo\.(?!json\b)[\w.]*\w")


@dataclass(frozen=True)
class Snippet:
    """A fenced block; ``file`` is the name that the sentence before it gives it."""

    language: str
    text: str
    file: str | None


def snippets(page: Path) -> list[Snippet]:
    text = page.read_text()
    found = []
    for block in BLOCK.finditer(text):
        before = text[: block.start()].rstrip().rsplit("\n\n", 1)[-1]
        named = NAMED.search(before)
        body = re.sub(rf"^{block['indent']}", "", block["text"], flags=re.MULTILINE)
        found.append(Snippet(block["language"], body, named[1] if named else None))
    return found


def commands(snippet: Snippet) -> list[str]:
    lines = snippet.text.replace("\\\n", " ").splitlines()
    return [line for line in (each.split("  #")[0].strip() for each in lines) if line]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished small run of the demonstration."""
    from semdpo import pipeline

    return pipeline.run(load_recipe("tiny", SMALL), tmp_path_factory.mktemp("demo") / "tiny")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stand-ins for what is published."""
    folder = published.build_models(tmp_path_factory.mktemp("models"))
    tiny_models.sentence(folder / "sentence-transformers/all-MiniLM-L6-v2")
    return folder


@pytest.fixture
def here(tmp_path: Path, demo: Path, models: Path, python: Path) -> Iterator[Path]:
    """A reader's folder: a finished demonstration, and files of the reader's own."""
    shutil.copytree(demo, tmp_path / "runs/tiny")
    (tmp_path / "models").symlink_to(models)
    _write_own_files(tmp_path)
    published.write_prompts(tmp_path / "data")
    tiny_models.gpt2(tmp_path / "my/sft-model")
    script = f"""#!/bin/sh
case "$1 $2" in
  "demo "*|"run tiny"|"sweep tiny") set -- "$@" {" ".join(f"--set '{each}'" for each in SMALL)} ;;
  "doctor "*) set -- "$@" --no-measure ;;
  "run paper/"*) set -- "$@" {" ".join(f"--set '{each}'" for each in published.SMALL)} ;;
  "run mine.yaml") set -- "$@" {" ".join(f"--set '{each}'" for each in MINE)} ;;
esac
exec {python} -m semdpo "$@"
"""
    for folder in (tmp_path / "bin", tmp_path / ".venv/bin"):
        folder.mkdir(parents=True)
        (folder / "semdpo").write_text(script)
        (folder / "semdpo").chmod(0o755)
    (tmp_path / "bin/python").symlink_to(python)
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)  # some pages leave a hundred megabytes


def _write_own_files(folder: Path) -> None:
    shown = next(each for each in snippets(ROOT / "docs/howto/pairs.md") if each.file == "pairs.jsonl")
    (folder / "pairs.jsonl").write_text(shown.text)
    rows = [json.loads(line) for line in shown.text.splitlines()]
    weighed = [row | {"distance": 0.1 * k, "rejected_distance": 0.2} for k, row in enumerate(rows)]
    pd.DataFrame(weighed).to_parquet(folder / "weighed.parquet")
    tuning = (ROOT / "src/semdpo/tiny_world/data/tuning.jsonl").read_text().splitlines()
    asked = sorted((json.loads(line)["prompt"] for line in tuning), key=len)[:40]
    (folder / "my-prompts.txt").write_text("\n".join(asked) + "\n")
    pd.DataFrame({"prompt": asked}).to_csv(folder / "my.csv", index=False)
    rewrites = [{"prompt": each, "rewrite": f"{each}, oil"} for each in asked]
    (folder / "my-rewrites.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rewrites))
    pd.DataFrame(
        {"method": m, "prompt": p, "rewrite": f"{p}, {m}", "tokens": 9, "distance": 0.1, "clip": k / 9, "hps": len(m)}
        for m in ("dpo", "sem_dpo")
        for k, p in enumerate(asked[:6])
    ).to_csv(folder / "images.csv", index=False)


def _environment(here: Path) -> dict[str, str]:
    return os.environ | {
        "PATH": f"{here / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "SEMDPO_MODELS": str(here / "models"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(here / "datasets"),
        "OMP_NUM_THREADS": "1",
    }


def _run(asked: list[str], here: Path, shown: str) -> None:
    done = subprocess.run(asked, cwd=here, env=_environment(here), capture_output=True, text=True, check=False)
    # Of the stand-ins, one brings code of its own, which the doctor objects to.
    allowed = {0, 1} if shown.startswith("semdpo doctor paper/") else {0}
    assert done.returncode in allowed, f"{shown}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, shown


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if snippets(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_what_the_page_shows_runs(page: Path, here: Path) -> None:
    for snippet in snippets(page):
        match snippet.language:
            case "sh":
                for command in commands(snippet):
                    if command not in NOT_RUN:
                        _run(["sh", "-c", command], here, command)
            case "python":
                (here / "snippet.py").write_text(snippet.text)
                _run(["python", "snippet.py"], here, snippet.text)
            case "yaml" if snippet.text.startswith("--8<--"):
                assert (ROOT / snippet.text.split('"')[1]).is_file()
            case "yaml" if snippet.file:
                (here / snippet.file).write_text(snippet.text)
            case "yaml":
                _validate_part(yaml.safe_load(snippet.text), here)
            case "text":
                pass  # needs a server: tests/serve/test_page_of_docs.py runs it
            case "jsonl":
                assert (here / str(snippet.file)).read_text() == snippet.text
            case other:
                pytest.fail(f"{page.name} has a block of '{other}', which no test runs")


def _validate_part(part: dict[str, object], here: Path) -> None:
    """A part of a recipe is taken by the whole."""
    whole = yaml.safe_load((RECIPES / "tiny.yaml").read_text())
    for section, values in part.items():
        whole[section] = whole.get(section, {}) | values if isinstance(values, dict) else values
    (here / "whole.yaml").write_text(yaml.safe_dump(whole))
    load_recipe(str(here / "whole.yaml"))


def test_nothing_is_left_out_without_need() -> None:
    shown = {
        command for page in PAGES for each in snippets(page) if each.language == "sh" for command in commands(each)
    }
    assert NOT_RUN.keys() <= shown


def _codes(page: Path) -> list[str]:
    """What a page has between single backticks."""
    return CODE.findall(re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_modules_that_a_page_names_exist(page: Path) -> None:
    """Files are named from the project's folder, or, as the pages do where it is clear, from src/semdpo."""
    for code in _codes(page):
        for name in FILE.findall(code):
            pattern = name.rstrip("/").replace("NAME", "*")
            assert any(any(start.glob(pattern)) for start in (ROOT, ROOT / "src/semdpo")), f"there is no {name}"
        for name in MODULE.findall(code):
            pkgutil.resolve_name(name)


def test_the_check_of_names_sees_what_is_on_the_pages() -> None:
    codes = [code for page in PAGES for code in _codes(page)]
    files = {name for code in codes for name in FILE.findall(code)}
    assert {"stages/drift.py", "tests/training/test_trl.py", "benchmarks/study.py"} <= files
    assert "semdpo.objectives.kto" in {name for code in codes for name in MODULE.findall(code)}


@pytest.mark.slow
def test_the_demos_report_has_a_study_with_simulated_raters(demo: Path, tmp_path: Path) -> None:
    from semdpo import pipeline

    run = Path(shutil.copytree(demo, tmp_path / "run"))
    # So small a run trains DPO and Sem-DPO to the same rewrites; the user's own prompts have other images.
    recipe = load_recipe("tiny", [*SMALL, "report.baseline=human"])
    written = []
    for _ in range(2):
        pipeline.run(recipe, run, only="report")
        written.append(
            {path.relative_to(run): path.read_bytes() for path in run.rglob("report/**/*") if path.is_file()}
        )
    assert written[0] == written[1]
    section = written[0][Path("report/index.html")].decode().split("A study with simulated raters</h2>")[1]
    section = section.split("<h2>")[0]
    assert "The raters are simulated: no person took part" in section
    assert "9 simulated raters compared the images of Sem-DPO and the user's own prompt" in section.replace(
        "&#39;", "'"
    )
    assert Path("report/study/index.html") in written[0]


@pytest.mark.slow
def test_the_site_is_built_without_warnings_and_loads_nothing(tmp_path: Path) -> None:
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    asked = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(asked, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text()
        assert "arithmatex" not in text, f"a formula of {page.name} is not MathML"
        assert not re.search(r"<(?:script|img|iframe)[^>]* src=\"https?:", text), page.name
        assert not re.search(r"<link[^>]* rel=\"(?:stylesheet|preconnect)\"[^>]*https?:", text), page.name
    assert "<math" in (tmp_path / "method.html").read_text()
    assert "--fail-on" in (tmp_path / "reference/commands.html").read_text()
