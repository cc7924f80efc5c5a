"""Every kind of file that users have: read as it is, or refused in a sentence that names file, row and cure."""

from __future__ import annotations

import csv
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semdpo.data.pairs import other_scores, read_pairs, read_rewrites
from semdpo.data.prompts import read_prompts
from semdpo.data.tables import Table, read_table
from semdpo.errors import DataError
from semdpo.recipe.prompts import PromptsConfig
from semdpo.stages.prompts import collect

PAIR = {"prompt": "a cat", "chosen": "a cat on a mat", "rejected": "a dog"}


def _jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("PAIRS.CSV", "prompt,chosen,rejected\na,b c,d\n"),
        ("pairs.tsv", "prompt\tchosen\trejected\na\tb c\td\n"),
        ("cr.csv", "prompt,chosen,rejected\ra,b c,d\r"),
        ("semicolons.csv", "prompt;chosen;rejected\r\na;b c;d\r\n"),
        ("spreadsheet.csv", "prompt,chosen,rejected,,\na,b c,d,,\n"),
        ("bom.tsv", "\ufeffprompt\tchosen\trejected\na\tb c\td\n"),
        ("cr.jsonl", '{"prompt": "a", "chosen": "b c",\t"rejected": "d"}\r'),
        ("list.JSON", '[{"prompt": "a", "chosen": "b c", "rejected": "d"}]'),
        ("blanks.jsonl", '{"prompt": "\\ufeffa ", "chosen": " b c\\n", "rejected": "\\u200bd"}'),
    ],
)
def test_pairs_of_every_form(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content.encode())
    (pair,) = read_pairs(tmp_path / name)
    assert (pair.prompt, pair.chosen, pair.rejected) == ("a", "b c", "d")


def test_a_large_cell_is_read_and_pythons_limit_stays(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    (tmp_path / "p.csv").write_text('prompt,chosen,rejected\na,"' + "x" * 200_000 + '",b\n')
    assert len(read_pairs(tmp_path / "p.csv")[0].chosen) == 200_000
    assert csv.field_size_limit() == before


def test_a_row_of_several_lines_is_named_by_its_first(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text('prompt,chosen,rejected\n"a\nb",c,d\na,"\n\n",c\n')
    with pytest.raises(DataError, match=r"p\.csv, line 4: 'chosen' is empty"):
        read_pairs(tmp_path / "p.csv")


def test_quotation_marks_of_a_tsv_file_are_text_where_they_are_no_quotes(tmp_path: Path) -> None:
    """As in PartiPrompts.tsv, where nothing is quoted; and as a spreadsheet writes it, where cells are."""
    path = tmp_path / "PartiPrompts.tsv"
    path.write_text('Prompt\tNote\n"Fly" on a wall\tx\na wall that says "Fly"\ty\n"a\tx\nb" c\ty\n')
    assert read_prompts(path) == ['"Fly" on a wall', 'a wall that says "Fly"', '"a', 'b" c']
    path.write_text('Prompt\tNote\n"a ""fine"" cat\nin two lines"\tx\n')
    assert read_prompts(path) == ['a "fine" cat\nin two lines']


@pytest.mark.parametrize(
    "content", [b"a cat\ra dog", b"a cat\r\na dog\r\n", b"\xef\xbb\xbfa cat\na dog\n", b" a cat\na dog \na cat"]
)
def test_lines(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "p.TXT").write_bytes(content)
    assert read_prompts(tmp_path / "p.TXT") == ["a cat", "a dog"]


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("1e-1", 0.1),
        (" .5 ", 0.5),
        ("+1.", 1.0),
        (Decimal("0.25"), 0.25),
        (2, 2.0),
        ("", None),
        ("  ", None),
        (None, None),
    ],
)
def test_numbers(value: Any, number: float | None) -> None:
    assert Table("t", {"x": [value]}, ["row 1"]).numbers("x") == [number]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("0,5", "must be a number, not '0,5'; write it with a decimal point"),
        ("1_000", "must be a number, not '1_000'; correct it"),
        ("٣", "must be a number"),
        ("nan", "is nan; remove the row"),
        (10**400, "is 1000.*…, which is too large to compute with"),
        (Decimal("NaN"), "is NaN; remove the row"),
        (1e300, r"is 1e\+300, which is too large to compute with"),
        (True, "must be a number, not bool"),
    ],
)
def test_what_is_no_number(value: Any, said: str) -> None:
    with pytest.raises(DataError, match=rf"t, row 1: 'x' {said}"):
        Table("t", {"x": [value]}, ["row 1"]).numbers("x")


