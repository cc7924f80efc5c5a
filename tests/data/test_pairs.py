"""A user's own files: what is read, and what an error says."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semdpo.data.pairs import read_pairs, read_rewrites, write_pairs
from semdpo.data.prompts import read_prompts
from semdpo.data.records import content_id
from semdpo.data.tables import read_table
from semdpo.disk import out_of_space, write_bytes
from semdpo.errors import DataError, StoreError

PROMPTS = ["a red ball", "ein süßer Hund, müde", 'a "quoted" cat, on a mat']
PAIRS = [
    {"prompt": "a cat", "chosen": "a cat, oil", "rejected": "a dog", "drifted": True, "note": "x,y"},
    {"prompt": "a fish", "chosen": "a fish, ink", "rejected": "a bird", "drifted": False, "note": "é"},
]


def _write(path: Path, rows: list[dict[str, object]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        table = [list(rows[0]), *(list(row.values()) for row in rows)]
        quoted = [",".join('"' + str(v).replace('"', '""') + '"' for v in line) for line in table]
        path.write_text("\n".join(quoted) + "\n", encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv", ".parquet"])
def test_prompts_are_read_from_every_kind_of_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"prompts{suffix}"
    if suffix == ".txt":
        path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(PROMPTS).encode())
    else:
        _write(path, [{"id": i, "prompt": text} for i, text in enumerate(PROMPTS)])
    assert read_prompts(path) == PROMPTS


def test_duplicates_are_dropped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "p.txt"
    path.write_text("b\na\nb\nA\nb\n")
    with caplog.at_level(logging.WARNING):
        assert read_prompts(path) == ["b", "a", "A"]
    assert "left out 2 exact duplicates" in caplog.text


def test_another_column_is_read_only_when_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "p.jsonl", [{"prompts": "a cat", "caption": "a dog"}])
    with pytest.raises(DataError, match=r"no column 'prompt', only 'prompts', 'caption'; did you mean 'prompts'\?"):
        read_prompts(path)
    assert read_prompts(path, column="caption") == ["a dog"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.txt", b"", "is empty; write one prompt on each line"),
        ("p.jsonl", b"", "is empty"),
        ("p.csv", b"", "is empty"),
        ("p.csv", b"prompt\n", "is empty"),
        ("p.parquet", b"", "is empty"),
        ("p.parquet", b"PAR1 no", "is not a parquet file"),
        ("p.txt", b"good\nb\xffd\n", r"is not UTF-8 \(byte 6, line 2\)"),
        ("p.jsonl", b'{"prompt": "b\xffd"}', "is not UTF-8"),
        ("p.txt", b"a\n\nb\n", "line 2: 'prompt' is empty; fill it or remove the row"),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": " "}\n', "line 2: 'prompt' is empty"),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": 3}\n', "line 2: 'prompt' must be text, not int"),
        ("p.jsonl", b'{"prompt": "a"}\n{"other": "b"}\n', "line 2: 'prompt' must be text, not missing"),
        ("p.jsonl", b'{"prompt": "a"\n', "line 1: this is not JSON"),
        ("p.jsonl", b'"a"\n', "line 1: a line must be a JSON object"),
        ("p.jsonl", b'{"prompt": NaN}\n', "line 1: this is not JSON"),
        ("p.csv", b"prompt,x\na,b,c\n", "line 2: 3 values for 2 columns"),
        ("p.csv", b"text,x\na,b\n", "no column 'prompt', only 'text', 'x'; name one of them with prompts.column"),
        ("p.csv", b"prompt,prompt\na,b\n", "two columns with the same name"),
        ("p.xlsx", b"x", "unknown suffix; prompts come as .txt, .jsonl, .csv, .tsv, .parquet, .json, or COCO"),
    ],
)
def test_bad_prompt_files_are_refused_in_words(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_prompts(tmp_path / name)


def test_a_missing_file_is_named_with_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a")
    with pytest.raises(DataError, match=r"there is no file .*promts\.txt; did you mean 'prompts\.txt'\?"):
        read_prompts(tmp_path / "promts.txt")
    with pytest.raises(DataError, match=r"the folder .* holds no .*\.jsonl.* file; name a folder with such files"):
        read_prompts(tmp_path)
    with pytest.raises(DataError, match=r"the embedded world has no file 'absent\.jsonl'"):
        read_prompts("tiny:absent.jsonl")


def test_rewrites_need_both_columns(tmp_path: Path) -> None:
    path = _write(tmp_path / "r.jsonl", [{"prompt": "a", "rewrite": "a, oil"}])
    assert read_rewrites(path) == [("a", "a, oil")]
    with pytest.raises(DataError, match="no column 'rewrite'"):
        read_rewrites(_write(tmp_path / "p.jsonl", [{"prompt": "a"}]))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("written", [".jsonl", ".csv", ".parquet"])
def test_pairs_survive_a_round_trip_with_the_users_columns(tmp_path: Path, suffix: str, written: str) -> None:
    table = read_table(_write(tmp_path / f"a{suffix}", PAIRS))
    pairs = read_pairs(tmp_path / f"a{suffix}")
    assert pairs[0].pair_id == content_id("a cat", "a cat, oil", "a dog")
    assert (pairs[1].chosen, pairs[1].distance, pairs[1].chosen_score) == ("a fish, ink", None, None)
    write_pairs(tmp_path / f"b{written}", pairs, table.columns)
    again = read_table(tmp_path / f"b{written}")
    assert read_pairs(tmp_path / f"b{written}") == pairs
    assert [str(v) for v in again.columns["drifted"]] == ["True", "False"]
    assert list(again.columns["note"]) == ["x,y", "é"]


def test_scores_and_distances_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("prompt,chosen,rejected,chosen_score,distance,truncated\na,b,c,1.5,,True\n")
    (pair,) = read_pairs(path)
    assert (pair.chosen_score, pair.distance, pair.truncated) == (1.5, None, True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"chosen_score": math.nan}, "row 2: 'chosen_score' is nan"),
        ({"distance": math.inf}, "row 2: 'distance' is inf"),
        ({"rejected": ""}, "row 2: 'rejected' is empty"),
        ({"rejected": "a fish, ink"}, "row 2: chosen and rejected are the same text"),
        ({"chosen": None}, "row 2: 'chosen' must be text, not missing"),
    ],
)
def test_bad_pairs_are_refused_with_their_row(tmp_path: Path, change: dict[str, object], said: str) -> None:
    first = {**PAIRS[0], **{key: 0.5 for key in change if key not in PAIRS[0]}}
    with pytest.raises(DataError, match=said):
        read_pairs(_write(tmp_path / "p.parquet", [first, {**PAIRS[1], **change}]))


def test_single_completions_with_a_label_are_refused_with_what_to_do(tmp_path: Path) -> None:
    path = _write(tmp_path / "rated.jsonl", [{"prompt": "a cat", "completion": "a cat, oil", "label": True}])
    with pytest.raises(DataError, match=r"one completion and a label .* as chosen and rejected, or .* KTOTrainer"):
        read_pairs(path)
    both = _write(tmp_path / "both.jsonl", [row | {"completion": "x", "label": True} for row in PAIRS])
    assert len(read_pairs(both)) == 2, "a user's own columns of these names beside a pair mean nothing"


def test_wrong_types_name_the_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 1: 'chosen' must be text, not dict"):
        read_pairs(_write(tmp_path / "p.jsonl", [{**PAIRS[0], "chosen": {"text": "a cat"}}]))
    with pytest.raises(DataError, match="line 1: 'distance' must be a number, not 'far'"):
        read_pairs(_write(tmp_path / "p.jsonl", [{**PAIRS[0], "distance": "far"}]))


def _said(role: str, content: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content}]


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_conversational_pairs_are_read_as_texts(tmp_path: Path, suffix: str, implicit: bool) -> None:
    rows = []
    for pair in PAIRS:
        asked = _said("user", pair["prompt"])
        answers = {name: _said("assistant", pair[name]) for name in ("chosen", "rejected")}
        whole = {name: asked + answer for name, answer in answers.items()}
        rows.append(whole if implicit else {"prompt": asked, **answers})
    found = read_pairs(_write(tmp_path / f"p.{suffix}", rows))
    assert [(p.prompt, p.chosen, p.rejected) for p in found] == [
        (pair["prompt"], pair["chosen"], pair["rejected"]) for pair in PAIRS
    ]


def test_a_longer_conversation_is_refused_with_its_row(tmp_path: Path) -> None:
    system = [{"role": "system", "content": "be brief"}, *_said("user", "a cat")]
    row = {"prompt": system, "chosen": _said("assistant", "a"), "rejected": _said("assistant", "b")}
    with pytest.raises(DataError, match=r"line 1: prompt must be one message of the user; .* into --template"):
        read_pairs(_write(tmp_path / "p.jsonl", [row]))


def test_a_data_sets_folder_is_read_whole(tmp_path: Path) -> None:
    for k, pair in enumerate(PAIRS):
        (tmp_path / "data" / "train").mkdir(parents=True, exist_ok=True)
        _write(tmp_path / "data" / "train" / f"train-{k}.parquet", [pair])
    assert [p.prompt for p in read_pairs(tmp_path / "data" / "train")] == [pair["prompt"] for pair in PAIRS]
    with pytest.raises(DataError, match=r"holds no .* file; name one of its folders train"):
        read_pairs(tmp_path / "data")
    _write(tmp_path / "data" / "train" / "train-9.parquet", [{"prompt": "only"}])
    with pytest.raises(DataError, match=r"train-9\.parquet has other columns than train-0\.parquet"):
        read_pairs(tmp_path / "data" / "train")


def test_a_saved_data_set_is_read(tmp_path: Path) -> None:
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    Dataset.from_list(PAIRS).save_to_disk(tmp_path / "saved")
    assert [p.chosen for p in read_pairs(tmp_path / "saved")] == [pair["chosen"] for pair in PAIRS]


def test_writing_refuses_what_it_cannot_write(tmp_path: Path) -> None:
    pairs = read_pairs(_write(tmp_path / "a.jsonl", PAIRS))
    with pytest.raises(DataError, match=r"name it with one of \.csv, \.jsonl, \.parquet"):
        write_pairs(tmp_path / "b.txt", pairs)
    with pytest.raises(DataError, match="column 'mixed' mixes types"):
        write_pairs(tmp_path / "b.parquet", pairs, {"mixed": ["a", 1]})
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write_bytes(tmp_path / "file" / "inside", b"x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "file"]


def test_a_full_disk_is_recognised() -> None:
    assert out_of_space(OSError(28, "No space left on device"))
    assert out_of_space(RuntimeError('IoError(Os { code: 28, kind: StorageFull, message: "No space left" })'))
    assert not out_of_space(OSError(13, "Permission denied"))
