"""Files of prompts: batch by batch, resumed where they stopped, and never half a file under the final name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from semdpo import locks
from semdpo.data.readers import read_csv, read_jsonl
from semdpo.errors import ConfigError, StoreError
from semdpo.many_prompts import encoded, optimized, to_file
from semdpo.prompt_optimizer import Optimized, PromptOptimizer, Request
from tests.test_prompt_optimizer import Adds, Counts

PROMPTS = [f"{k} cats, {'=' if k % 2 else ''}\n“ü”" for k in range(10)] + ["0 cats"]
SETTINGS = {"max_drift": 2.0}


class Stops(PromptOptimizer):
    """An optimizer that fails at one of its batches."""

    def __init__(self, fails_at: int = 99, fingerprint: str = "f") -> None:
        super().__init__(Adds(", art"), Adds(""), Counts(), max_drift=2, fingerprint=fingerprint)
        self.fails_at, self.batches = fails_at, list[int]()

    def optimize_all(self, requests: Sequence[Request], *, stop_when_down: bool = False) -> list[list[Optimized]]:
        if len(self.batches) == self.fails_at:
            raise KeyboardInterrupt
        self.batches.append(len(requests))
        return super().optimize_all(requests, stop_when_down=stop_when_down)


REQUESTS = [Request(prompt, n=2 if k == 3 else 1) for k, prompt in enumerate(PROMPTS)]


def _whole(tmp_path: Path, suffix: str) -> bytes:
    to_file(Stops(), REQUESTS, tmp_path / f"whole{suffix}", SETTINGS, batch=3)
    return (tmp_path / f"whole{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".txt", ".parquet", ".tsv"])
@pytest.mark.parametrize("torn", [b"", b'[{"prompt": "3 c'])
def test_a_stopped_command_resumes_to_the_same_bytes(tmp_path: Path, suffix: str, torn: bytes) -> None:
    out = tmp_path / f"out{suffix}"
    with pytest.raises(KeyboardInterrupt):
        to_file(Stops(2), REQUESTS, out, SETTINGS, batch=3)
    assert not out.exists()
    partial = tmp_path / f"out{suffix}.partial"
    partial.write_bytes(partial.read_bytes() + torn)
    again = Stops()
    found = to_file(again, REQUESTS, out, SETTINGS, batch=3)
    assert again.batches == [3, 2], "what was finished is not made again"
    assert list(dict.fromkeys(each.prompt for each in found)) == list(dict.fromkeys(map(str.strip, PROMPTS)))
    assert out.read_bytes() == _whole(tmp_path, suffix)
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_the_rows_of_another_command_are_not_taken(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        to_file(Stops(1), REQUESTS, out, SETTINGS, batch=3)
    for optimizer, settings in ((Stops(), {"max_drift": 1.0}), (Stops(fingerprint="g"), SETTINGS)):
        with pytest.raises(StoreError, match=r"out\.jsonl\.partial has unfinished rows of another command"):
            to_file(optimizer, REQUESTS, out, settings)
    (tmp_path / "out.jsonl.partial").write_text("my notes\n")
    with pytest.raises(StoreError, match="or is damaged"):
        to_file(Stops(), REQUESTS, out, SETTINGS)
    assert (tmp_path / "out.jsonl.partial").read_text() == "my notes\n"


def test_the_records_are_read_back(tmp_path: Path) -> None:
    whole = [json.loads(line) for line in _whole(tmp_path, ".jsonl").decode().splitlines()]
    assert whole[0]["prompt"] == PROMPTS[0].strip()
    assert whole[0]["rewrite"].endswith(", art")
    assert whole[0]["added"] == ["art"]
    assert len(whole) == sum(request.n for request in REQUESTS)
    assert list(read_jsonl(tmp_path / "whole.jsonl").columns["prompt"]) == [row["prompt"] for row in whole]
    _whole(tmp_path, ".csv")
    table = read_csv(tmp_path / "whole.csv").columns
    assert list(table["prompt"]) == [row["prompt"] for row in whole]
    assert table["kept"][0] == ", ".join(whole[0]["kept"])


def test_rows_come_while_later_ones_are_still_to_come() -> None:
    optimizer = Stops()
    rows = optimized(optimizer, REQUESTS, batch=4)
    next(rows)
    assert optimizer.batches == [4]
    assert len(list(rows)) == len(REQUESTS) - 1


def test_an_unknown_suffix_is_refused_by_the_command(
    tmp_path: Path,
) -> None:
    from semdpo.cli.optimize import optimize

    with pytest.raises(ConfigError, match="name it with"):
        optimize("a cat", out=tmp_path / "out.xlsx")


def test_a_command_that_was_stopped_before_its_first_row_resumes(tmp_path: Path) -> None:
    """The first line stands there already, and must not be written twice."""
    out = tmp_path / "out.jsonl"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            to_file(Stops(0), REQUESTS, out, SETTINGS, batch=3)
    to_file(Stops(), REQUESTS, out, SETTINGS, batch=3)
    assert out.read_bytes() == _whole(tmp_path, ".jsonl")


def test_two_commands_do_not_write_one_file(tmp_path: Path) -> None:
    out = tmp_path / "{x} {}.jsonl"
    with locks.alone(out, "{}"), pytest.raises(StoreError, match=r"is being written by process [0-9]+"):
        to_file(Stops(), REQUESTS, out, SETTINGS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{}",
        b"3",
        b"[" * 20_000,
        b'["a"]',
        b'[{"prompt": "a"}]',
        b'{"0": {"prompt": "a"}}',
        b'[{"prompt": "a", "rewrite": 3, "drift": 0}]',
        b'[{"prompt": "a", "rewrite": "b", "drift": "x"}]',
        b'[{"prompt": "a", "rewrite": "b", "drift": 0, "kept": [3]}]',
        b'[{"prompt": "\xff", "rewrite": "b", "drift": 0}]',
    ],
)
def test_unfinished_rows_of_another_form_are_refused(line: bytes, tmp_path: Path) -> None:
    out, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    with pytest.raises(KeyboardInterrupt):
        to_file(Stops(1), REQUESTS, out, SETTINGS, batch=3)
    before = partial.read_bytes() + line + b"\n"
    partial.write_bytes(before)
    with pytest.raises(StoreError, match="or is damaged"):
        to_file(Stops(), REQUESTS, out, SETTINGS, batch=3)
    assert partial.read_bytes() == before
    assert not out.exists()


def test_a_prompt_of_several_lines_has_one_line_of_text() -> None:
    """Line k of the file is the rewrite of prompt k, also where the prompt itself is kept."""
    assert encoded(".txt", [Optimized("a\nb", "a\nb\u2028c", 0.0), Optimized("d", "e", 0.1)]) == b"a b c\ne\n"
