"""Encoders of sentence-transformers: one prefix for every text, the tokens that are read, and code of their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertModel, Gemma3TextConfig, Gemma3TextModel, GPT2Tokenizer, Qwen3Config, Qwen3Model

from semdpo.engine import fingerprint
from semdpo.engine.providers import own_models, refuse_remote_code
from semdpo.errors import DataError, ModelError
from semdpo.models.catalogue import PUBLISHED, longer_encoders
from semdpo.models.sentence_folder import Prefix, prefix_of, runs_code
from semdpo.models.text_encoder import load_text_encoder
from semdpo.recipe.load import load_recipe
from tests import tiny_models

pytest.importorskip("sentence_transformers")
TEXTS = ["a red ball", "two cats", "red"]
BOTH = {"query": "query: ", "document": "passage: "}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.sentence(tmp_path_factory.mktemp("sentence") / "model")


def _copy(folder: Path, place: Path, **settings: object) -> Path:
    shutil.copytree(folder, place)
    path = place / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return place


# --------------------------------------------------------------------------------------------------- prefixes


def test_a_published_encoder_gets_the_prefix_that_its_authors_ask_for(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = _copy(plain, tmp_path / "e5-base-v2")
    monkeypatch.setenv("SEMDPO_MODELS", str(tmp_path))
    named, unnamed = load_text_encoder("e5-base-v2"), load_text_encoder(str(plain))
    found = named.encode(TEXTS).vectors
    np.testing.assert_allclose(found, unnamed.encode([f"query: {text}" for text in TEXTS]).vectors, atol=1e-6)
    assert np.abs(found - unnamed.encode(TEXTS).vectors).max() > 1e-4
    assert fingerprint.model("e5-base-v2") == fingerprint.model("intfloat/e5-base-v2")
    assert fingerprint.model("e5-base-v2") != fingerprint.model(str(own)), "other vectors of the same files"
    monkeypatch.setenv("SEMDPO_MODELS", str(tmp_path / "none"))
    assert fingerprint.model(str(own)) == fingerprint.folder(own), "files alone, as before"


@pytest.mark.parametrize(
    ("settings", "prefix"),
    [
        ({"prompts": BOTH, "default_prompt_name": "document"}, Prefix("passage: ")),
        ({"prompts": BOTH, "default_prompt_name": "query"}, Prefix("query: ")),
        ({"prompts": BOTH | {"STS": "task: "}, "default_prompt_name": None}, Prefix("task: ", chosen_here=True)),
        ({"prompts": BOTH | {"STS": "task: "}, "default_prompt_name": "query"}, Prefix("query: ")),
        ({"prompts": BOTH, "default_prompt_name": None}, Prefix(unused=("query", "document"))),
        ({"prompts": {"query": "", "document": None}}, Prefix()),
    ],
)
def test_every_text_gets_one_prefix(plain: Path, tmp_path: Path, settings: dict[str, object], prefix: Prefix) -> None:
    folder = _copy(plain, tmp_path / "model", **settings)
    assert prefix_of(str(folder), folder) == prefix
    found = load_text_encoder(str(folder)).encode(TEXTS).vectors
    wanted = load_text_encoder(str(plain)).encode([prefix.text + text for text in TEXTS]).vectors
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    of_files = fingerprint.folder(folder)
    assert (fingerprint.model(str(folder)) == of_files) is not prefix.chosen_here


def test_the_prefix_counts_among_the_tokens_that_are_read(plain: Path, tmp_path: Path) -> None:
    folder = _copy(plain, tmp_path / "model", prompts={"STS": "task: "})
    fits = "x" * (24 - 2 - len("task:"))  # one token a letter, and one at either end
    encoder = load_text_encoder(str(folder))
    assert encoder.encode([fits, fits + "x"]).truncated.tolist() == [False, True]
    assert load_text_encoder(str(plain)).encode([fits + "xxxxx", fits + "xxxxxx"]).truncated.tolist() == [False, True]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prompts": BOTH, "default_prompt_name": "STS"}, "names the prompt 'STS' as default and does not have it"),
        ({"prompts": ["query: "]}, "does not hold prompts by name"),
        ({"prompts": {"STS": "[SEP] "}}, r"has the control token '\[SEP\]', which would be read as text"),
    ],
)
def test_a_prefix_that_cannot_be_used_is_refused(
    plain: Path, tmp_path: Path, settings: dict[str, object], said: str
) -> None:
    folder = _copy(plain, tmp_path / "model", **settings)
    with pytest.raises(ModelError, match=said):
        load_text_encoder(str(folder))


# ------------------------------------------------------------------------------------------------------- tokens


@pytest.mark.parametrize(
    ("kind", "says"), [("bert", 64), ("roberta", 25), ("xlm-roberta", 64), ("mpnet", 26), ("modernbert", 24)]
)
def test_no_more_is_read_than_the_table_of_positions_has(kind: str, says: int, tmp_path: Path) -> None:
    encoder = load_text_encoder(str(tiny_models.sentence(tmp_path / kind, reads=says, kind=kind)), batch_size=4)
    texts = ["x" * 22, "x" * 23, "x" * 60, "a red ball"]
    found = encoder.encode(texts)
    assert found.truncated.tolist() == [False, True, True, False]
    np.testing.assert_allclose(found.vectors[0], found.vectors[1], atol=1e-6)
    np.testing.assert_allclose(found.vectors[1], found.vectors[2], atol=1e-6)
    alone = np.concatenate([encoder.encode([text]).vectors for text in texts])
    np.testing.assert_allclose(found.vectors, alone, rtol=0, atol=1e-6)


def test_a_limit_below_the_table_is_the_models_own(tmp_path: Path) -> None:
    folder = tiny_models.sentence(tmp_path / "bert", reads=12)
    assert load_text_encoder(str(folder)).encode(["x" * 10, "x" * 11]).truncated.tolist() == [False, True]


def test_a_vector_does_not_depend_on_its_batch(plain: Path) -> None:
    texts = ["x", "x" * 22, "a red ball", "x" * 40, ""]
    together = load_text_encoder(str(plain), batch_size=5).encode(texts).vectors
    alone = load_text_encoder(str(plain), batch_size=1).encode(texts[::-1]).vectors[::-1]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)


def test_a_decoder_that_pads_on_the_left_reads_its_last_token_in_any_batch(tmp_path: Path) -> None:
    """As Qwen3-Embedding does."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    words = {"<|endoftext|>": 0, **{byte: i + 1 for i, byte in enumerate(tiny_models.BYTES)}}
    end = "<|endoftext|>"
    tokenizer = GPT2Tokenizer(vocab=words, merges=[], pad_token=end, padding_side="left", model_max_length=64)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    network = Qwen3Model(
        Qwen3Config(**sizes, head_dim=8, num_key_value_heads=2, vocab_size=len(tokenizer), initializer_range=0.2)
    )
    network.to(torch.bfloat16).save_pretrained(tmp_path / "network")
    tokenizer.save_pretrained(tmp_path / "network")
    modules = [Transformer(str(tmp_path / "network")), Pooling(32, pooling_mode="lasttoken")]
    folder = tmp_path / "model"
    SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)
    texts = ["a", "a red ball", "two cats in the snow at night", "x" * 64, "x" * 65]
    together = load_text_encoder(str(folder), batch_size=5).encode(texts)
    alone = load_text_encoder(str(folder), batch_size=1).encode(texts[::-1])
    np.testing.assert_allclose(together.vectors, alone.vectors[::-1], rtol=0, atol=1e-5)
    assert together.truncated.tolist() == [False, False, False, False, True]
    assert np.abs(together.vectors[0] - together.vectors[1]).max() > 1e-2