def test_booleans_and_whole_numbers() -> None:
    table = Table("t", {"x": [True, "False", "true", 0.5], "y": [2**62 + 1, "7", 3.0, Decimal(4)]}, ["row"] * 4)
    assert table.numbers("x", booleans=True) == [1.0, 0.0, 1.0, 0.5]
    assert table.whole_numbers("y", 2**63 - 1) == [2**62 + 1, 7, 3, 4]
    with pytest.raises(DataError, match="must be a whole number ≥ 0 and ≤ 9"):
        table.whole_numbers("y", 9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "\u200b\u2060",
            r"shows nothing, because all its characters are invisible \(U\+200B, U\+2060\); fill it",
        ),
        ("\u3164\u2800", r"shows nothing.*U\+3164, U\+2800"),
        ("\ufe0f", "shows nothing"),
        ("\x00\x1b", "shows nothing"),
        (" \n", "is empty; fill it or remove the row"),
        ("a cat \ud83d", r"holds half a character \(\\ud83d\).*replace it or remove the row"),
        ("\ud83d", "holds half a character"),
    ],
)
def test_texts_that_no_one_can_use(text: str, said: str, tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "p.jsonl", PAIR, {**PAIR, "prompt": text})
    for read in (read_pairs, read_prompts):
        with pytest.raises(DataError, match=rf"p\.jsonl, line 2: 'prompt' {said}"):
            read(path)
    with pytest.raises(DataError, match=rf"p\.jsonl, line 1: 'rewrite' {said}"):
        read_rewrites(_jsonl(path, {"prompt": "a", "rewrite": text}))


@pytest.mark.parametrize("text", ["❤️", "a", "'", "\ue000", "👩‍🚀", "日本", "\u0301a"])
def test_texts_that_are_seen(text: str, tmp_path: Path) -> None:
    assert read_prompts(_jsonl(tmp_path / "p.jsonl", {"prompt": text})) == [text]


def test_rows_that_show_nothing_can_be_left_out(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "p.jsonl", {"prompt": "\u200b"}, {"prompt": None}, {"prompt": "a"})
    assert read_prompts(path, skip_empty=True) == ["a"]


def test_sides_that_are_equal_without_their_blanks_are_refused(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "p.jsonl", {**PAIR, "rejected": " a cat on a mat\u200b\n"})
    with pytest.raises(DataError, match="line 1: chosen and rejected are the same text; remove the row"):
        read_pairs(path)


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (("score_chosen", "score_rejected"), True),
        (("chosen-rating", "rejected-rating"), True),
        (("Reward Chosen", "Reward Rejected"), True),
        (("chosen_length", "rejected_length"), False),
    ],
)
def test_scores_under_other_names(names: tuple[str, str], taken: bool, tmp_path: Path) -> None:
    (pair,) = read_pairs(_jsonl(tmp_path / "p.jsonl", PAIR | dict(zip(names, (7.0, "3"), strict=True))))
    assert (pair.chosen_score, pair.rejected_score) == ((7.0, 3.0) if taken else (None, None))
    note = other_scores([read_table(tmp_path / "p.jsonl")]).note
    assert note == (f"the scores are those of '{names[0]}' and '{names[1]}'" if taken else "")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"score_chosen": 7}, "the other side has no such score"),
        ({"score_chosen": "good", "score_rejected": "bad"}, "they hold values that are not numbers"),
    ],
)
def test_scores_that_are_none_are_mentioned(more: dict[str, Any], said: str, tmp_path: Path) -> None:
    (pair,) = read_pairs(_jsonl(tmp_path / "p.jsonl", PAIR | more))
    assert pair.chosen_score is None
    assert said in other_scores([read_table(tmp_path / "p.jsonl")]).note


