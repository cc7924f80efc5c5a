"""llama.cpp itself computes with the GGUF file: it tokenizes and rewrites as the rewriter does.

llama-cpp-python must be compiled, so that it belongs to no extra; `pip install llama-cpp-python` adds these tests.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from semdpo.exporting.export import export
from semdpo.models.prompting import prompt_ids
from semdpo.models.registry import resolve
from semdpo.models.rewriter import load_causal, load_rewriter
from semdpo.recipe.base import TEMPLATE
from tests.exporting import trained

llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (it must be compiled)")
pytestmark = pytest.mark.slow  # two rewriters are trained

BUDGET = 48
# Of 20 rewrites, how many rounded weights leave as they are; llama.cpp also rounds what it multiplies them with.
LEAST = {"f16": 14, "bf16": 8, "q8_0": 4}
ODD = [
    "a red ball", "  two  spaces, \t a tab", "line\nbreaks\n\n\nhere", "it's we'll THEY'RE 'quoted'", "12345 3.5 ½",
    "naïve café, Übergröße", "日本語の猫", "кот в шляпе", "🐈 and 🎨!", "(red:1.2) [x] {y} <lora:oil:0.8>", "--ar 16:9",
    "trailing   ", "a\u00a0b\u2003c", "ｆｕｌｌ　ｗｉｄｔｈ", "x" * 50, "don''t 'S 'tis", "#$%^&*_+=~`|\\",
    "नमस्ते दुनिया", "\r\nwindows\r\n",
]  # fmt: skip


@pytest.fixture(scope="module", params=["gpt2", "llama", "qwen3"])
def rewriter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "gpt2":
        return resolve("tiny:gpt2").folder()
    build = {"llama": trained.llama, "qwen3": trained.qwen3}[request.param]
    return build(tmp_path_factory.mktemp(request.param) / "model", learnt=True)


def _llama_cpp(rewriter: Path, folder: Path, weights: str = "f32") -> Any:
    export(str(rewriter), "gguf", folder / "m.gguf", weights)
    # The cache in float32 (type 0): in float16, its default, llama.cpp rounds keys and values, whatever the file holds.
    return llama_cpp.Llama(
        str(folder / "m.gguf"), n_ctx=128, n_threads=1, n_threads_batch=1, type_k=0, type_v=0, verbose=False
    )


def _written(model: Any, prompt: str, **more: Any) -> str:
    answer = model.create_completion(TEMPLATE.format(prompt=prompt.strip()), max_tokens=BUDGET, temperature=0.0, **more)
    return " ".join(str(answer["choices"][0]["text"]).split())


def test_the_greedy_rewrites_are_the_same(rewriter: Path, tmp_path: Path) -> None:
    prompts = trained.held_out(200)
    ours = load_rewriter(rewriter, temperature=0.0, max_new_tokens=BUDGET).rewrite(prompts, 1, seed=0)
    model = _llama_cpp(rewriter, tmp_path)
    theirs = [_written(model, prompt) for prompt in prompts]
    same = sum(text == row[0] for text, row in zip(theirs, ours, strict=True))
    assert same >= 198, [(text, row[0]) for text, row in zip(theirs, ours, strict=True) if text != row[0]][:3]
    assert len(set(theirs)) > 10


def test_the_ids_are_the_same(rewriter: Path, tmp_path: Path) -> None:
    tokenizer = load_causal(rewriter)[1]
    model = _llama_cpp(rewriter, tmp_path)
    for prompt in [*trained.held_out(200), *ODD]:
        text = TEMPLATE.format(prompt=prompt.strip())
        ids = model.tokenize(text.encode(), add_bos=model._model.add_bos_token(), special=False)
        assert ids == prompt_ids(tokenizer, TEMPLATE, [prompt])[0], prompt


def test_a_chat_asks_as_the_rewriter_was_trained(rewriter: Path, tmp_path: Path) -> None:
    """The file's own chat template puts the prompt into the rewriter's text."""
    model = _llama_cpp(rewriter, tmp_path)
    for prompt in trained.held_out(5):
        answer = model.create_chat_completion(
            [{"role": "user", "content": prompt}], max_tokens=BUDGET, temperature=0.0, repeat_penalty=1.0
        )
        assert " ".join(answer["choices"][0]["message"]["content"].split()) == _written(model, prompt)


@pytest.mark.parametrize("weights", list(LEAST))
def test_it_reads_smaller_types(weights: str, rewriter: Path, tmp_path: Path) -> None:
    prompts = trained.held_out(20)
    ours = load_rewriter(rewriter, temperature=0.0, max_new_tokens=BUDGET).rewrite(prompts, 1, seed=0)
    model = _llama_cpp(rewriter, tmp_path, weights)
    same = sum(_written(model, prompt) == row[0] for prompt, row in zip(prompts, ours, strict=True))
    assert same >= LEAST[weights]
