"""Names that no file can have, and notes of ours that hold something else."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from semdpo.engine import store, timing
from semdpo.errors import SemdpoError
from tests.fuzz.corpus import TABLES
from tests.fuzz.harness import PAIR, REPEATABLE, commands, is_clean, run
from tests.fuzz.test_bombs import BOMBS, LONG, REPEATED
from tests.fuzz.test_recipes import RECIPES, SETTINGS
from tests.fuzz.test_shown import HOSTILE
from tests.fuzz.test_special_files import ALL, NAMES, SPECIAL

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
            code, _, err = run(*arguments)
            assert code in (0, 2), arguments
            assert is_clean(err), arguments
            assert "Traceback" not in err, arguments


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no folder that nobody can write to")
def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    good = tmp_path / "good.jsonl"
    good.write_text(json.dumps({**PAIR, "distance": 0.1}))
    for arguments in (
        ["weigh", str(good), "-o", "/proc/x.csv"],
        ["audit", str(good), "--html", "/proc/x.html"],
        ["audit", str(good), "--json", "/proc/x.json"],
        ["train", str(good), "--model", "tiny:gpt2", "-o", "/proc/x"],
        ["train", str(good), "--model", "tiny:gpt2", "-o", str(tmp_path / "m"), "--cache", "/proc/x"],
    ):
        code, _, err = run(*arguments)
        assert code == 2, arguments
        assert "/proc/x" in err.splitlines()[-1]
        assert "cannot be written" in err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == [good.name]


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
    for read in (store.counts, store.library_versions, lambda folder: store.mismatch(folder, store.Plan({}, {}))):
        with contextlib.suppress(SemdpoError):
            read(tmp_path)
    assert "is damaged" in str(store.mismatch(tmp_path, store.Plan({}, {})))


def test_the_corpus_is_large() -> None:
    drawn = 6 * REPEATABLE.max_examples
    by_hand = len(TABLES) + 40 + len(RECIPES) + 4 + len(SETTINGS) + len(NOTES)
    special = len(SPECIAL) * (len(ALL) + 9) + len(NAMES) + len(BOMBS) + len(LONG) + len(REPEATED) + len(HOSTILE)
    assert by_hand + special + drawn >= 1200
