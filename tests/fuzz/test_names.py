"""Names that no file can have, and notes of ours that hold something else."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from semdpo import store, timing
from semdpo.errors import SemdpoError
from tests.fuzz.corpus import TABLES
from tests.fuzz.harness import PAIR, REPEATABLE, check, commands, run
from tests.fuzz.test_recipes import RECIPES, SETTINGS

# ------------------------------------------------------------------------------------------------- names, notes


@pytest.mark.parametrize(
    "name",
    ["x" * 300, "x" * 300 + ".jsonl", "x" * 5000 + ".csv", "a\x00b.jsonl", "\x1b[2J.csv", "hub:", "tiny:../x", ".", ""],
)
def test_names(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    good = tmp_path / "good.jsonl"
    good.write_text(json.dumps({**PAIR, "distance": 0.1}))
    page = str(tmp_path / f"{name}.html")
    tried = [
        *commands(name, tmp_path),
        ["run", f"{name}.yaml"],
        ["run", name],
        ["doctor", name],
        ["audit", str(good), "--html", page],
    ]
    tried += [["weigh", str(good), "-o", f"{name}.csv"], ["train", str(good), "--model", name, "-o", "m"]]
    for arguments in tried:
        if "\x00" not in "".join(arguments):  # which no shell can pass
            code = (
                check(arguments, tmp_path, lines=None)
                if arguments[-1] != page and "-o" not in arguments
                else run(*arguments)[0]
            )
            assert code in (0, 2), arguments


NOTES = [
    b"",
    b"{",
    b"[]",
    b"3",
    b'"a"',
    b"null",
    b"\xff",
    b"[" * 20_000,
    b'{"counts": 3, "seconds": "x"}',
    b'{"counts": {"rows": "x"}}',
    b'{"config": []}',
]


@pytest.mark.parametrize("content", NOTES, ids=range(len(NOTES)))
def test_notes_of_another_content(content: bytes, tmp_path: Path) -> None:
    for name in ("manifest.json", "started.json", "timing.json"):
        (tmp_path / name).write_bytes(content)
    assert timing.seconds(tmp_path) == 0
    for read in (store.row_counts, store.made_with, lambda folder: store.disagreement(folder, store.Plan({}, {}))):
        with contextlib.suppress(SemdpoError):
            read(tmp_path)
    with pytest.raises(SemdpoError):
        store.disagreement(tmp_path, store.Plan({}, {}))


def test_the_corpus_is_large() -> None:
    drawn = 6 * REPEATABLE.max_examples
    assert len(TABLES) + 40 + len(RECIPES) + 4 + len(SETTINGS) + len(NOTES) + drawn >= 700
