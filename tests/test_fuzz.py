"""Hostile files through every command that reads one: a result or one sentence; no traceback, hang or stray file.

Models are left out: what is tried is everything that happens between a user's bytes and the first tensor.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
import signal
import struct
import sys
import tempfile
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.main import get_command

from semdpo import cli, pipeline, store, timing
from semdpo.commands import audit as audit_command
from semdpo.commands import pairs as pairs_command
from semdpo.commands import report as report_command
from semdpo.config import PromptsConfig
from semdpo.errors import ModelError, SemdpoError
from semdpo.files import read_rewrites
from semdpo.protocols import Embeddings
from semdpo.stages.prompts import collect

SECONDS = 10  # of one command on one file; a hundred times what it takes
REPEATABLE = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck), max_examples=60
)
PAIR = {"prompt": "a red ball", "chosen": "a red ball in the desert", "rejected": "a cat"}
JUDGED = {"method": "dpo", "prompt": "a cat", "rewrite": "a cat, oil", "tokens": 4, "distance": 0.1, "clip": 0.3}


class _Encoder:
    """Unit vectors that depend on the text."""

    def encode(self, texts: Sequence[str]) -> Embeddings:
        rows = [
            np.random.default_rng(len(text.encode())).normal(size=4) for text in texts
        ]  # which half characters fail
        vectors = np.array([row / np.linalg.norm(row) for row in rows], np.float32)
        return Embeddings(vectors, np.zeros(len(texts), bool), None)


class _Parts:
    def encoder(self, name: str) -> _Encoder:
        return _Encoder()

    def train(self, *_: object) -> None:
        raise ModelError("there are no models here")


@pytest.fixture(scope="module", autouse=True)
def _no_models() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "app", get_command(cli.app))  # once, for it takes longer than most of the files
        for command in (audit_command, pairs_command):
            patch.setattr(command, "real_parts", _Parts)
        patch.setattr(report_command, "write_report", lambda data, page: None)
        patch.setattr(pipeline, "run", lambda *_, **__: None)
        patch.setattr(pipeline, "sweep", lambda *_, **__: None)
        patch.setattr("semdpo.training.memory.keep_freed_memory", lambda: None)
        yield


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def ended(*_: object) -> None:
        raise AssertionError(f"no answer in {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, ended)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _run(*arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["semdpo", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _limited():
            try:
                cli.main()
            except SystemExit as ending:
                return int(ending.code or 0), out.getvalue(), err.getvalue()
    finally:
        sys.argv = before
    return 0, out.getvalue(), err.getvalue()


def _commands(file: str, folder: Path) -> list[list[str]]:
    """Every command that reads a file of rows."""
    return [
        *(["weigh", file, "-o", str(folder / f"out.{suffix}")] for suffix in ("jsonl", "csv", "parquet")),
        ["audit", file],
        ["audit", str(folder / "good.jsonl"), "--evaluation", file],
        ["train", file, "--model", "no such model", "-o", str(folder / "model"), "--objective", "dpo"],
        ["report", file, "-o", str(folder / "page"), "--fidelity", "clip", "--subject", "dpo", "--baseline", "dpo"],
    ]


def _is_clean(text: str) -> bool:
    return not any((ord(each) < 32 and each != "\n") or 0x7F <= ord(each) < 0xA0 for each in text)


def _check(arguments: Sequence[str], folder: Path, lines: int | None = 1) -> int:
    """Runs a command and holds it to its promise."""
    before = {path.name for path in folder.rglob("*")}
    code, out, err = _run(*arguments)
    assert code in (0, 2), (arguments, err)
    assert _is_clean(out), (arguments, out)
    assert _is_clean(err), (arguments, err)
    assert "Traceback" not in err
    if code == 2:
        said = [line for line in err.splitlines() if line.startswith("semdpo: ")]
        assert len(said) == 1, (arguments, err)
        assert lines is None or err.splitlines()[-1] == said[0], (arguments, err)
        assert {path.name for path in folder.rglob("*")} == before, arguments
    for path in set(folder.glob("out.*")):
        assert _run("audit", str(path))[0] == 0, (arguments, "what was written cannot be read again")
        path.unlink()
    return code


def _stages(file: str) -> None:
    """The stages of a run that read a file."""
    for skip_empty in (False, True):
        with contextlib.suppress(SemdpoError), _limited():
            collect(PromptsConfig(file=file, skip_empty=skip_empty, test_share=0.5))
    with contextlib.suppress(SemdpoError), _limited():
        read_rewrites(file)


def _try(name: str, content: bytes) -> None:
    folder = Path(tempfile.mkdtemp(prefix="semdpo-fuzz-"))
    try:
        (folder / "good.jsonl").write_text(json.dumps({**PAIR, "distance": 0.1}))
        (folder / name).write_bytes(content)
        file = str(folder / name)
        for arguments in _commands(file, folder):
            _check(arguments, folder)
        with contextlib.redirect_stderr(io.StringIO()):
            _stages(file)
    finally:
        shutil.rmtree(folder)


# ------------------------------------------------------------------------------------------------- tables by hand


def _lines(*records: Any) -> bytes:
    return "\n".join(each if isinstance(each, str) else json.dumps(each) for each in records).encode()


def _parquet(columns: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def _with(**more: Any) -> bytes:
    return _lines({**PAIR, **more}, PAIR)


def _said(role: Any, content: Any) -> list[dict[str, Any]]:
    return [{"role": role, "content": content}]


ODD_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1.5, "", " ", [], {}, [1], ["a"], {"a": 1}, [[]], "nan", "inf", "-1e400", "1_000"),
    *(
        "1,5",
        "\u200b",
        "\ufeff",
        "\u2800\u3164",
        "\ud83d",
        "a\x1b[31m",
        "\x00",
        "\x9b31m",
        "\u202egnp",
        "=1+1",
        "-",
        "'=x",
    ),
    *("a\rb", "a\nb", "\r\n", "a\u2028b", 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**299, 1e308, -1e308, 5e-324),
    *(_said("user", "a"), _said("assistant", "a"), _said(1, "a"), _said("user", None), _said("user", 3), [{}], [None]),
    *(_said("user", "a") + _said("assistant", "b"), _said("system", "a") + _said("user", "b"), {"role": "user"}),
    *(
        "Human: a",
        "\n\nHuman: a\n\nAssistant: b",
        "\n\nHuman:\n\nAssistant:",
        "\n\nAssistant: b\n\nHuman: a",
        "[{'role': ",
    ),
    *('[{"role": "user", "content": "a"}]', '[{"role": "content"', "[{'role': 'user', 'content': 'x'}]", "x" * 200_000),
]
COLUMNS = ("prompt", "chosen", "rejected", "chosen_score", "distance", "weight", "truncated", "encoder", "pair_id")
COLUMNS += ("score_chosen", "own", "", "\x1b[2J", "a\nb", "\ud800", "=cmd()")

JSONL = {
    "empty": b"",
    "blank": b"\n \n",
    "nul": b"\x00",
    "bom only": b"\xef\xbb\xbf",
    "not utf-8": b'{"prompt": "\xff"}',
    "utf-16": '{"prompt": "a"}'.encode("utf-16"),
    "deep list": b"[" * 20_000,
    "deep and closed": b"[" * 20_000 + b"]" * 20_000,
    "deep object": b'{"a":' * 20_000,
    "deep value": _lines('{"prompt": ' + "[" * 900 + "]" * 900 + "}"),
    "deep own": _lines(PAIR | {"own": json.loads("[" * 200 + "]" * 200)}),
    "huge whole": _lines('{"prompt": "a", "chosen": "b", "rejected": "c", "distance": 1' + "0" * 400 + "}"),
    "more digits": _lines('{"prompt": "a", "chosen": "b", "rejected": "c", "own": 1' + "0" * 5000 + "}"),
    "huge float": _lines('{"prompt": "a", "chosen": "b", "rejected": "c", "own": 1e400}'),
    "twice": _lines('{"prompt": "a", "prompt": "b", "chosen": "c", "rejected": "d"}'),
    "a list": _lines("[1, 2]"),
    "a text": _lines('"a"'),
    "null": _lines("null"),
    "number": _lines("1"),
    "nan": _lines("NaN"),
    "no end": _lines('{"prompt": "a'),
    "two": _lines('{"a": 1}{"a": 2}'),
    "control": b'{"prompt": "a\x01b"}',
    "cr": _lines(PAIR, PAIR | {"prompt": "a"}).replace(b"\n", b"\r"),
    "crlf": _lines(PAIR, PAIR).replace(b"\n", b"\r\n"),
    "line separators": _lines(PAIR | {"prompt": "a\u2028b\x85c"}),
    "no columns": _lines({}),
    "only own": _lines({"own": 1}),
    "one side": _lines({"chosen": "a", "rejected": "b"}),
    "python": b"{'prompt': 'a'}",
    "bom twice": b"\xef\xbb\xbf" * 2 + _lines(PAIR),
    "null character": _lines(PAIR | {"prompt": "\x00"}),
    "a thousand columns": _lines(PAIR | {f"c{k}": k for k in range(1000)}),
    **{
        f"{column!r} is {value!r:.40}": _with(**{column: value}) for column in ("prompt", "own") for value in ODD_VALUES
    },
    **{f"column {column!r}": _with(**{column: "x"}) for column in COLUMNS},
    **{f"column {column!r} is a number": _with(**{column: 0.5}) for column in COLUMNS},
    **{
        f"sides {k} {j}": _lines({"prompt": "a cat", "chosen": one, "rejected": other})
        for k, one in enumerate(ODD_VALUES[-16:-2])
        for j, other in enumerate(ODD_VALUES[-16:-2:3])
    },
}

CSV = {
    "empty": b"",
    "header": b"prompt,chosen,rejected\n",
    "one line": b"prompt",
    "quote": b'"',
    "open": b'prompt,chosen,rejected\n"a,b,c\n',
    "after a quote": b'prompt,chosen,rejected\n"a"b,c,d\n',
    "more": b"prompt,chosen,rejected\na,b,c,d\n",
    "less": b"prompt,chosen,rejected\na\n",
    "twice": b"prompt,prompt\na,b\n",
    "nul": b"prompt,chosen,rejected\na\x00,b,c\n",
    "cr": b"prompt,chosen,rejected\ra,b,c\rd,e,f\r",
    "semicolons": b"prompt;chosen;rejected\na;b;c\n",
    "tabs": b"prompt\tchosen\trejected\na\tb\tc\n",
    "bom": b"\xef\xbb\xbfprompt,chosen,rejected\na,b,c\n",
    "large": b'prompt,chosen,rejected\n"' + b"x" * 200_000 + b'",b,c\n',
    "latin": "prompt,chosen,rejected\nä,b,c\n".encode("latin-1"),
    "formula": b"prompt,chosen,rejected,=x\n=1+1,@b,-c,'=d\n",
    "apostrophes": b"prompt,chosen,rejected\n'a','=b',''=c'\n",
    "empty cells": b"prompt,chosen,rejected\n,,\n",
    "no name": b",,\na,b,c\n",
    "lines": b'prompt,chosen,rejected\n"a\nb","c\r\nd","e\rf"\n',
    "comma decimals": b"prompt;chosen;rejected;distance\na;b;c;0,5\n",
    "repr": b"prompt,chosen,rejected\na,\"[{'role': 'user', 'content': 'x'}]\",b\n",
    "a megabyte of quotes": b"prompt,chosen,rejected\n" + b'"' * 1_000_001,
}

PARQUET = {
    "empty": b"",
    "magic": b"PAR1",
    "magic twice": b"PAR1PAR1",
    "length": b"PAR1" + struct.pack("<I", 2**31) + b"PAR1",
    "text": b"prompt\na\n",
    "no rows": _parquet({"prompt": pa.array([], pa.string())}),
    "no columns": _parquet({}),
    "uint64": _parquet({**{k: [v] for k, v in PAIR.items()}, "own": pa.array([2**64 - 1], pa.uint64())}),
    "uint64 score": _parquet({**{k: [v] for k, v in PAIR.items()}, "chosen_score": pa.array([2**64 - 1], pa.uint64())}),
    "decimal": _parquet({**{k: [v] for k, v in PAIR.items()}, "distance": [Decimal("0.5")]}),
    "bytes": _parquet({k: [v.encode()] for k, v in PAIR.items()}),
    "numbers": _parquet({key: [1] for key in PAIR}),
    "not utf-8": _parquet({k: pa.array([b"\xff\xfe"], pa.binary()).view(pa.string()) for k in PAIR}),
    "own not utf-8": _parquet(
        {**{k: [v] for k, v in PAIR.items()}, "own": pa.array([b"\xff"], pa.binary()).view(pa.string())}
    ),
    "dates": _parquet({**{k: [v] for k, v in PAIR.items()}, "own": pa.array([2**62], pa.timestamp("ns"))}),
    "no dates": _parquet({**{k: [v] for k, v in PAIR.items()}, "own": pa.array([2**62], pa.timestamp("us"))}),
    "durations": _parquet({**{k: [v] for k, v in PAIR.items()}, "own": pa.array([2**62], pa.duration("us"))}),
    "maps": _parquet(
        {**{k: [v] for k, v in PAIR.items()}, "own": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int32()))}
    ),
    "nulls": _parquet({k: pa.nulls(2) for k in PAIR}),
    "dictionary": _parquet({k: pa.array([v]).dictionary_encode() for k, v in PAIR.items()}),
    "structs": _parquet({k: [[{"role": "user", "content": v}]] for k, v in PAIR.items()}),
    "own nan": _parquet({**{k: [v] for k, v in PAIR.items()}, "own": [float("nan")]}),
    "own inf": _parquet({**{k: [v] for k, v in PAIR.items()}, "own": [float("inf")]}),
    "own bytes": _parquet({**{k: [v] for k, v in PAIR.items()}, "own": [b"\xff"]}),
}
GOOD_PARQUET = _parquet({k: [v] * 20 for k, v in PAIR.items()})
OTHERS = {
    "a.txt": b"",
    "b.txt": b"\n\n",
    "c.txt": b"a\rb\rc",
    "d.txt": b"\xff",
    "e.txt": "a\n\u200b\nb".encode(),
    "f.txt": b"a\x1b[2J\nb\n",
    "g.txt": b"\x00",
    "a.json": b"",
    "b.json": b"{}",
    "c.json": b'{"annotations": 3}',
    "d.json": b'{"annotations": [1]}',
    "e.json": b'{"annotations": [{"caption": 3}]}',
    "f.json": b"[" * 20_000,
    "g.json": b"[]",
    "h.json": json.dumps([PAIR]).encode(),
    "i.json": b"[1]",
    "j.json": b'{"annotations": [{"caption": "a"}, {"caption": "b"}]}',
    "a.tsv": b"",
    "b.tsv": b'Prompt\tNote\n"a" b\tx\nc\ty\n',
    "c.tsv": b'Prompt\tNote\n"a\tx\nb" c\ty\n',
    "d.tsv": b"Prompt\tNote\na\n",
    "e.TSV": b"prompt\tchosen\trejected\na\tb\tc\n",
    "A.CSV": b"prompt,chosen,rejected\na,b c,d\n",
    "B.JSONL": _lines(PAIR),
    "C.PARQUET": GOOD_PARQUET,
    "none": _lines(PAIR),
    "x.xlsx": b"PK\x03\x04",
    "y.arrow": b"ARROW1",
}
TABLES = [
    *((f"{k}.jsonl", name, content) for k, (name, content) in enumerate(JSONL.items())),
    *((f"{k}.csv", name, content) for k, (name, content) in enumerate(CSV.items())),
    *((f"{k}.parquet", name, content) for k, (name, content) in enumerate(PARQUET.items())),
    *((name, name, content) for name, content in OTHERS.items()),
]
PARTS = 8


@pytest.mark.parametrize("part", range(PARTS))
def test_tables_made_by_hand(part: int) -> None:
    assert len(TABLES) > 250
    for name, what, content in TABLES[part::PARTS]:
        try:
            _try(name, content)
        except BaseException as error:
            error.add_note(f"the file: {what} ({name})")
            raise


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bytes_of_a_parquet_file(seed: int) -> None:
    drawn = random.Random(seed)
    data = bytearray(GOOD_PARQUET)
    for _ in range(drawn.randint(1, 4)):
        data[drawn.randrange(len(data))] = drawn.randrange(256)
    _try("flipped.parquet", bytes(data) if seed % 4 else bytes(data[: drawn.randrange(len(data))]))


# ------------------------------------------------------------------------------------------------- tables by hypothesis

TEXT = st.text(st.characters(codec=None), max_size=12) | st.sampled_from(
    ["a cat", "a dog", "=1", "-1", "'-1", "\u200b"]
)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "x"]), "content": TEXT}), max_size=3
)
SIDE = TEXT | MESSAGES | VALUE
RECORD = st.fixed_dictionaries(
    {"prompt": SIDE, "chosen": SIDE, "rejected": SIDE},
    optional={"chosen_score": VALUE, "distance": VALUE, "own": VALUE, "score_chosen": VALUE, "score_rejected": VALUE},
)


@REPEATABLE
@given(st.lists(RECORD, min_size=1, max_size=3))
def test_records_in_jsonl(records: list[dict[str, Any]]) -> None:
    _try("drawn.jsonl", _lines(*records))


@REPEATABLE
@given(st.lists(st.lists(TEXT, min_size=3, max_size=3), min_size=1, max_size=3), st.sampled_from(["csv", "tsv"]))
def test_cells(rows: list[list[str]], suffix: str) -> None:
    mark = {"csv": ",", "tsv": "\t"}[suffix]
    lines = [mark.join(PAIR), *(mark.join(row) for row in rows)]
    _try(f"drawn.{suffix}", "\n".join(lines).encode("utf-8", "surrogatepass"))


@REPEATABLE
@given(st.binary(max_size=60), st.sampled_from(["csv", "tsv", "jsonl", "json", "parquet", "txt", "arrow"]))
def test_bytes(content: bytes, suffix: str) -> None:
    _try(f"drawn.{suffix}", content)


@REPEATABLE
@given(st.lists(st.fixed_dictionaries({k: st.just(v) | VALUE for k, v in JUDGED.items()}), min_size=1, max_size=2))
def test_judged_rows(rows: list[dict[str, Any]]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="semdpo-fuzz-"))
    (folder / "judged.jsonl").write_bytes(_lines(*rows))
    _check(_commands(str(folder / "judged.jsonl"), folder)[-1], folder)
    shutil.rmtree(folder)


# ------------------------------------------------------------------------------------------------- recipes

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 40))
RECIPES = [
    *(
        "",
        " ",
        "a",
        "- a",
        "1",
        "null",
        "name: [",
        "name: {",
        "name: 'x",
        "%",
        "@",
        "\t",
        "a: b: c",
        "---\n---\n",
        "? [a]\n: b",
    ),
    *(
        "name: &x *x",
        "name: &x [*x]",
        "a: *nothing",
        LAUGHS,
        "name: &x {b: *x}",
        "<<: 3",
        "<<: [1]",
        "<<: {name: x}\nname: y",
    ),
    *(
        "[" * 20_000,
        "{" * 20_000,
        "a: " * 5000,
        "- " * 20_000,
        "{a: " * 400 + "1" + "}" * 400,
        "name: " + "[" * 500 + "]" * 500,
    ),
    *(
        "1: 2",
        "null: 2",
        "true: 2",
        "on: 2",
        "1.5: 2",
        "2024-01-01: 2",
        "~: 2",
        "[a]: 2",
        "{a: b}: 2",
        "sft: {1: 2}",
        "sft: {yes: 2}",
    ),
    *(
        "name: 2024-01-01",
        "name: 2024-13-45",
        "name: 2024-01-01T99:00:00Z",
        "name: !!timestamp x",
        "name: !!int x",
        "name: !!float x",
    ),
    *(
        "name: !!bool x",
        "name: !!binary x",
        "name: !!set [a]",
        "name: !!omap 3",
        "name: !!python/object/apply:os.system [ls]",
        "name: !x y",
    ),
    *(
        f"sft: {{steps: {n}}}"
        for n in ("1" + "0" * 400, "1" + "0" * 5000, "0x" + "f" * 5000, "1e400", ".inf", ".nan", "-1", "1:30", "0o7")
    ),
    *(
        'name: "\\ud800"',
        'name: "\\x1b[2J"',
        '"\\x1b[2J": 3',
        '"a\\nb": 3',
        'sft: {"a\\nb": 3}',
        'name: "\\0"',
        "name: \x00",
        "name: \x07",
    ),
    *(
        "name: " + "x" * 300,
        "name: ../x",
        "prompts: 3",
        "prompts: [1]",
        "prompts: {file: 3}",
        "prompts: {file: null}",
        "train: {methods: {}}",
    ),
    *(
        "train: {methods: {a: 3}}",
        "train: {methods: {a: {}}}",
        "train: {methods: {a: {name: [1]}}}",
        "train: {methods: {a: {name: {}}}}",
    ),
    *(
        "train: {methods: {a: {name: sem_dpo, alpha: [1]}}}",
        "evaluate: {metrics: {drift: x}}",
        "evaluate: {image_seeds: [1, 1]}",
        "a: 1\na: 2",
    ),
]
SETTINGS = [
    *(
        "sft.steps=1e400",
        "sft.steps=[" * 50,
        "sft.steps=&x [*x]",
        "sft.steps={1: 2}",
        "=",
        "a",
        ".=1",
        "sft..x=1",
        "sft=3",
        "sft.steps=!!int x",
    ),
    *(
        "sft.steps=1" + "0" * 5000,
        "sft.steps=2024-13-45",
        "sft.model=\x1b[2J",
        "\x1b[2J=3",
        "a\nb=3",
        "sft.steps.x=3",
        "prompts.limit=1" + "0" * 400,
    ),
    *(
        "sft.steps=" + "[" * 5000,
        "train.beta=.inf",
        "train.beta=1" + "0" * 400,
        "train.beta=.nan",
        "train.beta=-.0",
        "name=x\ny",
        "sft.steps=true",
    ),
]


def _try_recipe(content: bytes, folder: Path) -> None:
    path = folder / "drawn.yaml"
    path.write_bytes(content)
    for command in ("run", "sweep"):
        code, _, err = _run(command, str(path))
        assert code in (0, 2)
        assert _is_clean(err), err
        if code == 2:
            assert err.startswith("semdpo: ")
            assert all(str(path) in line for line in err.splitlines()), err  # a line for each wrong key
    assert [each.name for each in folder.iterdir()] == [path.name]


@pytest.mark.parametrize("content", RECIPES, ids=range(len(RECIPES)))
def test_recipes_made_by_hand(content: str, tmp_path: Path) -> None:
    _try_recipe(content.encode(), tmp_path)
    code, _, err = _run("doctor", str(tmp_path / "drawn.yaml"), "--no-measure")
    assert code == 2
    assert err.startswith("semdpo: ")


@pytest.mark.parametrize("content", [b"\xff", b"\xfe\xff", "name: x".encode("utf-16"), b"a" * 2_000_000], ids=range(4))
def test_recipes_that_are_no_text(content: bytes, tmp_path: Path) -> None:
    _try_recipe(content, tmp_path)


@pytest.mark.parametrize("setting", SETTINGS, ids=range(len(SETTINGS)))
def test_settings(setting: str, tmp_path: Path) -> None:
    for command in ("run", "doctor"):
        code, _, err = _run(command, "tiny", "--set", setting)
        assert code == 2, (setting, err)
        assert _is_clean(err)
        assert len(err.splitlines()) == 1, err


NODE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.integers() | st.none(), inner, max_size=3),
    max_leaves=8,
)


@REPEATABLE
@given(st.dictionaries(st.sampled_from(["name", "prompts", "sft", "train", "evaluate", "x"]) | TEXT, NODE, max_size=4))
def test_recipes_drawn(recipe: dict[Any, Any]) -> None:
    import yaml

    with tempfile.TemporaryDirectory(prefix="semdpo-fuzz-") as folder:
        _try_recipe(yaml.safe_dump(recipe).encode("utf-8", "surrogatepass"), Path(folder))


@REPEATABLE
@given(st.text(st.sampled_from("ab:-[]{}&*!?|>'\"\\%@#, \n\t0"), max_size=30))
def test_recipes_of_marks(text: str) -> None:
    with tempfile.TemporaryDirectory(prefix="semdpo-fuzz-") as folder:
        _try_recipe(text.encode(), Path(folder))


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
        *_commands(name, tmp_path),
        ["run", f"{name}.yaml"],
        ["run", name],
        ["doctor", name],
        ["audit", str(good), "--html", page],
    ]
    tried += [["weigh", str(good), "-o", f"{name}.csv"], ["train", str(good), "--model", name, "-o", "m"]]
    for arguments in tried:
        if "\x00" not in "".join(arguments):  # which no shell can pass
            code = (
                _check(arguments, tmp_path, lines=None)
                if arguments[-1] != page and "-o" not in arguments
                else _run(*arguments)[0]
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
