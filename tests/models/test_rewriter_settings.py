"""A rewriter keeps what it needs: from ``weigh`` over ``train`` to ``optimize``, through all three formats."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from semdpo.cli import app as cli
from semdpo.data.pairs import read_pairs, write_pairs
from semdpo.data.records import Pair, content_id
from semdpo.engine import fingerprint, model_folders, store
from semdpo.errors import DataError, ModelError, StoreError
from semdpo.models.registry import lasting
from semdpo.models.rewriter_settings import RewriterSettings, name_encoder, read_settings, write_settings
from semdpo.progress import silent
from semdpo.prompt_optimizer import PromptOptimizer
from semdpo.recipe.objectives import DPOSettings, SemDPOSettings
from semdpo.recipe.schema import TrainConfig
from semdpo.training.preference import check, train
from tests import tiny_models

LONG = "a red ball, " + "very " * 8 + "red"


def _main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["semdpo", *arguments])
    with pytest.raises(SystemExit) as ending:
        cli.main()
    return int(ending.value.code or 0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``gpt2``; ``clip``, which knows all words, and ``other``, another one; ``worldly``, which knows some."""
    folder = tmp_path_factory.mktemp("models")
    tiny_models.gpt2(folder / "gpt2")
    for seed, name in enumerate(("clip", "other", "worldly")):
        tiny_models.clip(folder / name, seed=seed)
    (folder / "worldly" / "vocabulary.json").write_text(json.dumps(["a", "red", "ball"]))
    return folder


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rows = [
        {"prompt": "a red ball", "chosen": LONG, "rejected": "ball, oil", "mine": 1},
        {"prompt": "a cat", "chosen": "snowy peaks", "rejected": "a cat, oil", "mine": 2},
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "pairs.jsonl"


def _train(pairs: Path, models: Path, out: Path, *more: str) -> list[str]:
    settings = ["--max-length", "128", "--batch-size", "2", "--precision", "float32", *more]
    return ["train", str(pairs), "--model", str(models / "gpt2"), "-o", str(out), *settings]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_optimize_uses_the_encoder_and_budget_of_the_training(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    pairs: Path,
    models: Path,
    suffix: str,
) -> None:
    monkeypatch.chdir(models)
    weighed, out = tmp_path / f"weighed.{suffix}", tmp_path / "trained"
    assert _main(monkeypatch, "weigh", str(pairs), "-o", str(weighed), "--encoder", "clip") == 0
    clip, known = str(models / "clip"), fingerprint.model(models / "clip")
    assert {(row.encoder, row.encoder_fingerprint) for row in read_pairs(weighed)} == {(clip, known)}
    assert _main(monkeypatch, *_train(weighed, models, out)) == 0
    said = capsys.readouterr().err
    assert f"rewrites of up to {len(LONG) + 2} tokens, drift measured by {clip} (SHA-256 {known[:16]}…)" in said
    kept = json.loads((out / "semdpo.json").read_text())
    assert kept == {
        "template": tiny_models.TEMPLATE,
        "max_new_tokens": len(LONG) + 2,  # a byte each, the blank before and the end token
        "encoder": clip,
        "encoder_fingerprint": known,
    }
    card = (out / "README.md").read_text()
    assert f"| encoder of the drift | {clip} |" in card
    assert f"| SHA-256 of the encoder | {known} |" in card
    monkeypatch.chdir(tmp_path)  # from elsewhere
    assert _main(monkeypatch, "optimize", "a quokka", "--model", str(out), "--max-drift", "2") == 0
    optimizer = PromptOptimizer.from_pretrained(out)
    assert (optimizer.encoder_name, optimizer.max_new_tokens) == (clip, len(LONG) + 2)
    capsys.readouterr()
    assert (
        _main(monkeypatch, "optimize", "a ball", "--model", str(out), "--max-drift", "2", "--max-new-tokens", "9") == 0
    )
    said = capsys.readouterr().err
    assert f"; {clip})" in said
    assert "the rewrite was truncated at 9 tokens; raise --max-new-tokens" in said


def test_the_columns_leave_the_users_own_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, models: Path
) -> None:
    row = {"prompt": "a", "chosen": "b", "rejected": "c", "encoder": "T5"}
    (tmp_path / "p.jsonl").write_text(json.dumps(row) + "\n")
    assert read_pairs(tmp_path / "p.jsonl")[0].encoder is None
    clip = str(models / "clip")
    assert _main(monkeypatch, "weigh", str(tmp_path / "p.jsonl"), "-o", str(tmp_path / "o.csv"), "--encoder", clip) == 2
    assert "has a column 'encoder', but weigh writes its own column of that name; rename it" in capsys.readouterr().err
    assert not (tmp_path / "o.csv").exists()


def test_weighed_pairs_are_weighed_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pairs: Path, models: Path
) -> None:
    first, second = tmp_path / "1.parquet", tmp_path / "2.csv"
    for source, target, name in ((pairs, first, "clip"), (first, second, "other")):
        assert _main(monkeypatch, "weigh", str(source), "-o", str(target), "--encoder", str(models / name)) == 0
    assert {row.encoder for row in read_pairs(second)} == {str(models / "other")}


