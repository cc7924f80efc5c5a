"""What is kept under a key follows whole content: no byte that changes is missed, whatever its file looks like."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from semdpo.engine import fingerprint
from semdpo.errors import DataError, ModelError

MB = 2**20


def _age(path: Path, seconds: float = 60) -> None:
    """As if it had been written a while ago, so that it may be remembered; only ctime stays young."""
    then = time.time_ns() - int(seconds * 1e9)
    os.utime(path, ns=(then, then))


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as settled at once."""
    monkeypatch.setattr(fingerprint, "SETTLED", -1e9)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read to their end."""
    found: list[str] = []
    digest = hashlib.file_digest

    def counting(file: object, name: str) -> object:
        found.append(Path(file.name).name)  # type: ignore[attr-defined]
        return digest(file, name)  # type: ignore[arg-type]

    monkeypatch.setattr(hashlib, "file_digest", counting)
    return found


def test_every_byte_counts(tmp_path: Path) -> None:
    weights, prints = tmp_path / "weights", set()
    for place in (0, MB - 1, MB, 3 * MB // 2, 2 * MB, 3 * MB - 1, None):
        data = bytearray(3 * MB)
        if place is not None:
            data[place] = 1
        weights.write_bytes(data)
        prints |= {fingerprint.folder(tmp_path), fingerprint.file(weights)}
        assert fingerprint.file(weights) == hashlib.sha256(data).hexdigest()
    assert len(prints) == 14


@pytest.mark.parametrize("size", [3, 17 * MB])
@pytest.mark.usefixtures("old")
def test_a_change_that_keeps_size_and_mtime_is_seen(tmp_path: Path, size: int, reads: list[str]) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"a" * size)
    before, first = path.stat().st_mtime_ns, fingerprint.file(path)
    assert fingerprint.file(path) == first
    assert reads == ["weights"]
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"b")
    os.utime(path, ns=(before, before))
    assert path.stat().st_mtime_ns == before
    assert fingerprint.file(path) == hashlib.sha256(path.read_bytes()).hexdigest() != first


@pytest.mark.usefixtures("old")
def test_a_file_that_takes_anothers_place_is_seen(tmp_path: Path) -> None:
    for name, data in (("a", b"a"), ("b", b"b")):
        (tmp_path / name).write_bytes(data)
        _age(tmp_path / name)
    first = fingerprint.file(tmp_path / "a")
    (tmp_path / "b").replace(tmp_path / "a")
    assert fingerprint.file(tmp_path / "a") == hashlib.sha256(b"b").hexdigest() != first


def test_a_file_that_changed_just_now_is_always_read(tmp_path: Path, reads: list[str]) -> None:
    (tmp_path / "a").write_bytes(b"a")
    _age(tmp_path / "a")  # its ctime is of now
    assert fingerprint.file(tmp_path / "a") == fingerprint.file(tmp_path / "a")
    assert reads == ["a", "a"]


@pytest.mark.usefixtures("old")
def test_the_next_process_reads_a_large_file_only_when_it_changed(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEMDPO_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "weights"
    path.write_bytes(b"a" * 17 * MB)
    (tmp_path / "small").write_bytes(b"a")

    def anew() -> str:
        monkeypatch.setattr(fingerprint, "_CACHE", {})
        fingerprint.file(tmp_path / "small")
        return fingerprint.file(path)

    first = anew()
    assert anew() == first
    assert reads == ["small", "weights", "small"]
    [entry] = (tmp_path / "cache" / "fingerprints").iterdir()
    known = json.loads(entry.read_text())
    for damaged in (
        "",
        "{",
        "[]",
        json.dumps(known | {"sha256": "0"}),
        json.dumps(known | {"sha256": 1}),
        json.dumps(known | {"stamp": [1]}),
        json.dumps(known | {"stamp": [*known["stamp"][:3], 0], "sha256": "0" * 64}),
    ):
        entry.write_text(damaged)
        assert anew() == first
        assert json.loads(entry.read_text()) == known
    with path.open("r+b") as file:
        file.write(b"b")
    assert anew() != first


@pytest.mark.usefixtures("old")
def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SEMDPO_CACHE", str(tmp_path / "file" / "inside"))
    (tmp_path / "weights").write_bytes(b"a" * 17 * MB)
    assert fingerprint.file(tmp_path / "weights") == hashlib.sha256(b"a" * 17 * MB).hexdigest()


def test_links_are_followed_and_a_circle_ends(tmp_path: Path) -> None:
    real, linked = tmp_path / "elsewhere", tmp_path / "model"
    for folder in (real, linked):
        folder.mkdir()
    (real / "weights").write_bytes(b"a")
    (linked / "unet").symlink_to(real, target_is_directory=True)
    (linked / "config.json").symlink_to(real / "weights")
    first = fingerprint.folder(linked)
    (tmp_path / "link").symlink_to(linked, target_is_directory=True)
    assert fingerprint.folder(tmp_path / "link") == first
    (real / "back").symlink_to(linked, target_is_directory=True)
    assert list(fingerprint.files(linked)) == ["config.json", "unet/weights"]
    (real / "weights").write_bytes(b"b")
    assert fingerprint.folder(linked) != first


def test_names_count_and_what_is_hidden_does_not(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    first = fingerprint.folder(tmp_path)
    for hidden in (".DS_Store", ".cache/huggingface/a.metadata", "timing.json"):
        (tmp_path / hidden).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / hidden).write_bytes(b"y")
    assert fingerprint.folder(tmp_path) == first
    (tmp_path / "a").rename(tmp_path / "b")
    assert fingerprint.folder(tmp_path) != first


# ------------------------------------------------------------------------------------------------------------ models


def _adapters(folder: Path, base: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"adapters")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    return folder


def test_adapters_change_with_their_base(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "model.safetensors").write_bytes(b"a" * 3 * MB)
    once = _adapters(tmp_path / "once", str(base))
    twice = _adapters(tmp_path / "twice", str(once))  # adapters on adapters
    before = [fingerprint.model(each) for each in (base, once, twice)]
    (base / "model.safetensors").write_bytes(b"a" * 2**20 + b"b" + b"a" * (2 * MB - 1))
    after = [fingerprint.model(each) for each in (base, once, twice)]
    assert len({*before, *after}) == 6


def test_adapters_of_a_published_model_change_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMDPO_MODELS", str(tmp_path / "own"))
    (tmp_path / "own/openai-community/gpt2").mkdir(parents=True)
    (tmp_path / "own/openai-community/gpt2/model.safetensors").write_bytes(b"a")
    adapters = _adapters(tmp_path / "adapters", "openai-community/gpt2")
    before = fingerprint.model(adapters)
    (tmp_path / "own/openai-community/gpt2/model.safetensors").write_bytes(b"b")
    assert fingerprint.model(adapters) != before


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("{tmp}/gone", "holds adapters of '{tmp}/gone', which cannot be read"),
        (None, "does not name the model they belong to; put the base's folder into base_model_name_or_path"),
        ("{tmp}/adapters", "holds adapters of itself"),
    ],
)
def test_adapters_without_a_base_are_refused(tmp_path: Path, base: str | None, said: str) -> None:
    adapters = _adapters(tmp_path / "adapters", base and base.format(tmp=tmp_path))
    with pytest.raises(ModelError) as caught:
        fingerprint.model(adapters)
    assert said.format(tmp=tmp_path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    (adapters / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match="is not a JSON object; save the adapters again"):
        fingerprint.model(adapters)


def test_a_tokenizer_that_lies_elsewhere_is_part_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMDPO_MODELS", str(tmp_path))
    for name, file in (("promptist", "pytorch_model.bin"), ("openai-community/gpt2", "vocab.json")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / file).write_text("{}")
    before = fingerprint.model("promptist")
    (tmp_path / "openai-community/gpt2/model.safetensors").write_bytes(b"no part of the tokenizer")
    assert fingerprint.model("promptist") == before
    (tmp_path / "openai-community/gpt2/vocab.json").write_text('{"a": 1}')
    assert fingerprint.model("promptist") != before


def test_of_a_published_model_the_files_that_are_fetched_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"a")
    monkeypatch.setattr("semdpo.models.hub.fetch", lambda *_: snapshot)
    before = fingerprint.model("someone/model")
    (snapshot / "README.md").write_text("put there by another program")
    assert fingerprint.model("someone/model") == before
    (snapshot / "model.safetensors").write_bytes(b"b")
    assert fingerprint.model("someone/model") != before


def test_weights_in_another_format_count_where_there_are_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "pytorch_model.bin"
    weights.write_bytes(b"a")
    monkeypatch.setattr("semdpo.models.hub.fetch", lambda *_: tmp_path)
    before = fingerprint.model("someone/model")
    weights.write_bytes(b"b")
    assert fingerprint.model("someone/model") != before
    (tmp_path / "model.safetensors").write_bytes(b"c")
    with_others = fingerprint.model("someone/model")
    weights.write_bytes(b"a")
    assert fingerprint.model("someone/model") == with_others


def test_a_model_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"a")
    with fingerprint.unchanged(tmp_path):
        pass
    with pytest.raises(ModelError, match="was changed while it was read"), fingerprint.unchanged(tmp_path):
        (tmp_path / "weights").write_bytes(b"b")


def test_parts_load_a_model_again_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from semdpo.engine import providers as parts

    monkeypatch.setattr(parts, "_encoder", lambda name, allowed: object())
    (tmp_path / "weights").write_bytes(b"a")
    encoder = parts.own_models().encoder
    first = encoder(str(tmp_path))
    assert encoder(str(tmp_path)) is first
    (tmp_path / "weights").write_bytes(b"b")
    assert encoder(str(tmp_path)) is not first


# --------------------------------------------------------------------------------------------------------- data sets


def _change_last(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(Prompt=["a fox", "a boat"])


@pytest.mark.parametrize(
    "change",
    [
        _change_last,
        lambda frame: frame.assign(score=[1, 3]),
        lambda frame: frame[::-1],
        lambda frame: frame.rename(columns={"score": "grade"}),
        lambda frame: frame.assign(Prompt=["a fox\x1fa ship", ""]),
    ],
)
def test_a_data_set_of_the_hub_counts_whole(tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    frame = pd.DataFrame({"Prompt": ["a fox", "a ship"], "score": [1, 2]})
    for name, each in (("one", frame), ("same", frame), ("other", change(frame))):
        (tmp_path / name).mkdir()
        each.to_parquet(tmp_path / name / "train.parquet")
    one, same, other = (fingerprint.rows(f"hub:{tmp_path / name}") for name in ("one", "same", "other"))
    assert one == same != other


def test_a_data_set_needs_no_column_of_a_known_name(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    pd.DataFrame({"words": ["a fox"]}).to_parquet(tmp_path / "set" / "train.parquet")
    assert len(fingerprint.rows(f"hub:{tmp_path / 'set'}")) == 64


def test_a_file_of_prompts_is_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a cat\n")
    assert fingerprint.rows(str(tmp_path / "a.txt")) == hashlib.sha256(b"a cat\n").hexdigest()
    shutil.copy(tmp_path / "a.txt", tmp_path / "b.txt")
    assert fingerprint.rows(str(tmp_path / "b.txt")) == fingerprint.rows(str(tmp_path / "a.txt"))
    with pytest.raises(DataError, match="there is no file"):
        fingerprint.rows(str(tmp_path / "c.txt"))


@pytest.mark.parametrize("part", ["a.jsonl", "b.jsonl"])
def test_a_folder_of_a_data_set_is_all_that_is_read_of_it(part: str, tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text('{"prompt": "a cat", "rewrite": "a cat, art"}\n')
    first = fingerprint.rows(str(tmp_path))
    (tmp_path / "README.txt").write_text("of cats")
    assert fingerprint.rows(str(tmp_path)) == first
    (tmp_path / part).write_text('{"prompt": "a cat", "rewrite": "a cat, oil"}\n')
    assert fingerprint.rows(str(tmp_path)) != first


def test_a_folder_of_texts_is_its_texts(tmp_path: Path) -> None:
    (tmp_path / "color_val.txt").write_text("a red cat\n")
    first = fingerprint.rows(str(tmp_path), texts=True)
    (tmp_path / "notes.csv").write_text("prompt\na blue cat\n")
    assert fingerprint.rows(str(tmp_path), texts=True) == first
    (tmp_path / "color_val.txt").write_text("a blue cat\n")
    assert fingerprint.rows(str(tmp_path), texts=True) != first
