"""The folder for Ollama: what the Modelfile says; its template gives the text that the rewriter was trained on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import gguf
import pytest
from transformers import AutoTokenizer

from semdpo.errors import ModelError
from semdpo.exporting.export import export
from semdpo.models.prompting import prompt_ids
from tests import tiny_models
from tests.exporting import trained

VALUE = re.compile(r'^(?P<name>[A-Z]+) (?:"""(?P<text>.*?)"""|(?P<line>.*?))$', re.DOTALL | re.MULTILINE)


def _modelfile(rewriter: Path, folder: Path) -> list[tuple[str, str]]:
    """The instructions of the Modelfile, read as Ollama reads them: a value in three quotation marks spans lines."""
    export(str(rewriter), "ollama", folder / "out")
    text = (folder / "out/Modelfile").read_text()
    return [(each["name"], each["line"] if each["text"] is None else each["text"]) for each in VALUE.finditer(text)]


def _filled(template: str, prompt: str, system: str = "") -> str:
    """What Go's templates make of it."""
    values = {".Prompt": prompt, ".System": system, '"{{"': "{{"}
    return re.sub(r'\{\{ (\.Prompt|\.System|"\{\{") \}\}', lambda slot: values[slot[1]], template)


def test_a_plain_template(tmp_path: Path) -> None:
    rewriter = tiny_models.gpt2(tmp_path / "gpt2")
    assert _modelfile(rewriter, tmp_path) == [
        ("FROM", "./model.gguf"),
        ("TEMPLATE", "{{ .Prompt }} Rephrase:"),
        ("PARAMETER", "temperature 0"),
        ("PARAMETER", "repeat_penalty 1"),
        ("PARAMETER", "num_predict 40"),
        ("PARAMETER", "num_ctx 128"),
        ("PARAMETER", 'stop "<|endoftext|>"'),
    ]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"Modelfile", "model.gguf", ".semdpo.json"}
    assert gguf.GGUFReader(tmp_path / "out/model.gguf").fields["general.architecture"].contents() == "gpt2"


def test_a_template_of_several_lines_with_braces_and_the_begin_token(tmp_path: Path) -> None:
    rewriter = trained.llama(tmp_path / "llama")
    own = '<|begin_of_text|>A "prompt":\n{prompt}\n{{ and its rewrite:'
    (rewriter / "semdpo.json").write_text(json.dumps({"template": own, "max_new_tokens": 9}))
    values = _modelfile(rewriter, tmp_path)
    template = dict(values)["TEMPLATE"]
    # Ollama puts the begin token there itself.
    assert _filled(template, "a ball") == 'A "prompt":\na ball\n{{ and its rewrite:'
    assert ("PARAMETER", "num_predict 9") in values
    tokenizer = AutoTokenizer.from_pretrained(rewriter)
    assert tokenizer(_filled(template, "a ball"))["input_ids"] == prompt_ids(tokenizer, own, ["a ball"])[0]


@pytest.mark.parametrize("system", [None, trained.SYSTEM])
def test_a_chat_template(system: str | None, tmp_path: Path) -> None:
    rewriter = trained.as_chat(trained.qwen3(tmp_path / "qwen3"), system)
    values = _modelfile(rewriter, tmp_path)
    named = dict(values)
    assert named.get("SYSTEM") == system
    user = [{"role": "user", "content": "a red ball"}]
    expected = AutoTokenizer.from_pretrained(rewriter).apply_chat_template(
        user if system is None else [{"role": "system", "content": system}, *user],
        tokenize=False, add_generation_prompt=True, enable_thinking=False,
    )  # fmt: skip
    assert _filled(named["TEMPLATE"], "a red ball", system or "") == expected
    assert ("PARAMETER", 'stop "<|im_end|>"') in values


TWICE = "{%- for message in messages %}{{ message.content }}|{{ message.content }}{% endfor %}"
UPPER = "{%- for message in messages %}{{ message.content | upper }}{% endfor %}"
NOWHERE = "Hello"
LENGTH = "{%- for message in messages %}{{ message.content }}{{ message.content | length }}{% endfor %}"


@pytest.mark.parametrize("template", [TWICE, UPPER, NOWHERE, LENGTH])
def test_a_chat_template_without_one_place_for_the_prompt_is_refused(template: str, tmp_path: Path) -> None:
    rewriter = trained.as_chat(trained.qwen3(tmp_path / "qwen3"))
    (rewriter / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelError, match="does not put the prompt in one place"):
        _modelfile(rewriter, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["qwen3"]


def test_what_a_modelfile_cannot_hold_is_refused(tmp_path: Path) -> None:
    rewriter = tiny_models.gpt2(tmp_path / "gpt2")
    trained.as_chat(rewriter)
    with pytest.raises(ModelError, match="its tokenizer has none"):
        _modelfile(rewriter, tmp_path)
    (rewriter / "semdpo.json").write_text(json.dumps({"template": '"""{prompt}"""'}))
    with pytest.raises(ModelError, match="three quotation marks in a row"):
        _modelfile(rewriter, tmp_path)