def test_weighed_pairs_are_read_by_trls_loader(tmp_path: Path) -> None:
    from datasets import load_dataset

    rows = [Pair("1", "a", "b", "c", None, None, 0.1, encoder="clip", encoder_fingerprint="0"), _pair("d", None)]
    for suffix, kind in (("jsonl", "json"), ("csv", "csv"), ("parquet", "parquet")):
        write_pairs(tmp_path / f"p.{suffix}", rows)
        files = {"train": str(tmp_path / f"p.{suffix}")}
        found = load_dataset(kind, data_files=files, split="train", cache_dir=str(tmp_path / "hf"))
        assert list(found["chosen"]) == ["b", "chosen"]
        assert list(found["encoder"]) == ["clip", None]


def _pair(prompt: str, encoder: str | None, content: str = "0") -> Pair:
    named = None if encoder is None else content
    texts = (prompt, "chosen", "rejected")
    return Pair(content_id(*texts), *texts, None, None, 0.1, encoder=encoder, encoder_fingerprint=named)


def test_distances_of_two_encoders_are_not_compared() -> None:
    sem, dpo = SemDPOSettings(name="sem_dpo"), DPOSettings(name="dpo")
    for mixed, said in (
        ([_pair("a", "one"), _pair("b", "two", "1")], "from one and two, and cannot be compared; run `semdpo weigh`"),
        ([_pair("a", "one"), _pair("b", "one", "1")], "from two versions of one"),
    ):
        with pytest.raises(DataError, match=said):
            check(mixed, sem)
        check(mixed, dpo)
    check([_pair("a", "one"), _pair("b", None)], sem)
    check([_pair("a", "one"), _pair("b", "its copy elsewhere")], sem)


def test_an_encoder_is_kept_only_where_all_pairs_have_it(models: Path, tmp_path: Path) -> None:
    config = TrainConfig.model_validate({"methods": {"dpo": {"name": "dpo"}}, "epochs": 1, "precision": "float32"})
    start = Path(shutil.copytree(models / "gpt2", tmp_path / "start"))
    write_settings(start, RewriterSettings(tiny_models.TEMPLATE, 70, "its own"))
    for name, rows, wanted in (
        ("all", [_pair("a", "one"), _pair("b", "one")], ("one", "0")),
        ("some", [_pair("a", "one"), _pair("b", None)], ("its own", None)),
        ("none", [replace(_pair("a", None), distance=None)] * 2, ("its own", None)),
    ):
        train(rows, str(start), DPOSettings(name="dpo"), config, tmp_path / name, tmp_path / "cache", silent)
        kept = read_settings(tmp_path / name)
        assert (kept.encoder, kept.encoder_fingerprint) == wanted
        assert kept.max_new_tokens == 70, "what it had learnt before is not forgotten"


@pytest.mark.parametrize("explicit", [False, True])
def test_an_encoder_that_is_gone_or_changed_is_told(
    models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, explicit: bool
) -> None:
    encoder = Path(shutil.copytree(models / "clip", tmp_path / "encoder"))
    rewriter = Path(shutil.copytree(models / "gpt2", tmp_path / "rewriter"))
    write_settings(rewriter, RewriterSettings(tiny_models.TEMPLATE, 9, str(encoder), fingerprint.model(encoder)))
    own = str(models / "clip") if explicit else None
    PromptOptimizer.from_pretrained(rewriter, own)
    assert caplog.messages == []
    shutil.copy(models / "other" / "model.safetensors", encoder / "model.safetensors")
    PromptOptimizer.from_pretrained(rewriter, own)
    assert [("has changed since" in each) for each in caplog.messages] == ([] if explicit else [True])
    shutil.rmtree(encoder)
    if explicit:
        assert PromptOptimizer.from_pretrained(rewriter, own).encoder_name == own
        return
    with pytest.raises(ModelError, match=r"which measured the training pairs of .*, is missing .*; restore it"):
        PromptOptimizer.from_pretrained(rewriter)


def test_a_prompt_of_words_that_the_encoder_does_not_know_comes_back_with_the_cure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], models: Path, tmp_path: Path
) -> None:
    rewriter = Path(shutil.copytree(models / "gpt2", tmp_path / "rewriter"))
    write_settings(rewriter, RewriterSettings(tiny_models.TEMPLATE, 9, str(models / "worldly")))
    for more in ([], ["--encoder", str(models / "worldly")]):
        assert _main(monkeypatch, "optimize", "a majestic quokka", "--model", str(rewriter), *more) == 0
        said = capsys.readouterr()
        assert said.out == "a majestic quokka\n"
        assert "worldly does not know 67% of its words; name another with --encoder" in said.err
        assert len(said.err.splitlines()) == 1
    assert _main(monkeypatch, "optimize", "a red ball", "--model", str(rewriter)) == 0
    (rewriter / "semdpo.json").unlink()  # nobody names an encoder: the embedded world's, which says what it lacks
    capsys.readouterr()
    assert _main(monkeypatch, "optimize", "a majestic quokka portrait", "--model", str(rewriter)) == 0
    assert "tiny:clip does not know" in capsys.readouterr().err


