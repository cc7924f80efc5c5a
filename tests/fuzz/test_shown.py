"""What others wrote stays text: in pages, in tables for spreadsheets, and in the names of files that are written."""

from __future__ import annotations

import csv
import json
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from semdpo.data.pairs import pairs_of, write_pairs
from semdpo.data.tables import read_table
from semdpo.errors import ConfigError
from semdpo.recipe.load import RECIPES, load_recipe
from tests.fuzz.corpus import lines
from tests.fuzz.harness import PAIR, check, refuse_formulas, run

REAL = True  # pages are written
HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "<!-- a",
    "]]><b>",
    "&lt;b&gt;&amp;&#60;",
    "{{ 7*7 }}{% raw %}",
    "${7*7}",
    "$x^{$",
    "\\input{/etc/passwd}",
    "javascript:alert(1)",
    "=1+1",
    "=cmd|' /C calc'!A0",
    "+1+cmd",
    "-1+1",
    "@SUM(1)",
    "＝1＋1",
    "a;=1+1",
    'a","=1+1',
    "../../x",
    "/etc/passwd",
    "\u202egnp.x",
    "a\x1b[2Jb",
    "a\nb",
    "a\u2028b",
    "%s%n{}",
)


class Tags(HTMLParser):
    """Counts a page's elements, and notes what could run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.runs: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[tag] += 1
        self.runs += [name for name, value in attrs if name.startswith("on") or "javascript:" in (value or "")]


def _page(path: Path) -> Tags:
    return Tags(path.read_text(encoding="utf-8"))


def test_the_page_of_an_audit(tmp_path: Path) -> None:
    """A page about hostile pairs has the elements of a page about harmless ones."""
    pages = []
    for name, texts in (("harmless", [f"text {k}" for k in range(len(HOSTILE))]), ("hostile", list(HOSTILE))):
        rows = [
            {"prompt": text, "chosen": f"{text} c", "rejected": f"{text} r", "distance": 0.1 + k / 100}
            for k, text in enumerate(texts)
        ]
        (tmp_path / f"{name}.jsonl").write_bytes(lines(*rows, *rows))
        page = tmp_path / f"{name}.html"
        assert run("audit", str(tmp_path / f"{name}.jsonl"), "--html", str(page), "--json", f"{page}.json")[0] == 0
        pages.append(_page(page))
        assert not pages[-1].runs
        json.loads(Path(f"{page}.json").read_text())
    assert pages[0].found == pages[1].found


def _scored(methods: list[str], texts: list[str]) -> bytes:
    return lines(*(
        {
            "method": method, "prompt": text, "rewrite": f"{text} in oil", "tokens": 3 + k, "distance": 0.1,
            "clip": 0.2 + k / 100 + j / 50, "=clip": 0.1 * j + k / 90, "source": text,
        }
        for j, method in enumerate(methods)
        for k, text in enumerate(texts)
    ))  # fmt: skip


@pytest.mark.slow
def test_the_report_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Methods, prompts, rewrites, sources, a metric, the title and the file are all hostile."""
    monkeypatch.chdir(tmp_path)
    texts = [text for text in HOSTILE if "\n" not in text]
    pages = []
    for name, methods, used in (
        ("harmless", ["a", "b", "c"], [f"text {k}" for k in range(len(texts))]),
        ("=hostile<b>", ["../../x", "<script>alert(1)</script>", "=1+1 $x^{$"], texts),
    ):
        Path(f"{name}.jsonl").write_bytes(_scored(methods, used))
        out = Path("reports") / str(len(pages))
        asked = ["--fidelity", "clip", "--preference", "=clip", "--subject", methods[0], "--baseline", methods[1]]
        assert run("report", f"{name}.jsonl", "-o", str(out), *asked, "--title", f"{name}</title><script>")[0] == 0
        pages.append(_page(out / "index.html"))
        assert not pages[-1].runs
        assert not pages[-1].found["script"]
        for table in out.rglob("*.csv"):
            refuse_formulas(table)
    assert pages[0].found["img"] == pages[1].found["img"]
    written = {path.relative_to("reports/1").as_posix() for path in Path("reports/1").rglob("*")}
    assert written == {path.relative_to("reports/0").as_posix() for path in Path("reports/0").rglob("*")}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["=hostile<b>.jsonl", "harmless.jsonl", "reports"]


def test_cells_of_a_spreadsheet(tmp_path: Path) -> None:
    """Own columns, their names and texts; what is read again is what was there."""
    rows = [{**PAIR, "prompt": f"{text} p".strip(), "own": text, "=own": text, "distance": 0.1} for text in HOSTILE]
    (tmp_path / "p.jsonl").write_bytes(lines(*rows))
    for out in (tmp_path / "out.csv", tmp_path / "out.tsv"):
        table = read_table(tmp_path / "p.jsonl")
        write_pairs(out, pairs_of(table), table.columns)
        back = read_table(out)
        for name in ("prompt", "own", "=own"):
            assert list(back.columns[name]) == [row[name] for row in rows]
        with out.open(encoding="utf-8", newline="") as file:
            assert len(list(csv.reader(file, delimiter="\t" if out.suffix == ".tsv" else ","))) == len(rows) + 1
    refuse_formulas(tmp_path / "out.csv")


# ------------------------------------------------------------------------------------------------- paths, runs

PATHS = (
    *("../x", "/x", "..", ".", "a/../../x", "a/b", "a\\b", "\x00", "x" * 300, "con/../x", "~", "a\n", "-a", "A", " "),
    "\u00e9",
)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("place", ["name", "train.methods.{}.name", "evaluate.metrics.{}", "prompts.test_sets.{}.file"])
def test_names_in_a_recipe_are_no_paths(name: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    recipe = yaml.safe_load((RECIPES / "tiny.yaml").read_text())
    if place == "name":
        recipe["name"] = name
    else:
        section, field, *_ = place.split(".")
        inner = recipe.setdefault(section, {}).setdefault(field, {})
        inner[name] = {"name": "dpo"} if field == "methods" else "tiny:clip" if field == "metrics" else {"file": "x"}
    Path("mine.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(ConfigError, match=r"it must be of small letters|cannot be a name"):
        load_recipe("mine.yaml")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "../../../../etc/passwd", "tiny/../../x", "..", "~"])
def test_names_on_the_command_line_are_no_paths(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (
        ["init", name],
        ["run", name],
        ["doctor", name],
        ["sweep", name],
        ["run", "tiny", "--only", name, "-o", "run"],
        ["audit", f"tiny:{name}"],
        ["optimize", "a cat", "--model", f"tiny:{name}"],
        ["world", "build", name, "-o", "built"],
    ):
        assert check(arguments, tmp_path) == 2, arguments


NOTES = (
    *(b"", b"{", b"[]", b"null", b"3", b"\xff", b"[" * 20_000, b'{"name": "x"}', b"{}" * 600_000),
    "{}".encode("utf-16"),
)


@pytest.mark.parametrize("content", NOTES, ids=range(len(NOTES)))
@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_a_run_with_another_recipe(command: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/recipe.json").write_bytes(content)
    code, _, err = run(command, str(tmp_path / "run"))
    assert code == 2
    assert all("recipe.json" in line for line in err.splitlines())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["recipe.json"]
