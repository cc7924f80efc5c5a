from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPModel

from semdpo.analysis.drift import measure
from semdpo.data.records import Pair
from semdpo.errors import ConfigError, DataError, ModelError
from semdpo.models.text_encoder import load_text_encoder
from semdpo.protocols import TextEncoder
from tests import tiny_models

TEXTS = ["a red ball", "two cats on a mat", "red"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.clip(tmp_path_factory.mktemp("clip") / "model")


@pytest.fixture(scope="module")
def sentence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sentence_transformers")
    return tiny_models.sentence(tmp_path_factory.mktemp("sentence") / "model")


def test_clip_gives_unit_vectors_of_its_projected_text(
    clip: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    encoder = load_text_encoder(str(clip), batch_size=2)
    assert isinstance(encoder, TextEncoder)
    found = encoder.encode(TEXTS)
    assert found.vectors.dtype == np.float32
    assert found.unknown is None
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []
    model = CLIPModel.from_pretrained(clip).eval()
    tokenizer = tiny_models.clip_tokenizer()
    for text, vector in zip(TEXTS, found.vectors, strict=True):
        with torch.no_grad():
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            hidden = model.text_model(input_ids=ids).last_hidden_state[0, -1]
            wanted = model.text_projection(hidden)
        np.testing.assert_allclose(vector, (wanted / wanted.norm()).numpy(), atol=1e-6)


def test_clip_flags_what_it_cuts(
    clip: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    fits = "x" * (tiny_models.CLIP_LENGTH - 2)
    found = load_text_encoder(str(clip)).encode([fits, fits + "x", "short", fits + "y"])
    assert found.truncated.tolist() == [False, True, False, True]
    np.testing.assert_allclose(found.vectors[1], found.vectors[3], atol=1e-6)
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []


def test_a_vocabulary_tells_the_share_of_unknown_words(tmp_path: Path) -> None:
    folder = tiny_models.clip(tmp_path)
    (folder / "vocabulary.json").write_text(json.dumps(["a", "red", "ball"]))
    texts = ["A red, red ball!", "a purple ball", "zwei Bälle", "12 + 3", ""]
    unknown = load_text_encoder(str(folder)).encode(texts).unknown
    assert unknown is not None
    np.testing.assert_allclose(unknown, [0, 1 / 3, 1, 0, 0], rtol=1e-6)
    (folder / "vocabulary.json").write_text("{}")
    with pytest.raises(ModelError, match="must hold a list of words"):
        load_text_encoder(str(folder))


def test_no_texts_give_no_vectors(clip: Path) -> None:
    assert load_text_encoder(str(clip)).encode([]).vectors.shape == (0, 16)


def test_a_sentence_transformers_model(
    sentence: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    encoder = load_text_encoder(str(sentence), batch_size=2)
    found = encoder.encode([*TEXTS, "long " * 30, TEXTS[0]])
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(found.vectors[4], found.vectors[0], atol=1e-5)
    assert found.truncated.tolist() == [False, False, False, True, False]
    assert found.unknown is None
    assert encoder.encode(TEXTS[:1]).vectors.shape == (1, 32)
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []


def test_without_sentence_transformers_the_cure_is_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "modules.json").write_text("[]")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'semdpo\[sentence\]'"):
        load_text_encoder(str(tmp_path))


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"\(gpt2\) cannot encode texts"):
        load_text_encoder(str(tiny_models.gpt2(tmp_path)))


@pytest.mark.parametrize("special", ["<|endoftext|>", "<|startoftext|>", "<|pad|>"])
def test_clip_reads_special_tokens_as_text(clip: Path, special: str) -> None:
    encoder = load_text_encoder(str(clip))
    # Its tokenizer makes all letters small, but looks for special tokens before it does.
    plain, cat, dog = encoder.encode([f"a {special.upper()} cat", f"a {special} cat", f"a {special} dog"]).vectors
    np.testing.assert_array_equal(cat, plain)
    assert np.abs(cat - dog).max() > 1e-3, "what follows is read"
    fits = "x" * (tiny_models.CLIP_LENGTH - 2 - len(special))
    assert encoder.encode([special + fits, special + fits + "x"]).truncated.tolist() == [False, True]


@pytest.mark.parametrize("special", ["[SEP]", "[CLS]", "[PAD]", "[MASK]"])
def test_a_sentence_transformers_model_reads_special_tokens_as_text(sentence: Path, special: str) -> None:
    encoder = load_text_encoder(str(sentence))
    plain, cat = encoder.encode([f"a {special.lower()} cat", f"a {special} cat"]).vectors
    np.testing.assert_allclose(cat, plain, atol=1e-6)
    fits = "x" * (24 - 2 - len(special))
    assert encoder.encode([special + fits, special + fits + "x"]).truncated.tolist() == [False, True]


def test_an_encoder_that_cannot_read_it_as_text_refuses_it(sentence: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_text_encoder(str(sentence))
    # As of a tokenizer that finds special tokens in a text whatever it is asked.
    obedient = type(encoder._tokenizer)  # type: ignore[attr-defined]
    ask = obedient.__call__
    monkeypatch.setattr(
        obedient, "__call__", lambda self, *a, **k: ask(self, *a, **{**k, "split_special_tokens": False})
    )
    with pytest.raises(DataError, match=r"'a \[SEP\] cat' contains '\[SEP\]'"):
        encoder.encode(["a dog", "a [SEP] cat"])


def test_an_end_token_in_a_chosen_text_does_not_hide_what_follows() -> None:
    """As of weighing: the drift behind the end token counts, and as much as that of the text spelt otherwise."""
    prompt, tail = "a red ball", " two cats and a purple flower at sunset"
    texts = [f"{prompt}{between}{tail}" for between in ("<|endoftext|>", "<|ENDOFTEXT|>", "")]
    pairs = [Pair(str(i), prompt, text, "a blue cube", 1.0, 0.0) for i, text in enumerate(texts)]
    found, otherwise, without = measure(pairs, load_text_encoder("tiny:clip")).distance
    assert found == pytest.approx(otherwise, abs=1e-6)
    assert found > 0.6, "obeyed, it would be 0"
    assert without > 0.5
