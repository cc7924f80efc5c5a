"""``semdpo weigh --alpha``: weights for other trainers, and whose weights they may replace."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from semdpo.cli import app as cli
from semdpo.data.pairs import read_pairs

PAIRS = [
    {"prompt": "a red ball", "chosen": "a red ball at sunset, cinematic", "rejected": "a ball"},
    {"prompt": "a green tree in the snow", "chosen": "a purple cat in the city", "rejected": "a green tree"},
    {"prompt": "a blue car", "chosen": "a blue car by day", "rejected": "a blue boat"},
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with ``pairs.jsonl``, which has no weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEMDPO_CACHE", str(tmp_path / "cache"))
    _write("pairs.jsonl", [None] * len(PAIRS))


def _write(name: str, weights: list[float | None]) -> None:
    rows = [pair | ({} if weight is None else {"weight": weight}) for pair, weight in zip(PAIRS, weights, strict=True)]
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def _semdpo(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["semdpo", *arguments])
    with pytest.raises(SystemExit) as ending:
        cli.main()
    return int(ending.value.code or 0)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "parquet"])
def test_the_weight_is_written_when_alpha_is_given(
    suffix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, weighted = f"plain.{suffix}", f"weighted.{suffix}"
    assert _semdpo(monkeypatch, "weigh", "pairs.jsonl", "-o", plain) == 0
    assert "wrote weight" not in capsys.readouterr().out
    assert [pair.weight for pair in read_pairs(plain)] == [None] * len(PAIRS)
    # The default, typed by the user, counts as given.
    assert _semdpo(monkeypatch, "weigh", "pairs.jsonl", "--alpha", "4", "-o", weighted) == 0
    assert "wrote weight = exp(-4 * distance), for trainers that read a weight" in capsys.readouterr().out
    pairs = read_pairs(weighted)
    distances = [pair.distance or 0.0 for pair in pairs]
    assert distances == [pair.distance for pair in read_pairs(plain)]
    assert [pair.weight for pair in pairs] == pytest.approx([math.exp(-4 * distance) for distance in distances])
    assert min(distances) > 0.001


@pytest.mark.parametrize("weights", [[0.5, 1.0, 2.0], [0.5, None, 0.25], [0.0, 0.0, 0.0]])
def test_a_weight_of_the_users_own_is_not_overwritten(
    weights: list[float | None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _write("own.jsonl", weights)
    assert _semdpo(monkeypatch, "weigh", "own.jsonl", "--alpha", "2", "-o", "out.jsonl") == 2
    said = capsys.readouterr().err
    assert said == (
        "semdpo: own.jsonl has a column 'weight' of its own, which --alpha would overwrite; leave --alpha out, or "
        "rename the column\n"
    )
    assert not Path("out.jsonl").exists()
    assert _semdpo(monkeypatch, "weigh", "own.jsonl", "-o", "out.jsonl") == 0
    assert [pair.weight for pair in read_pairs("out.jsonl")] == weights


def test_the_summary_has_the_files_own_weights(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as 1/p of a render budget, which the file keeps and a training multiplies with W."""
    _write("own.jsonl", [3.0, 1.0, 2.0])
    assert _semdpo(monkeypatch, "weigh", "own.jsonl", "-o", "out.jsonl") == 0
    pairs = read_pairs("out.jsonl")
    mean = sum(pair.own_weight * math.exp(-4 * (pair.distance or 0.0)) for pair in pairs) / len(pairs)
    assert f"weight at alpha 4, times the pair's own weight: mean {mean:.3f}" in capsys.readouterr().out
    assert _semdpo(monkeypatch, "weigh", "pairs.jsonl", "-o", "plain.jsonl") == 0
    assert "weight at alpha 4: mean" in capsys.readouterr().out


def test_a_weighed_file_with_a_weight_of_the_users_own_is_not_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _semdpo(monkeypatch, "weigh", "pairs.jsonl", "--alpha", "2", "-o", "two.jsonl") == 0
    rows = [json.loads(line) for line in Path("two.jsonl").read_text().splitlines()]
    rows[1]["weight"] *= 1.01
    Path("two.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert _semdpo(monkeypatch, "weigh", "two.jsonl", "--alpha", "2", "-o", "out.jsonl") == 2


@pytest.mark.parametrize("first", ["2", "0"])
def test_weights_of_an_earlier_weigh_are_replaced_or_left_out(
    first: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _semdpo(monkeypatch, "weigh", "pairs.jsonl", "--alpha", first, "-o", "first.csv") == 0
    assert _semdpo(monkeypatch, "weigh", "first.csv", "--alpha", "6", "-o", "six.csv") == 0
    pairs = read_pairs("six.csv")
    assert [p.weight for p in pairs] == pytest.approx([math.exp(-6 * (p.distance or 0.0)) for p in pairs])
    capsys.readouterr()
    assert _semdpo(monkeypatch, "weigh", "six.csv", "-o", "none.csv") == 0
    assert "six.csv has weights of alpha 6, which none.csv does not; give --alpha" in capsys.readouterr().err
    assert [pair.weight for pair in read_pairs("none.csv")] == [None] * len(PAIRS)


def test_sem_dpo_refuses_a_file_with_its_weights_and_names_the_cures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _semdpo(monkeypatch, "weigh", "pairs.jsonl", "--alpha", "4", "-o", "weighed.jsonl") == 0
    train = ("train", "weighed.jsonl", "--model", "tiny:gpt2", "--max-length", "128", "--batch-size", "3")
    assert _semdpo(monkeypatch, *train, "-o", "sem") == 2
    said = capsys.readouterr().err
    for words in ("is exp(-4 * distance) already", "--objective dpo", "`semdpo weigh` without --alpha"):
        assert words in said
    assert not Path("sem").exists()
    # Both cures work.
    assert _semdpo(monkeypatch, *train, "--objective", "dpo", "-o", "dpo") == 0
    assert _semdpo(monkeypatch, "weigh", "weighed.jsonl", "-o", "again.jsonl") == 0
    assert _semdpo(monkeypatch, "train", "again.jsonl", *train[2:], "-o", "sem") == 0