def test_own_scores_come_before_others(tmp_path: Path) -> None:
    row = PAIR | {"chosen_score": 1.0, "rejected_score": 0.0, "score_chosen": 9.0, "score_rejected": 8.0}
    (pair,) = read_pairs(_jsonl(tmp_path / "p.jsonl", row))
    assert pair.chosen_score == 1.0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[" * 20_000, "nested more than 64 levels deep; make it flat"),
        ('{"prompt": "a", "prompt": "b"}', "the key 'prompt' appears twice"),
        ('{"prompt": 1' + "0" * 5000 + "}", "a number has 5001 digits, which is too many"),
        ('{"prompt": 1e400}', "1e400 is too large a number"),
        ("[]", r"a list of all rows must be in a \.json file"),
    ],
)
def test_json_that_means_nothing(line: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n' + line)
    with pytest.raises(DataError, match=rf"p\.jsonl, line 2: .*{said}"):
        read_table(tmp_path / "p.jsonl")


def test_parquet_names_the_row_of_what_is_no_text(tmp_path: Path) -> None:
    texts = pa.array([b"a cat", b"a \xff"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"prompt": texts, "other": [1, 2]}), tmp_path / "p.parquet")
    with pytest.raises(DataError, match=r"p\.parquet, row 2: 'prompt' is not UTF-8 \(byte 2\)"):
        read_prompts(tmp_path / "p.parquet")
    table = read_table(tmp_path / "p.parquet")
    assert list(table.columns["other"]) == [1, 2], "a column that nobody needs is not read"


def test_columns_of_one_name(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 2, names=["prompt", "prompt"]), tmp_path / "p.parquet")
    with pytest.raises(DataError, match=r"two columns with the same name \('prompt'\)"):
        read_table(tmp_path / "p.parquet")


@pytest.mark.parametrize("name", ["x" * 300 + ".csv", "x" * 5000])
def test_names_that_are_too_long(name: str) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_table(name)


def test_the_tiny_worlds_files_are_its_own(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the embedded world has no file"):
        read_table("tiny:../weights/clip/config.json")


def test_a_data_set_of_the_hubs_form_is_a_file_of_pairs_and_of_rewrites_too(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([PAIR | {"rewrite": "a cat, oil"}]), tmp_path / "train.parquet")
    assert read_pairs(f"hub:{tmp_path}")[0].chosen == "a cat on a mat"
    assert read_rewrites(f"hub:{tmp_path}") == [("a cat", "a cat, oil")]


@pytest.mark.parametrize("held", ["held.txt", "held.jsonl", "tiny:evaluation.jsonl"])
def test_the_prompts_column_is_the_training_files(held: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set of the hub has ``caption``, and the held-out prompts lie in a file that has no such column."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").mkdir()
    pq.write_table(pa.table({"caption": ["a fox", "a ship"], "prompt": ["no", "no"]}), tmp_path / "set/train.parquet")
    Path("held.txt").write_text("a hut\n")
    _jsonl(Path("held.jsonl"), {"prompt": "a hut"})
    prompts, _ = collect(PromptsConfig(file="hub:set", column="caption", test_file=held, test_limit=1))
    assert [each.prompt for each in prompts][:2] == ["a fox", "a ship"]
    assert len(prompts) == 3
    with pytest.raises(DataError, match=r"no column 'captoin', only 'caption'.*did you mean 'caption'"):
        collect(PromptsConfig(file="hub:set", column="captoin", test_file=held))