def test_the_budget_can_be_set(models: Path, tmp_path: Path) -> None:
    rewriter = Path(shutil.copytree(models / "gpt2", tmp_path / "rewriter"))
    write_settings(rewriter, RewriterSettings(tiny_models.TEMPLATE, 50))
    for given, budget in ((None, 50), (5, 5)):
        optimizer = PromptOptimizer.from_pretrained(rewriter, str(models / "clip"), max_drift=2, max_new_tokens=given)
        assert optimizer.max_new_tokens == budget
    found = optimizer.optimize("a cat")
    assert found.truncated
    assert len(found.rewrite.encode()) <= 5
    (rewriter / "semdpo.json").unlink()
    assert PromptOptimizer.from_pretrained(rewriter, str(models / "clip")).max_new_tokens == 40


@pytest.mark.parametrize(
    "wrong", [{"max_new_tokens": 0}, {"max_new_tokens": "9"}, {"max_new_tokens": True}, {"encoder": 1}, {"encoder": ""}]
)
def test_what_cannot_be_is_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    (tmp_path / "semdpo.json").write_text(json.dumps({"template": "{prompt}", **wrong}))
    with pytest.raises(ModelError, match=r"semdpo.json': (max_new_tokens|encoder) must be"):
        read_settings(tmp_path)


def test_an_encoder_that_took_no_part_is_named_once(tmp_path: Path) -> None:
    name_encoder(tmp_path, "clip")
    assert list(tmp_path.iterdir()) == []
    write_settings(tmp_path, RewriterSettings("{prompt}"))
    (tmp_path / "README.md").write_text("| a | b |\n")
    name_encoder(tmp_path, "clip")
    name_encoder(tmp_path, "other")
    assert read_settings(tmp_path) == RewriterSettings("{prompt}", encoder="clip")
    assert (tmp_path / "README.md").read_text() == "| a | b |\n| encoder of the drift | clip |\n"


def test_a_name_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert lasting("mine") == str(tmp_path.resolve() / "mine")
    for name in ("tiny:clip", "clip-vit-large-patch14", "someone/model"):
        assert lasting(name) == name


# ------------------------------------------------------------------------------------------------ the reference's cache


@pytest.fixture
def weighed(pairs: Path, tmp_path: Path) -> Path:
    rows = [replace(row, distance=0.1) for row in read_pairs(pairs)]
    write_pairs(tmp_path / "w.jsonl", rows)
    pairs.unlink()
    return tmp_path / "w.jsonl"


def test_nothing_is_written_beside_the_users_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, weighed: Path, models: Path
) -> None:
    monkeypatch.setenv("SEMDPO_CACHE", str(tmp_path / "cache"))
    for name, more in (("one", []), ("two", ["--objective", "dpo"]), ("three", ["--cache", str(tmp_path / "mine")])):
        assert _main(monkeypatch, *_train(weighed, models, tmp_path / name, *more)) == 0
    assert {each.name for each in tmp_path.iterdir()} == {"w.jsonl", "one", "two", "three", "cache", "mine"}
    for folder in ("cache", "mine"):
        assert len(list((tmp_path / folder / "reference").iterdir())) == 1, "objectives share it"


def test_a_cache_folder_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, weighed: Path, models: Path
) -> None:
    (tmp_path / "file").touch()
    out, inside = tmp_path / "out", str(tmp_path / "file" / "inside")
    assert _main(monkeypatch, *_train(weighed, models, out, "--cache", inside)) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert not out.exists()
    monkeypatch.setenv("SEMDPO_CACHE", inside)
    assert _main(monkeypatch, *_train(weighed, models, out)) == 0
    said = capsys.readouterr().err
    assert f"keeping the reference's log-probabilities in {out}.reference (--cache names another)" in said
    assert "(the pairs do not name the encoder that measured their drift)" in said
    assert "--encoder NAME" in said
    assert len(list((tmp_path / "out.reference").iterdir())) == 1


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "semdpo.json"])
def test_a_damaged_rewriter_is_not_used(name: str, models: Path, tmp_path: Path) -> None:
    """Its weights may still load, and rewrite anything."""
    folder = Path(shutil.copytree(models / "gpt2", tmp_path / "m.partial"))
    plan = store.Plan({}, {})
    (folder / "started.json").write_bytes(store.canonical({"config": {}, "inputs": {}, "versions": {}}))
    model_folders.finish(tmp_path / "m", plan, {"rows": 0})
    PromptOptimizer.from_pretrained(tmp_path / "m", encoder=str(models / "clip"))
    (tmp_path / "m/README.md").write_text("my own words")  # is no part of what it does
    path = tmp_path / "m" / name
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(StoreError, match=rf"{name} is damaged, edited or missing"):
        PromptOptimizer.from_pretrained(tmp_path / "m", encoder=str(models / "clip"))
