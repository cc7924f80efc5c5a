"""One sentence where many texts are longer than an encoder reads, in a run, a weighing, an audit and the doctor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from semdpo.cli import app as cli
from semdpo.data.records import Prompt
from semdpo.engine.providers import own_models
from semdpo.engine.stage import TableStage
from semdpo.models.unread import sentence, tokens_read
from semdpo.preflight import encoders
from semdpo.preflight.resources import Finding
from semdpo.preflight.sample import Sample
from semdpo.recipe.load import load_recipe
from semdpo.stages import drift
from tests import tiny_long_clip, tiny_models

LONG = "a red ball and two cats in the snow at night, oil painting, " * 4
CURE = (
    "choose one that reads more tokens, such as long-clip-l (248) or all-mpnet-base-v2 (384) (--encoder, in a recipe "
    "drift.encoder)"
)


def test_the_sentence_names_encoders_that_read_more() -> None:
    assert sentence(120, 1000, "pairs have a text", "clip-vit-large-patch14") == (
        "120 of 1,000 pairs have a text longer than clip-vit-large-patch14 reads (77 tokens), so what follows has no "
        f"effect on the drift; {CURE}"
    )
    assert "gte-modernbert-base (8,192) or qwen3-embedding-0.6b (32,768)" in sentence(1, 1, "", "all-mpnet-base-v2")
    assert "; shorten the texts (" in sentence(1, 1, "prompts are", "Qwen/Qwen3-Embedding-0.6B")
    assert sentence(1, 2, "prompts are", "somebody/encoder").startswith("1 of 2 prompts are longer than somebody/enc")
    assert sentence(1, 2, "prompts are", None).startswith("1 of 2 prompts are longer than the encoder reads, so")
    assert sentence(49, 1000, "pairs have a text", None) == sentence(0, 0, "prompts are", None) == ""


def test_the_tokens_are_those_of_the_files(tmp_path: Path) -> None:
    assert tokens_read("openai/clip-vit-large-patch14") == 77
    assert tokens_read("long-clip-b") == 248
    assert tokens_read(str(tiny_models.clip(tmp_path / "clip", positions=90))) == 90
    (tmp_path / "sentence").mkdir()
    (tmp_path / "sentence/sentence_bert_config.json").write_text('{"max_seq_length": 300}')
    assert tokens_read(str(tmp_path / "sentence")) == 300
    assert tokens_read(str(tiny_long_clip.saved(tmp_path / "long"))) == 248
    assert tokens_read("somebody/encoder") is None
    assert tokens_read("no such name") is None


def test_a_run_says_it_after_its_drift() -> None:
    stage = drift.stage(load_recipe("tiny", ["drift.encoder=clip-vit-large-patch14"]))
    assert isinstance(stage, TableStage)
    assert stage.remark is not None
    assert CURE in stage.remark({"rows": 20, "truncated": 1})
    assert stage.remark({"rows": 21, "truncated": 1}) == ""


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CLIP that reads 77 tokens, and a file of pairs of which one of two is longer."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": "a cat", "chosen": text, "rejected": "a dog"} for text in (LONG, "a fat cat")]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tiny_models.clip(tmp_path / "clip", positions=77, says=77)


def _semdpo(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["semdpo", *arguments])
    with pytest.raises(SystemExit) as ending:
        cli.main()
    return int(ending.value.code or 0)


def test_weighing_and_an_audit_say_it(
    clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = f"1 of 2 pairs have a text longer than {clip} reads (77 tokens), so what follows has no effect"
    assert _semdpo(monkeypatch, "audit", "pairs.jsonl", "--encoder", str(clip)) == 0
    assert said in capsys.readouterr().err
    assert _semdpo(monkeypatch, "weigh", "pairs.jsonl", "-o", "weighed.jsonl", "--encoder", str(clip)) == 0
    assert said in capsys.readouterr().err
    assert _semdpo(monkeypatch, "audit", "weighed.jsonl") == 0
    assert said in capsys.readouterr().err, "the pairs name the encoder that measured them"
    long = tiny_long_clip.saved(clip.parent / "long")
    assert _semdpo(monkeypatch, "audit", "pairs.jsonl", "--encoder", str(long), "--fail-on", "truncation") == 0
    assert "longer than" not in capsys.readouterr().err


def test_the_doctor_counts_the_recipes_own_texts(clip: Path) -> None:
    prompts = [Prompt.of(text, "mine", "train") for text in (LONG, "a cat")]
    sample = Sample(prompts, [Prompt.of("a dog", "mine", "test")], [("a", LONG)], 0.0, "", "")
    found = encoders.unread(str(clip), sample, own_models())
    assert [text.split(" longer than")[0] for text in found] == ["1 of 3 prompts are", "1 of 1 rewrites are"]
    typical = Sample(prompts, prompts, [("a", LONG)], 0.0, "no such file", "no such file")
    assert encoders.unread(str(clip), typical, own_models()) == []
    assert encoders.unread("clip-vit-large-patch14", sample, own_models()) == [], "it is not here"


def test_the_doctor_says_how_an_encoder_reads(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert encoders.reading(str(clip)) == [Finding("ok", "drift.encoder", f"{clip} reads 77 tokens")]
    assert encoders.reading("e5-base-v2")[0].found == (
        "e5-base-v2 reads 512 tokens, gives 768 numbers for a text, gets 'query: ' before every text"
    )
    assert encoders.reading("somebody/encoder") == []
    folder = tmp_path / "models/bge-m3"
    folder.mkdir(parents=True)
    (folder / "modules.json").write_text("[]")
    (folder / "config_sentence_transformers.json").write_text('{"prompts": {"query": "q: ", "document": "d: "}}')
    monkeypatch.setenv("SEMDPO_MODELS", str(tmp_path / "models"))
    assert encoders.reading("bge-m3")[0].found.endswith(
        "gets nothing before a text, since none of its prompts (query, document) is its default"
    )
    (folder / "config_sentence_transformers.json").write_text("[")
    assert encoders.reading("bge-m3")[0].level == "error"