def test_a_text_without_a_known_word_has_no_direction_and_is_refused(tmp_path: Path) -> None:
    """Static vectors, as those of model2vec: nothing stands before or behind a text, so that an empty one is zero."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models

    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1}, []))  # leaves out what it does not know
    modules = [StaticEmbedding(tokenizer, embedding_weights=torch.eye(2).numpy())]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "static"), create_model_card=False)
    encoder = load_text_encoder(str(tmp_path / "static"))
    np.testing.assert_allclose(encoder.encode(["b", "xax"]).vectors, [[0, 1], [1, 0]])
    for text in ("", "xyz"):
        with pytest.raises(ModelError, match=rf"row 1 \('{text}'\) is zero, because the encoder knows none of its"):
            encoder.encode(["a", text])


def test_weights_of_half_precision_are_computed_with_in_float32(tmp_path: Path) -> None:
    folder = tiny_models.sentence(tmp_path / "half", half=True)
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole)
    assert BertModel.from_pretrained(folder).dtype == torch.float16, "or the test tests nothing"
    BertModel.from_pretrained(folder, dtype=torch.float32).save_pretrained(whole)
    one, other = (load_text_encoder(str(each)).encode(TEXTS).vectors for each in (folder, whole))
    np.testing.assert_array_equal(one, other)


def test_constants_of_a_network_in_half_precision_are_those_of_float32(tmp_path: Path) -> None:
    """Gemma multiplies its embeddings by the root of its width, which half precision would round."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    tokenizer = tiny_models.bert_tokenizer(24)
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer), hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    network = Gemma3TextModel(config).to(torch.bfloat16)
    found = []
    for name in ("half", "whole"):
        network.to(torch.bfloat16 if name == "half" else torch.float32).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        modules = [Transformer(str(tmp_path / name)), Pooling(48)]
        folder = tmp_path / f"{name}-model"
        SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)
        if name == "half":
            assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16", "or this tests nothing"
        found.append(load_text_encoder(str(folder)).encode(TEXTS).vectors)
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------------------------- code

