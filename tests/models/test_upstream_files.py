"""Folders as upstream publishes them: a checkpoint of torch's, and a tokenizer that lies elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from semdpo.errors import ModelError
from semdpo.models import openai_clip
from semdpo.models.scorers import hps, image_reward
from semdpo.models.scorers.registry import load_scorer
from tests import tiny_models, tiny_multimodal
from tests.second_device.build import needs_second_device
from tests.second_device.cuda import as_cuda, operators_run


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own folder of downloaded models."""
    folder = tmp_path / "models"
    monkeypatch.setenv("SEMDPO_MODELS", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=needs_second_device)])
def score(request: pytest.FixtureRequest) -> Iterator[Callable[[Any], Any]]:
    """A scorer's values, computed where they ought to be."""
    if request.param == "cpu":
        yield _score
        return

    def there(scorer: Any) -> Any:
        before = operators_run()
        values = _score(scorer)
        assert operators_run() > before + 10
        return values

    with as_cuda():
        yield there


def _words_of(built: Path, target: Path, *names: str) -> None:
    target.mkdir(parents=True)
    for name in names:
        shutil.copy(built / name, target / name)


TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def _small_image_reward(models: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``image-reward`` as THUDM publishes it, but small; returns the same model in our own form."""
    ours = tiny_models.image_reward(models.parent / "ours")
    model = image_reward.ImageRewardModel.from_pretrained(ours)
    monkeypatch.setattr(image_reward, "VISION", model.vision_model.config.to_dict())
    monkeypatch.setattr(image_reward, "TEXT", model.text_encoder.config.to_dict())
    monkeypatch.setattr(image_reward, "HEAD", model.head_sizes)
    monkeypatch.setattr(image_reward, "SCORE_MEAN", model.mean)
    monkeypatch.setattr(image_reward, "SCORE_STD", model.std)
    upstream = {_upstream_name(name): value for name, value in model.state_dict().items()}
    upstream |= {name: torch.zeros(1) for name in image_reward.UNUSED}
    folder = models / "image-reward"
    folder.mkdir(parents=True)
    torch.save(upstream, folder / "ImageReward.pt")
    (folder / "med_config.json").write_text("{}")
    _words_of(ours, models / "google-bert/bert-base-uncased", *TOKENIZER)
    return load_scorer(str(ours))


def _upstream_name(name: str) -> str:
    """The inverse of our map, written by hand."""
    for ours, theirs in (
        ("vision_model.embeddings.class_embedding", "blip.visual_encoder.cls_token"),
        ("vision_model.embeddings.position_embedding", "blip.visual_encoder.pos_embed"),
        ("vision_model.embeddings.patch_embedding", "blip.visual_encoder.patch_embed.proj"),
        ("vision_model.post_layernorm", "blip.visual_encoder.norm"),
        ("vision_model.encoder.layers", "blip.visual_encoder.blocks"),
        ("self_attn.projection", "attn.proj"),
        ("self_attn.qkv", "attn.qkv"),
        ("layer_norm", "norm"),
        ("text_encoder.", "blip.text_encoder."),
        ("mlp.", "mlp.layers."),
    ):
        if ours == "mlp." and not name.startswith("mlp."):
            continue
        name = name.replace(ours, theirs)
    return name


def _score(scorer: Any) -> np.ndarray[Any, Any]:
    images = [tiny_models.image(seed, 40, 33) for seed in range(3)]
    return scorer.score(images, ["a red ball", "two cats", "A House"]).values


def test_image_reward_from_upstreams_checkpoint(
    models: Path, score: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = _small_image_reward(models, monkeypatch)
    np.testing.assert_allclose(score(load_scorer("image-reward")), score(ours), atol=1e-6)
    np.testing.assert_allclose(score(load_scorer("THUDM/ImageReward", 2)), score(ours), atol=1e-6)
    # The folder itself may be named, and still finds its tokenizer.
    np.testing.assert_allclose(score(load_scorer(str(models / "image-reward"))), score(ours), atol=1e-6)


def test_a_half_downloaded_checkpoint_is_refused(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _small_image_reward(models, monkeypatch)
    path = models / "image-reward/ImageReward.pt"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"ImageReward\.pt' \([\d,]+ bytes\) is not a readable checkpoint .* again"):
        load_scorer("image-reward")


def test_a_checkpoint_that_would_run_code_is_refused(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _small_image_reward(models, monkeypatch)
    torch.save({"state_dict": {"a": Path("x")}}, models / "image-reward/ImageReward.pt")
    with pytest.raises(ModelError, match="not a readable checkpoint"):
        load_scorer("image-reward")


def test_a_tokenizer_that_is_not_there_is_named(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _small_image_reward(models, monkeypatch)
    shutil.rmtree(models / "google-bert")
    with pytest.raises(ModelError, match=r"'google-bert/bert-base-uncased' has not been downloaded, and HF_HUB_OFF"):
        load_scorer("image-reward")


def test_hps_from_upstreams_checkpoint(
    models: Path, score: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import CLIPModel

    ours = tiny_models.clip(models.parent / "ours", "hpsv2.1")
    model = CLIPModel.from_pretrained(ours)
    monkeypatch.setattr(hps, "CONFIG", model.config.to_dict())
    folder = models / "hpsv2.1"
    folder.mkdir(parents=True)
    torch.save({"state_dict": _open_clip(model.state_dict())}, folder / "HPS_v2.1_compressed.pt")
    _words_of(ours, models / "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", *TOKENIZER)
    np.testing.assert_allclose(score(load_scorer("hpsv2.1")), score(load_scorer(str(ours))), atol=1e-6)


def _open_clip(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    inverse = {ours: theirs for theirs, ours in openai_clip._NAMES.items()}
    found: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        if name in inverse:
            found[inverse[name]] = value.T if inverse[name] in openai_clip._TRANSPOSED else value
            continue
        tower, _, rest = name.partition(".encoder.layers.")
        number, _, rest = rest.partition(".")
        block = f"{'visual.' if tower == 'vision_model' else ''}transformer.resblocks.{number}."
        for ours, theirs in (
            ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"),
            ("self_attn.out_proj", "attn.out_proj"),
        ):  # fmt: skip
            rest = rest.replace(ours, theirs)
        if "self_attn." not in rest:
            found[block + rest] = value
        elif rest.startswith("self_attn.q_proj"):
            kind = rest.rpartition(".")[2]
            stem = name.removesuffix(f"q_proj.{kind}")
            found[f"{block}attn.in_proj_{kind}"] = torch.cat([state[f"{stem}{x}_proj.{kind}"] for x in "qkv"])
    return found


@pytest.mark.parametrize(
    ("written", "cleaned"),
    [
        ("  A  Cat\n", "a cat"),
        ("caf\u00c3\u00a9", "café"),
        ("salt &amp;amp; pepper", "salt & pepper"),
        ("\u201cquoted\u201d", '"quoted"'),
        ("tab\there", "tab here"),
    ],
)
def test_texts_are_cleaned_as_open_clip_does(written: str, cleaned: str) -> None:
    assert hps.clean(written) == cleaned


def test_pickscore_takes_its_tokenizer_and_images_from_the_clip_it_was_tuned_from(models: Path) -> None:
    ours = tiny_models.clip(models.parent / "ours", "pickscore")
    wanted = _score(load_scorer(str(ours)))
    files = (*TOKENIZER, "preprocessor_config.json")
    _words_of(ours, models / "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", *files)
    (models / "pickscore").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(ours / name, models / "pickscore" / name)
    np.testing.assert_array_equal(_score(load_scorer("pickscore")), wanted)


def test_offline_without_a_copy_the_cure_is_told(models: Path) -> None:
    with pytest.raises(
        ModelError, match=r"'pickscore' \(yuvalkirstain/PickScore_v1\) has not been downloaded.*`hf download"
    ):
        load_scorer("pickscore")


BROKEN: list[tuple[str, Callable[[str], Exception], str]] = [
    (
        "gated",
        lambda m: _http("GatedRepoError", m),
        r"accept its licence at https://huggingface\.co/a/b.*hf auth login",
    ),
    ("absent", lambda m: _http("RepositoryNotFoundError", m), "is not on the hub, or is private"),
    ("full", lambda m: OSError(28, "No space left on device"), r"could not be fetched \(.*No space left"),
]


def _http(name: str, message: str) -> Exception:
    from huggingface_hub import errors

    return getattr(errors, name)(message, response=SimpleNamespace(headers={}, request=None))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("what", "error", "told"), BROKEN)
def test_what_the_hub_says_becomes_one_sentence(
    what: str, error: Callable[[str], Exception], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error(what)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fails)
    with pytest.raises(ModelError, match=told):
        load_scorer("a/b")


def test_remote_code_runs_only_when_the_model_is_named(tmp_path: Path) -> None:
    folder = tiny_multimodal.jina(tmp_path / "jina")
    with pytest.raises(ModelError, match=r"runs Python code that comes with it.*allow_remote_code"):
        load_scorer(str(folder))
    with pytest.raises(ModelError, match="runs Python code"):
        load_scorer(str(folder), allow_remote_code=["another"])
    values = _score(load_scorer(str(folder), allow_remote_code=[str(folder)]))
    assert np.ptp(values) > 1e-4
    assert (np.abs(values) <= 1).all()


def test_vqa_score_is_the_probability_of_yes(tmp_path: Path) -> None:
    folder = tiny_multimodal.llava(tmp_path / "llava")
    scorer = load_scorer(str(folder), batch_size=2)
    values = _score(scorer)
    assert ((values > 0) & (values < 1)).all()
    image = tiny_models.image(1, 40, 33)
    alone = scorer.score([image], ["two cats"]).values
    np.testing.assert_allclose(values[1], alone[0], rtol=1e-4)
    np.testing.assert_allclose(alone[0], tiny_multimodal.llava_yes(folder, image, "two cats"), rtol=1e-4)


def test_a_half_downloaded_folder_is_refused(tmp_path: Path) -> None:
    folder = tiny_models.clip(tmp_path / "clip")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"does not hold a readable model.*or download it again"):
        load_scorer(str(folder))
