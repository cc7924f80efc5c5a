"""CLIPs that read 248 tokens: Long-CLIP's own file against its authors' formula, and tokenizers that say 77."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from semdpo.analysis.drift import measure
from semdpo.data.records import Pair
from semdpo.errors import ModelError
from semdpo.models import long_clip
from semdpo.models.device import compute
from semdpo.models.registry import resolve
from semdpo.models.scorers.registry import load_scorer
from semdpo.models.text_encoder import load_text_encoder
from semdpo.prompt_optimizer import PromptOptimizer
from semdpo.protocols import KnowsLength
from tests import tiny_long_clip, tiny_models

READ = tiny_long_clip.POSITIONS - 2
TEXTS = ["a", "a red ball", "x" * 17, "x" * 18, "x" * 19, "y" * 90, "z" * READ]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_long_clip.saved(tmp_path_factory.mktemp("long") / "own")


@pytest.fixture(scope="module")
def converted(own: Path) -> Path:
    """The same weights as others publish them, as a CLIPModel; the tokenizer says 77."""
    folder = own.with_name("converted")
    long_clip.load(own / "longclip-L.pt", compute("float32")).save_pretrained(folder)
    tiny_long_clip.tokenizer().save_pretrained(folder)
    tiny_models.image_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def other_end(own: Path) -> Path:
    """A CLIPModel of 248 positions that is no Long-CLIP; its end token is not the last id."""
    return tiny_models.clip(own.with_name("other"), positions=tiny_long_clip.POSITIONS, says=77)


def test_the_authors_file_gives_the_vectors_of_their_formula(own: Path) -> None:
    weights = tiny_long_clip.state()
    with torch.no_grad():
        wanted = torch.stack([tiny_long_clip.vector(weights, text) for text in TEXTS]).numpy()
    found = load_text_encoder(str(own)).encode(TEXTS)
    np.testing.assert_allclose(found.vectors, wanted, rtol=0, atol=1e-5)
    assert not found.truncated.any()
    distances = 1 - found.vectors @ found.vectors.T
    assert distances[np.triu_indices(len(TEXTS), 1)].min() > 1e-3, "so that the comparison tells them apart"


def test_a_conversion_gives_the_same_vectors(own: Path, converted: Path) -> None:
    one, other = (load_text_encoder(str(folder)).encode(TEXTS).vectors for folder in (own, converted))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["own", "converted", "other_end"])
def test_246_words_are_read_and_the_247th_is_flagged(kind: str, request: pytest.FixtureRequest) -> None:
    encoder = load_text_encoder(str(request.getfixturevalue(kind)), batch_size=2)
    assert isinstance(encoder, KnowsLength)
    assert encoder.reads == READ == 246
    fits = "x" * (READ - 1)
    texts = [f"{fits}a", f"{fits}b", f"{fits}aa", f"{fits}ab", "x" * 76, "x" * 77, "x" * 78]
    found = encoder.encode(texts)
    assert found.truncated.tolist() == [False, False, True, True, False, False, False]
    assert encoder.too_long(texts).tolist() == found.truncated.tolist()  # type: ignore[attr-defined]
    assert np.abs(found.vectors[0] - found.vectors[1]).max() > 1e-4, "the last word is read"
    np.testing.assert_allclose(found.vectors[2], found.vectors[3], atol=1e-6)
    assert np.abs(found.vectors[4] - found.vectors[5]).max() > 1e-4, "nothing ends where the tokenizer says"
    assert encoder.lengths(texts[:3]) == [246, 246, 247]


@pytest.mark.parametrize("kind", ["own", "other_end"])
def test_a_vector_does_not_depend_on_its_batch(kind: str, request: pytest.FixtureRequest) -> None:
    folder = str(request.getfixturevalue(kind))
    together = load_text_encoder(folder, batch_size=7).encode(TEXTS).vectors
    alone = load_text_encoder(folder, batch_size=1).encode(TEXTS[::-1]).vectors[::-1]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)


def test_drift_behind_the_77th_token_counts(own: Path) -> None:
    prompt = "a red ball, " * 10
    pairs = [Pair("1", prompt, f"{prompt}and two cats", prompt, 1.0, 0.0), Pair("2", prompt, prompt * 3, prompt, 1, 0)]
    drift = measure(pairs, load_text_encoder(str(own)))
    assert drift.distance[0] > 1e-3
    assert drift.rejected_distance.tolist() == pytest.approx([0, 0], abs=1e-6)
    assert drift.truncated.tolist() == [False, True]


def test_an_optimizer_measures_prompts_that_a_clip_does_not_read_to_their_end(own: Path, tmp_path: Path) -> None:
    rewriter = tiny_models.gpt2(tmp_path / "gpt2", positions=600)
    short = tiny_models.clip(tmp_path / "clip", positions=77, says=77)
    prompt = "a red ball and " * 8
    found, kept = (
        PromptOptimizer.from_pretrained(rewriter, str(encoder), max_drift=2.0, max_new_tokens=20).optimize(prompt)
        for encoder in (own, short)
    )
    assert "which measures drift; shorten it" in kept.reason
    assert "longer than" not in found.reason
    classes = PromptOptimizer.from_pretrained(rewriter, str(own), max_drift=2.0, max_new_tokens=20)
    assert classes.reads == READ


def test_it_scores_images_as_its_conversion_does(own: Path, converted: Path) -> None:
    images, prompts = [tiny_models.image(1), tiny_models.image(2)], ["a cat", "b" * 200]
    one, other = (load_scorer(str(folder)).score(images, prompts) for folder in (own, converted))
    np.testing.assert_allclose(one.values, other.values, rtol=0, atol=1e-6)
    assert not one.truncated.any()
    assert np.ptp(one.values) > 1e-4


def test_a_folder_with_the_authors_file_needs_a_tokenizer_of_its_base(tmp_path: Path) -> None:
    folder = tiny_long_clip.saved(tmp_path)
    assert resolve(str(folder)).separate_tokenizer() is None
    for path in folder.glob("*.json"):
        path.unlink()
    assert resolve(str(folder)).separate_tokenizer() == "openai/clip-vit-large-patch14"


@pytest.mark.parametrize(
    ("without", "said"),
    [
        ("positional_embedding_res", "has no two tables of positions of one size"),
        ("token_embedding.weight", "lacks weights of a CLIP"),
        ("transformer.resblocks.1.ln_1.bias", r"1 missing: text_model\.encoder\.layers\.1\.layer_norm1\.bias"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(tmp_path: Path, without: str, said: str) -> None:
    weights = tiny_long_clip.state()
    del weights[without]
    with pytest.raises(ModelError, match=said) as refused:
        load_text_encoder(str(tiny_long_clip.saved(tmp_path, weights)))
    assert "\n" not in str(refused.value)


def test_a_file_with_more_than_weights_runs_nothing(tmp_path: Path) -> None:
    folder = tiny_long_clip.saved(tmp_path)
    torch.save({"model": torch.nn.Linear(2, 2)}, folder / "longclip-L.pt")
    with pytest.raises(ModelError, match="is not a readable checkpoint"):
        load_text_encoder(str(folder))


def test_a_configuration_without_its_248_positions_is_refused_in_one_sentence(converted: Path, tmp_path: Path) -> None:
    """As in the first releases of the conversions, whose settings left the number out."""
    folder = tmp_path / "model"
    folder.mkdir()
    for path in converted.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    del config["text_config"]["max_position_embeddings"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError) as refused:
        load_text_encoder(str(folder))
    assert "\n" not in str(refused.value)