OWN = """
from pathlib import Path
from sentence_transformers.sentence_transformer.modules import Pooling

Path(r"{seen}").write_text("it ran")


class Own(Pooling):
    pass
"""


@pytest.fixture
def with_code(plain: Path, tmp_path: Path) -> Path:
    folder = _copy(plain, tmp_path / "own")
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "own.Own"
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "own.py").write_text(OWN.format(seen=tmp_path / "seen"))
    return folder


def test_code_of_its_own_does_not_run_unless_the_model_was_named(with_code: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"runs Python code that comes with it.*scoring\.allow_remote_code=\['") as no:
        load_text_encoder(str(with_code))
    assert "\n" not in str(no.value)
    with pytest.raises(ModelError, match="runs Python code"):
        own_models().encoder(str(with_code))
    assert not (tmp_path / "seen").exists()


def test_code_of_its_own_runs_where_the_recipe_names_the_model(with_code: Path, plain: Path, tmp_path: Path) -> None:
    encoder = own_models([str(with_code)]).encoder(str(with_code))
    assert (tmp_path / "seen").read_text() == "it ran"
    np.testing.assert_allclose(
        encoder.encode(TEXTS).vectors, load_text_encoder(str(plain)).encode(TEXTS).vectors, atol=1e-6
    )
    with pytest.raises(DataError, match=r"contains '\[SEP\]'"):
        encoder.encode(["a [SEP] b"])


def test_a_network_of_its_own_is_code_and_one_that_transformers_knows_is_not(plain: Path, tmp_path: Path) -> None:
    folder = _copy(plain, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {"auto_map": {"AutoModel": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    assert not runs_code(folder)
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "nobody-knows-it"}))
    assert runs_code(folder)
    with pytest.raises(ModelError, match="runs Python code that comes with it"):
        load_text_encoder(str(folder))
    (folder / "modules.json").write_text("{}")
    with pytest.raises(ModelError, match="must hold a list of modules"):
        load_text_encoder(str(folder))


def test_a_recipe_names_the_encoder_too() -> None:
    with pytest.raises(ModelError, match=r"drift\.encoder: 'jina-clip-v2' runs Python code"):
        refuse_remote_code(load_recipe("tiny", ["drift.encoder=jina-clip-v2"]))
    refuse_remote_code(load_recipe("tiny", ["drift.encoder=jina-clip-v2", "scoring.allow_remote_code=[jina-clip-v2]"]))


# ------------------------------------------------------------------------------------------------------- names


def test_encoders_that_messages_name_can_be_had_by_all() -> None:
    for tokens in (0, 77, 248, 8192):
        for name, reads in longer_encoders(tokens).items():
            model = PUBLISHED[name]
            assert reads > tokens
            assert not model.gated
            assert not model.runs_code
    assert longer_encoders(10**6) == {}
