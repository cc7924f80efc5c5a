"""Files made by hand: what users have, what programs write, and what somebody hostile would try."""

from __future__ import annotations

import io
import json
import struct
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.harness import PAIR

# ------------------------------------------------------------------------------------------------- tables by hand


def lines(*records: Any) -> bytes:
    return "\n".join(each if isinstance(each, str) else json.dumps(each) for each in records).encode()


def parquet(columns: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def _with(**more: Any) -> bytes:
    return lines({**PAIR, **more}, PAIR)


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
    "deep value": lines('{"prompt": ' + "[" * 900 + "]" * 900 + "}"),
    "deep own": lines(PAIR | {"own": json.loads("[" * 200 + "]" * 200)}),
    "huge whole": lines('{"prompt": "a", "chosen": "b", "rejected": "c", "distance": 1' + "0" * 400 + "}"),
    "more digits": lines('{"prompt": "a", "chosen": "b", "rejected": "c", "own": 1' + "0" * 5000 + "}"),
    "huge float": lines('{"prompt": "a", "chosen": "b", "rejected": "c", "own": 1e400}'),
    "twice": lines('{"prompt": "a", "prompt": "b", "chosen": "c", "rejected": "d"}'),
    "a list": lines("[1, 2]"),
    "a text": lines('"a"'),
    "null": lines("null"),
    "number": lines("1"),
    "nan": lines("NaN"),
    "no end": lines('{"prompt": "a'),
    "two": lines('{"a": 1}{"a": 2}'),
    "control": b'{"prompt": "a\x01b"}',
    "cr": lines(PAIR, PAIR | {"prompt": "a"}).replace(b"\n", b"\r"),
    "crlf": lines(PAIR, PAIR).replace(b"\n", b"\r\n"),
    "line separators": lines(PAIR | {"prompt": "a\u2028b\x85c"}),
    "no columns": lines({}),
    "only own": lines({"own": 1}),
    "one side": lines({"chosen": "a", "rejected": "b"}),
    "python": b"{'prompt': 'a'}",
    "bom twice": b"\xef\xbb\xbf" * 2 + lines(PAIR),
    "null character": lines(PAIR | {"prompt": "\x00"}),
    "a thousand columns": lines(PAIR | {f"c{k}": k for k in range(1000)}),
    **{
        f"{column!r} is {value!r:.40}": _with(**{column: value}) for column in ("prompt", "own") for value in ODD_VALUES
    },
    **{f"column {column!r}": _with(**{column: "x"}) for column in COLUMNS},
    **{f"column {column!r} is a number": _with(**{column: 0.5}) for column in COLUMNS},
    **{
        f"sides {k} {j}": lines({"prompt": "a cat", "chosen": one, "rejected": other})
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
    "no rows": parquet({"prompt": pa.array([], pa.string())}),
    "no columns": parquet({}),
    "uint64": parquet({**{k: [v] for k, v in PAIR.items()}, "own": pa.array([2**64 - 1], pa.uint64())}),
    "uint64 score": parquet({**{k: [v] for k, v in PAIR.items()}, "chosen_score": pa.array([2**64 - 1], pa.uint64())}),
    "decimal": parquet({**{k: [v] for k, v in PAIR.items()}, "distance": [Decimal("0.5")]}),
    "bytes": parquet({k: [v.encode()] for k, v in PAIR.items()}),
    "numbers": parquet({key: [1] for key in PAIR}),
    "not utf-8": parquet({k: pa.array([b"\xff\xfe"], pa.binary()).view(pa.string()) for k in PAIR}),
    "own not utf-8": parquet(
        {**{k: [v] for k, v in PAIR.items()}, "own": pa.array([b"\xff"], pa.binary()).view(pa.string())}
    ),
    "dates": parquet({**{k: [v] for k, v in PAIR.items()}, "own": pa.array([2**62], pa.timestamp("ns"))}),
    "no dates": parquet({**{k: [v] for k, v in PAIR.items()}, "own": pa.array([2**62], pa.timestamp("us"))}),
    "durations": parquet({**{k: [v] for k, v in PAIR.items()}, "own": pa.array([2**62], pa.duration("us"))}),
    "maps": parquet(
        {**{k: [v] for k, v in PAIR.items()}, "own": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int32()))}
    ),
    "nulls": parquet({k: pa.nulls(2) for k in PAIR}),
    "dictionary": parquet({k: pa.array([v]).dictionary_encode() for k, v in PAIR.items()}),
    "structs": parquet({k: [[{"role": "user", "content": v}]] for k, v in PAIR.items()}),
    "own nan": parquet({**{k: [v] for k, v in PAIR.items()}, "own": [float("nan")]}),
    "own inf": parquet({**{k: [v] for k, v in PAIR.items()}, "own": [float("inf")]}),
    "own bytes": parquet({**{k: [v] for k, v in PAIR.items()}, "own": [b"\xff"]}),
}
GOOD_PARQUET = parquet({k: [v] * 20 for k, v in PAIR.items()})
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
    "B.JSONL": lines(PAIR),
    "C.PARQUET": GOOD_PARQUET,
    "none": lines(PAIR),
    "x.xlsx": b"PK\x03\x04",
    "y.arrow": b"ARROW1",
}
TABLES = [
    *((f"{k}.jsonl", name, content) for k, (name, content) in enumerate(JSONL.items())),
    *((f"{k}.csv", name, content) for k, (name, content) in enumerate(CSV.items())),
    *((f"{k}.parquet", name, content) for k, (name, content) in enumerate(PARQUET.items())),
    *((name, name, content) for name, content in OTHERS.items()),
]
