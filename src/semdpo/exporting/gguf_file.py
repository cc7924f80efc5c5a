"""The export to llama.cpp: one GGUF file with weights, tokenizer and the text around a prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

from semdpo.exporting.architectures import architecture, tensors
from semdpo.exporting.files import MADE, renamed_at_the_end
from semdpo.exporting.source import Source, refuse_overflow
from semdpo.exporting.vocabulary import Vocabulary, vocabulary

TYPES = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
_WHOLE = ("position_embd.weight",)  # matrices that llama.cpp reads in float32 only


def write(source: Source, model: Any, tokenizer: Any, output: Path, weights: str) -> None:
    """Writes the file. Vectors stay in float32, and so do GPT-2's positions.

    Args:
        source: The rewriter.
        model: Its model.
        tokenizer: Its tokenizer.
        output: The file to write.
        weights: The type of the matrices, a name in ``TYPES``. Rows that q8_0 cannot divide into blocks are f16.

    Raises:
        ModelError: llama.cpp cannot compute the model or cannot tokenize as it does.
        StoreError: Something else exists there, or the file cannot be written.
    """
    found, words = architecture(model, source.name), vocabulary(tokenizer, model, source.name)
    kind, file_type = TYPES[weights]
    with renamed_at_the_end(output) as path:
        writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[found.kind])
        writer.add_string(MADE, json.dumps(_settings(source)))
        writer.add_name(Path(source.name).name)
        writer.add_file_type(file_type)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        found.describe(writer, model.config)
        _add_vocabulary(writer, words)
        if template := chat_template(source, tokenizer, words.adds_begin):
            writer.add_chat_template(template)
        named = [(name, weight, _type(name, weight, kind)) for name, weight in tensors(model, found.kind)]
        for name, weight, type_ in named:
            shape = gguf.quant_shape_to_byte_shape(tuple(weight.shape), type_)
            writer.add_tensor_info(name, shape, np.dtype(np.uint8), int(np.prod(shape)), type_)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        try:
            for name, weight, type_ in named:  # one at a time, so that no second copy of the model is in memory
                writer.write_tensor_data(_quantized(name, weight, type_))
        finally:
            writer.close()


def _settings(source: Source) -> dict[str, Any]:
    form = source.form
    return {"template": form.template or "chat", "system": form.system, "max_new_tokens": form.max_new_tokens}


def _add_vocabulary(writer: gguf.GGUFWriter, words: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(words.rule)
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.types)
    writer.add_token_merges(words.merges)
    # Without a begin token llama.cpp would take token 11.
    writer.add_bos_token_id(words.begin)
    ends = (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id)
    for add, end in zip(ends, words.ends, strict=False):
        add(end)
    writer.add_pad_token_id(words.padding)
    writer.add_add_bos_token(words.adds_begin)
    writer.add_add_eos_token(False)
    writer.add_array("tokenizer.ggml.suppress_tokens", words.suppressed)


def _type(name: str, weight: Tensor, kind: gguf.GGMLQuantizationType) -> gguf.GGMLQuantizationType:
    if weight.ndim == 1 or name in _WHOLE:
        return gguf.GGMLQuantizationType.F32
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    return kind if weight.shape[-1] % block == 0 else gguf.GGMLQuantizationType.F16


def _quantized(name: str, weight: Tensor, kind: gguf.GGMLQuantizationType) -> np.ndarray[Any, Any]:
    if kind == gguf.GGMLQuantizationType.F16:
        refuse_overflow(name, weight, torch.float16)
    return gguf.quantize(weight.detach().float().contiguous().numpy(), kind)


def chat_template(source: Source, tokenizer: Any, adds_begin: bool) -> str | None:
    """The chat template of the file, which asks the rewriter as it was trained to be asked.

    A program that chats with the file then needs no settings: the last message becomes the prompt in the rewriter's own
    text, or the tokenizer's template is used, without reasoning, and with the rewriter's system text.

    Args:
        source: The rewriter.
        tokenizer: Its tokenizer.
        adds_begin: Whether the begin token stands before each text; programs take it from the template.

    Returns:
        A template in Jinja's language; None if the tokenizer has none.
    """
    form = source.form
    if form.template is not None:
        start = "{{- bos_token }}" if adds_begin and not form.template.startswith(tokenizer.bos_token) else ""
        before, after = (json.dumps(edge, ensure_ascii=False) for edge in form.template.split("{prompt}"))
        return f"{start}{{{{ {before} + (messages[-1]['content'] | trim) + {after} }}}}"
    own = tokenizer.chat_template
    own = own.get("default") if isinstance(own, dict) else own
    if own is None:
        return None
    start = "{%- set enable_thinking = false %}"
    if form.system is not None:
        first = json.dumps([{"role": "system", "content": form.system}], ensure_ascii=False)
        start += f"{{%- if messages[0]['role'] != 'system' %}}{{%- set messages = {first} + messages %}}{{%- endif %}}"
    return start + str(own)
