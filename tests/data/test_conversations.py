"""Pairs as conversations: every published form, and what is refused with its row."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semdpo.data.pairs import read_pairs
from semdpo.errors import DataError

ASKED = {"role": "user", "content": "a cat"}
GOOD = {"role": "assistant", "content": "a cat on a mat"}
BAD = {"role": "assistant", "content": "a dog"}
HH = {"chosen": "\n\nHuman: a cat\n\nAssistant: a cat on a mat", "rejected": "\n\nHuman: a cat\n\nAssistant: a dog"}
FORMS: dict[str, dict[str, Any]] = {
    "ultrafeedback": {"prompt": "a cat", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
    "ultrafeedback, with blanks": {"prompt": " a cat\n", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
    "prompt apart": {"prompt": [ASKED], "chosen": [GOOD], "rejected": [BAD]},
    "prompt everywhere": {"prompt": [ASKED], "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
    "prompt within": {"chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
    "text and messages": {"prompt": "a cat", "chosen": [GOOD], "rejected": "a dog"},
    "sharegpt": {
        "prompt": None,
        "chosen": [{"from": "human", "value": "a cat"}, {"from": "gpt", "value": "a cat on a mat"}],
        "rejected": [{"from": "human", "value": "a cat"}, {"from": "gpt", "value": "a dog"}],
    },
    "parts": {
        "prompt": "a cat",
        "chosen": [GOOD | {"content": [{"type": "text", "text": "a cat on a mat"}]}],
        "rejected": [BAD],
    },
    "hh": HH,
    "hh, with its prompt": {
        "prompt": "\n\nHuman: a cat\n\nAssistant:",
        "chosen": " a cat on a mat",
        "rejected": " a dog",
    },
    "hh, with a plain prompt": {"prompt": "a cat", **HH},
}


def _write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_one_prompt_and_two_answers(form: str, tmp_path: Path) -> None:
    (pair,) = read_pairs(_write(tmp_path / "p.jsonl", FORMS[form]))
    assert (pair.prompt, pair.chosen, pair.rejected) == ("a cat", "a cat on a mat", "a dog")


@pytest.mark.parametrize("form", ["ultrafeedback", "prompt within", "hh"])
def test_parquet_and_csv_give_the_same(form: str, tmp_path: Path) -> None:
    row = FORMS[form]
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "p.parquet")
    with (tmp_path / "p.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(row)
        writer.writerow([each if isinstance(each, str) else json.dumps(each) for each in row.values()])
    assert read_pairs(tmp_path / "p.parquet") == read_pairs(tmp_path / "p.csv")
    assert read_pairs(tmp_path / "p.csv")[0].chosen == "a cat on a mat"


def test_ultrafeedback_brings_its_scores(tmp_path: Path) -> None:
    row = FORMS["ultrafeedback"] | {"score_chosen": 7.0, "score_rejected": 3.0, "messages": [ASKED, GOOD]}
    (pair,) = read_pairs(_write(tmp_path / "p.jsonl", row))
    assert (pair.chosen_score, pair.rejected_score) == (7.0, 3.0)


OTHER = {"role": "user", "content": "TWO BIRDS"}
SYSTEM = {"role": "system", "content": "be brief"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"chosen": [ASKED, GOOD], "rejected": [OTHER, BAD]}, "answer different prompts, 'a cat' and 'TWO BIRDS';"),
        (
            {"prompt": "a hut", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
            "answer different prompts, 'a hut'",
        ),
        ({"prompt": "a hut", **HH}, "answer different prompts, 'a hut' and 'a cat'"),
        ({"chosen": HH["chosen"], "rejected": "\n\nHuman: a hut\n\nAssistant: b"}, "answer different prompts"),
        (
            {"prompt": [SYSTEM, ASKED], "chosen": [GOOD], "rejected": [BAD]},
            "one message of the user; .*--template",
        ),
        (
            {"chosen": [SYSTEM, ASKED, GOOD], "rejected": [SYSTEM, ASKED, BAD]},
            "chosen has 2 messages before",
        ),
        (
            {side: f"\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: {side}" for side in HH},
            "chosen has 3 messages before its answer, .* keep only rows with one turn",
        ),
        ({"chosen": [ASKED], "rejected": [BAD]}, "chosen must be one message of the assistant"),
        ({"prompt": "a cat", "chosen": [], "rejected": [BAD]}, "chosen must be one message of the assistant"),
        (
            {"prompt": "a cat", "chosen": [{"role": "assistant"}], "rejected": [BAD]},
            "chosen must be a list of messages",
        ),
        (
            {"prompt": "a", "chosen": "[{'role': 'assistant', 'content': 'a'}]", "rejected": "b"},
            "not JSON",
        ),
        ({"chosen": [GOOD], "rejected": [BAD]}, "'prompt' must be text, not missing"),
        ({"chosen": HH["chosen"], "rejected": HH["chosen"] + " "}, "chosen and rejected are the same text"),
    ],
)
def test_what_is_no_pair_is_refused_with_its_row(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"p\.jsonl, line 2: .*{said}"):
        read_pairs(_write(tmp_path / "p.jsonl", {"prompt": None, **FORMS["prompt within"]}, row))
