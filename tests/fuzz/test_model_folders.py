"""Folders of models that somebody else made: a rewrite, or one sentence; and nothing that they name is run."""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from semdpo.errors import ModelError
from semdpo.exporting import ollama
from semdpo.exporting.source import find
from semdpo.tiny_world import shipped
from tests.fuzz.harness import PAIR, is_clean, limited, refuse_unclear, run

pytestmark = [pytest.mark.slow]
REAL = True  # these models are loaded
REWRITER, ENCODER = shipped.WEIGHTS / "gpt2", shipped.WEIGHTS / "clip"

ANY = {
    "empty": b"",
    "a list": b"[]",
    "null": b"null",
    "not utf-8": b"\xff",
    "utf-16": "{}".encode("utf-16"),
    "bom": b"\xef\xbb\xbf{}",
    "deep": b"[" * 20_000,
    "deep and closed": b'{"a":' + b"[" * 500 + b"]" * 500 + b"}",
    "huge": b'{"a": 1' + b"0" * 5000 + b"}",
}
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "model.safetensors")
OWN = ("semdpo.json", "guard.json", "manifest.json", "started.json", "adapter_config.json")
# File → key → values that are put in the place of its own.
VALUES: dict[str, dict[str, list[Any]]] = {
    "config.json": {
        "vocab_size": [10**12, -1, "x", 10**400],
        "n_layer": [-1, 10**7, "x"],
        "n_embd": [10**9, 0],
        "n_positions": [-1, 10**12],
        "model_type": ["../x", "<script>", "x" * 10_000, "\x1b[2J"],
        "auto_map": [{"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.Evil"}],
        "attn_implementation": ["somebody/kernels"],
        "quantization_config": [{"quant_method": "x"}, 3],
        "layer_norm_epsilon": ["x", float("nan")],
    },
    "semdpo.json": {
        "template": ["", "x", 3, "{prompt}\ud800", "x" * 10**6 + "{prompt}", "{prompt}\x1b[2J", "chat"],
        "max_new_tokens": [0, 10**30, True, "x"],
        "encoder": ["../../x", "", 3, "x" * 10_000, "tiny:../x", "\x1b[2J", "tiny:gpt2"],
        "system": ["x", 3],
    },
    "guard.json": {"max_drift": [3, -1, float("nan"), "0.1", None], "x": [1]},
    "generation_config.json": {"eos_token_id": [10**9, "x"], "max_length": [-1, 10**12], "num_beams": [10**6]},
    "tokenizer.json": {"model": [{}, None, {"type": "x"}], "pre_tokenizer": [{"type": "x"}], "post_processor": [3]},
    "tokenizer_config.json": {
        "tokenizer_class": ["../x", "BertTokenizer"],
        "model_max_length": [-1, "x", 10**400],
        "pad_token": ["a token of its own"],
        "chat_template": ["{{ 1/0 }}", 3],
        "auto_map": [{"AutoTokenizer": ["evil.E", None]}],
    },
}
SAFETENSORS = {
    "a header of 2^63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "no tensors": struct.pack("<Q", 2) + b"{}",
    "a huge shape": (header := b'{"x":{"dtype":"F32","shape":[1000000000,1000000000],"data_offsets":[0,4]}}')
    and struct.pack("<Q", len(header)) + header + b"0000",
}


def _cases(folder: Path) -> list[tuple[str, str, bytes | None]]:
    cases: list[tuple[str, str, bytes | None]] = [
        *((name, what, content) for name in (*FILES, *OWN) for what, content in ANY.items()),
        *((name, what, None) for name in (*FILES, *OWN) for what in ("a pipe", "a folder", "a link to itself")),
        *(("model.safetensors", what, content) for what, content in SAFETENSORS.items()),
        ("pytorch_model.bin", "a pickle that runs a command", b"cos\nsystem\n(S'touch PWNED'\ntR."),
    ]
    for name, keys in VALUES.items():
        if (folder / name).is_file() or name in OWN:
            usual = json.loads((folder / name).read_text()) if (folder / name).is_file() else _USUAL[name]
            cases += [
                (name, f"{key} is {value!r:.40}", json.dumps({**usual, key: value}).encode())
                for key, values in keys.items()
                for value in values
            ]
    return cases


_USUAL: dict[str, dict[str, Any]] = {
    "semdpo.json": {"template": "{prompt} Rephrase:"},
    "guard.json": {"max_drift": 0.1, "quantile": 0.9, "prompts": 3, "encoder": "x", "model": "y"},
}


def _made(folder: Path, original: Path, name: str, what: str, content: bytes | None) -> None:
    folder.mkdir()
    for path in original.iterdir():
        if path.name != name and not (name == "pytorch_model.bin" and path.suffix == ".safetensors"):
            (folder / path.name).symlink_to(path)
    if name == "adapter_config.json":
        (folder / "config.json").unlink()
    file = folder / name
    if content is not None:
        file.write_bytes(content)
    elif what == "a pipe":
        os.mkfifo(file)
    elif what == "a folder":
        file.mkdir()
    else:
        file.symlink_to(file)


@pytest.mark.parametrize("original", [REWRITER, ENCODER], ids=["a rewriter", "an encoder"])
def test_every_file_of_a_model(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    Path("good.jsonl").write_text(json.dumps(PAIR))
    for name, what, content in _cases(original):
        if original is ENCODER and name in OWN:
            continue
        folder = tmp_path / "model"
        _made(folder, original, name, what, content)
        use = ["optimize", "a red ball", "--model"] if original is REWRITER else ["weigh", "good.jsonl", "-o", "w.csv"]
        code, out, err = run(*use, *([] if original is REWRITER else ["--encoder"]), str(folder))
        assert code in (0, 2), (name, what, err)
        assert is_clean(out + err), (name, what)
        if code:
            refuse_unclear(err.splitlines()[-1])
        assert not Path("PWNED").exists(), (name, what)
        shutil.rmtree(folder)


@pytest.mark.parametrize("command", ["export {} --to hf -o out", "export {} --to ollama -o out", "compare {} {} p.txt"])
@pytest.mark.parametrize(("name", "key"), [("semdpo.json", "template"), ("config.json", "n_layer")])
def test_the_other_commands_that_load_a_rewriter(
    command: str, name: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("a red ball\n")
    usual = _USUAL.get(name) or json.loads((REWRITER / name).read_text())
    _made(tmp_path / "model", REWRITER, name, "", json.dumps({**usual, key: -1}).encode())
    code, _, err = run(*command.replace("{}", "model").split())
    assert code == 2, err
    refuse_unclear(err.splitlines()[-1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "p.txt"]


def test_an_end_token_writes_no_line_into_a_modelfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = find("tiny:gpt2")
    model, tokenizer = source.load()
    words = ollama.vocabulary(tokenizer, model, "x")
    evil = '"\nFROM /etc/passwd\nSYSTEM "'
    words.tokens[words.ends[0]] = evil
    monkeypatch.setattr(ollama, "vocabulary", lambda *_: words)
    with limited(), pytest.raises(ModelError, match="a Modelfile cannot hold the end token"):
        ollama.modelfile(source, model, tokenizer)
