"""Published sets of prompts: small files in their real forms, one hash for all forms, and what is refused."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from semdpo.data import benchmarks
from semdpo.data.benchmark_files import Entry, read_benchmark
from semdpo.data.benchmarks import BENCHMARKS, BYTES, content_hash, likeness, short_hashes
from semdpo.engine import fingerprint
from semdpo.errors import DataError
from semdpo.recipe.benchmarks import KNOWN

QUOTED = '"G O" painted on a wall, "twice"'  # as one of PartiPrompts: it begins with a quotation mark
PARTI = [("bond", "Abstract"), (QUOTED, "Illustrations"), (" a café. It rains. ", "Outdoor Scenes")]


def _tsv(folder: Path) -> Path:
    lines = ["Prompt\tCategory\tChallenge\tNote", *(f"{text}\t{category}\tBasic\t" for text, category in PARTI)]
    (folder / "PartiPrompts.tsv").write_text("\n".join(lines) + "\n")
    return folder / "PartiPrompts.tsv"


def _jsonl(folder: Path) -> Path:
    rows = [{"prompt": text, "category": category, "challenge": "Basic"} for text, category in PARTI]
    (folder / "parti.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    return folder / "parti.jsonl"


def _csv(folder: Path) -> Path:
    with (folder / "parti.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")  # as a spreadsheet writes it, with a byte order mark
        writer.writerows([("Prompt", "Category"), *PARTI])
    return folder / "parti.csv"


def _lines(folder: Path) -> Path:
    (folder / "parti.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join([t for t, _ in PARTI] + [""]).encode())
    return folder / "parti.txt"


def _texts(name: str, source: Path) -> list[str]:
    return [entry.prompt for entry in read_benchmark(name, str(source)).entries]


@pytest.mark.parametrize("write", [_tsv, _jsonl, _csv, _lines])
def test_all_forms_of_a_set_have_one_hash(write: Callable[[Path], Path], tmp_path: Path) -> None:
    path = write(tmp_path)
    found = read_benchmark("partiprompts", str(path))
    assert {entry.prompt for entry in found.entries} == {text.strip() for text, _ in PARTI}
    assert content_hash(entry.prompt for entry in found.entries) == content_hash(text for text, _ in PARTI)
    if path.suffix != ".txt":
        assert Entry(QUOTED, "Illustrations") in found.entries
    assert found.duplicates == 0


def test_datasets_reads_a_set_and_drops_the_quotes_that_one_prompt_begins_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "set").mkdir()
    _tsv(tmp_path / "set")
    found = read_benchmark("partiprompts", f"hub:{tmp_path / 'set'}").entries
    assert [entry.category for entry in found] == [category for _, category in PARTI]
    assert [entry.prompt for entry in found] == ["bond", QUOTED.replace('"G O"', "G O"), PARTI[2][0].strip()]


def test_the_hash_follows_every_word_and_no_form() -> None:
    texts = [text for text, _ in PARTI]
    assert content_hash(reversed(texts)) == content_hash(texts)
    assert content_hash(["a  cafe\u0301.\tIt rains.", *texts[:2]]) == content_hash(texts), "blanks and Unicode's form"
    others = (texts[:2], [*texts, "bond"], [*texts[:2], "a café, it rains"], ["Bond", *texts[1:]], ["bond\n" + QUOTED])
    hashes = {content_hash(other) for other in others}
    assert len(hashes) == len(others)
    assert content_hash(texts) not in hashes


def test_drawbench(tmp_path: Path) -> None:
    path = tmp_path / "DrawBench.csv"
    path.write_text('Prompts,Category\nA red car.,Colors\n"A pear, cut.",Gary Marcus et al. \n')
    assert read_benchmark("drawbench", str(path)).entries == [
        Entry("A red car.", "Colors"),
        Entry("A pear, cut.", "Gary Marcus et al."),
    ]


def test_geneval(tmp_path: Path) -> None:
    path = tmp_path / "evaluation_metadata.jsonl"
    row = {"tag": "counting", "include": [{"class": "cup", "count": 3}], "exclude": [{"class": "cup", "count": 4}]}
    path.write_text(json.dumps(row | {"prompt": "a photo of three cups"}) + "\n")
    assert read_benchmark("geneval", str(path)).entries == [Entry("a photo of three cups", "counting")]
    plain = tmp_path / "generation_prompts.txt"
    plain.write_text("a photo of three cups\n\n")
    assert _texts("geneval", plain) == _texts("geneval", path)


def test_geneval2(tmp_path: Path) -> None:
    path = tmp_path / "geneval2_data.jsonl"
    row = {"prompt": "two metal cups", "atom_count": 3, "vqa_list": [["Are the cups metal?", "Yes"]], "skills": ["x"]}
    path.write_text(json.dumps(row) + "\n")
    assert read_benchmark("geneval2", str(path)).entries == [Entry("two metal cups", "3 atoms")]


def test_t2i_compbench_reads_the_files_of_its_folder_that_end_with_val(tmp_path: Path) -> None:
    files = {"color_val": "a red cup\r\na blue bowl\r\n", "complex_val": "a cup on a bowl", "color_train": "no"}
    for name, text in (files | {"color_val_seen": "no", "color": "no"}).items():
        (tmp_path / f"{name}.txt").write_bytes(text.encode())
    entries = read_benchmark("t2i-compbench", str(tmp_path)).entries
    assert entries == [Entry("a red cup", "color"), Entry("a blue bowl", "color"), Entry("a cup on a bowl", "complex")]
    assert read_benchmark("t2i-compbench", str(tmp_path / "complex_val.txt")).entries == entries[2:]


def test_dpg_bench_as_a_folder_and_as_its_table_are_the_same(tmp_path: Path) -> None:
    prompts = {"0": "A cup, seen\nfrom above.", "stanford12": "A bowl.", "COCOval2014000000010363": "A cat."}
    folder, table = tmp_path / "prompts", tmp_path / "dpg_bench.csv"
    folder.mkdir()
    for name, text in prompts.items():
        (folder / f"{name}.txt").write_text(text)
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", "text", "keywords", "proposition_id", "question_natural_language"])
        writer.writerows([n, text, "", k, "Is there one?"] for n, text in prompts.items() for k in (1, 2, 3))
    found, in_rows = read_benchmark("dpg-bench", str(folder)), read_benchmark("dpg-bench", str(table))
    assert sorted(found.entries, key=str) == sorted(in_rows.entries, key=str)
    assert {entry.category for entry in found.entries} == {"numbered", "stanford", "COCOval"}
    assert (found.duplicates, in_rows.duplicates) == (0, 0), "rows about one prompt are no repetitions"


def test_repeated_prompts_count_once(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("Prompts,Category\na,X\nb,X\na,Y\n a ,Z\n")
    found = read_benchmark("drawbench", str(path))
    assert (found.entries, found.duplicates) == ([Entry("a", "X"), Entry("b", "X")], 2)


@pytest.mark.parametrize(
    ("name", "file", "content", "said"),
    [
        (
            "drawbench",
            "d.csv",
            b"Question,Category\na,b\n",
            r"is not DrawBench: none of its columns \('Question'",
        ),
        ("partiprompts", "p.tsv", b"", "p.tsv is empty"),
        ("partiprompts", "p.tsv", b"Prompt\tCategory\n", "p.tsv is empty"),
        ("partiprompts", "p.txt", b"\n\n", r"has no prompts; give its file PartiPrompts\.tsv, from github\.com/google"),
        ("partiprompts", "p.pdf", b"x", r"unknown suffix; give its file PartiPrompts\.tsv"),
        ("geneval", "g.jsonl", b'{"prompt": "caf\xe9"}\n', "is not UTF-8"),
        ("geneval", "g.txt", b"a\r\ncaf\xe9\r\n", r"is not UTF-8 \(byte 6, line 2\)"),
        ("geneval", "g.jsonl", b"not json\n", "line 1: this is not JSON"),
        ("geneval", "g.jsonl", b'{"prompt": 3}\n', "line 1: 'prompt' must be text, not int"),
        ("drawbench", "d.csv", b"Prompts\n\xe2\x80\x8b\n", "invisible"),
    ],
)
def test_what_is_not_of_the_form_is_refused(name: str, file: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_benchmark(name, str(tmp_path / file))


def test_missing_files_and_folders_without_the_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        read_benchmark("drawbench", str(tmp_path / "none.csv"))
    with pytest.raises(DataError, match="is a folder, and DrawBench is one file"):
        read_benchmark("drawbench", str(tmp_path))
    (tmp_path / "color.txt").write_text("a red cup")
    with pytest.raises(DataError, match=r"has no file \*_val\.txt; give its folder examples/dataset"):
        read_benchmark("t2i-compbench", str(tmp_path))
    (tmp_path / "0.txt").write_text(" \n")
    with pytest.raises(DataError, match=r"0\.txt, the whole file: 'prompt' is empty"):
        read_benchmark("dpg-bench", str(tmp_path))


def test_a_folders_fingerprint_follows_its_text_files(tmp_path: Path) -> None:
    (tmp_path / "color_val.txt").write_text("a red cup")
    before = fingerprint.rows(str(tmp_path), texts=True)
    (tmp_path / "notes.md").write_text("not a prompt")
    assert fingerprint.rows(str(tmp_path), texts=True) == before
    (tmp_path / "color_val.txt").write_text("a red cap")
    changed = fingerprint.rows(str(tmp_path), texts=True)
    (tmp_path / "color_val.txt").rename(tmp_path / "shape_val.txt")
    assert len({before, changed, fingerprint.rows(str(tmp_path), texts=True)}) == 3


# ------------------------------------------------------------------------------------------------- published or not


def test_every_set_is_described_and_its_prompts_are_known() -> None:
    assert BENCHMARKS.keys() == KNOWN.keys()
    shipped = json.loads(benchmarks._PROMPTS.read_text())
    for name, known in BENCHMARKS.items():
        hashes = base64.b64decode(shipped[name])
        assert len({hashes[k : k + BYTES] for k in range(0, len(hashes), BYTES)}) == known.prompts, name
        assert known.sha256 is not None, name
        assert len(known.sha256) == 64, name
    known = {"drawbench": "A red colored car.", "geneval": "a photo of a bench", "geneval2": "two metal toys"}
    for name, prompt in known.items():
        assert likeness(name, [prompt, "no such prompt"]).equal == 1, name
        assert likeness(name, [prompt.upper()]).equal == 0, "another case is another prompt"


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """DrawBench with three prompts."""
    prompts = ["one", "two", "three"]
    known = replace(BENCHMARKS["drawbench"], prompts=3, sha256=content_hash(prompts))
    monkeypatch.setitem(BENCHMARKS, "drawbench", known)
    hashes = base64.b64decode(short_hashes(prompts))
    found = frozenset(hashes[k : k + BYTES] for k in range(0, len(hashes), BYTES))
    monkeypatch.setattr(benchmarks, "_published", lambda name: found)
    return prompts


@pytest.mark.parametrize(
    ("prompts", "limited", "said"),
    [
        (["three", "two", " one "], False, "the published prompts"),
        (["one", "two"], True, "not all of the published prompts: 2 of 3, as the recipe's limit asks"),
        (["one", "two"], False, "not all of the published prompts: 2 of 3"),
        (["one", "two", "four"], False, "not the published prompts: 2 of 3 equal, and 1 other"),
        (["one", "two", "three", "4", "5"], False, "not the published prompts: 3 of 3 equal, and 2 others"),
        (["one", "two", "three", " two"], False, "not the published prompts: 3 of 3 equal, and 1 other"),
        (["two", " two"], False, "not the published prompts: 1 of 3 equal, and 1 other"),
        (["four"], True, "not the published prompts: 0 of 3 equal, and 1 other, as the recipe's limit asks"),
    ],
)
def test_other_prompts_than_the_published_ones_are_named_so(
    three: list[str], prompts: list[str], limited: bool, said: str
) -> None:
    assert str(likeness("drawbench", prompts, limited=limited)) == said


def test_a_set_without_a_hash_says_so(three: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BENCHMARKS, "drawbench", replace(BENCHMARKS["drawbench"], sha256=None))
    monkeypatch.setattr(benchmarks, "_published", lambda name: frozenset())
    said = str(likeness("drawbench", three))
    assert said == "3 prompts; nobody has checked whether they are the published ones"
