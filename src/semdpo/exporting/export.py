"""``semdpo export``: one function for all programs that a rewriter can be written for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from semdpo import disk, extras
from semdpo.errors import ConfigError, did_you_mean
from semdpo.exporting import files

if TYPE_CHECKING:
    from semdpo.exporting.source import Source

FOLDERS = ("hf", "ollama")  # the others are single files
TARGETS = ("hf", "gguf", "ollama", "comfy")
TYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}  # torch's names
BLOCKS = "q8_0"  # 8 bits and a scale for each 32 weights, in GGUF files only


def export(model: str, to: str, output: Path, weights: str = "f32") -> str:
    """Writes a rewriter for another program.

    Args:
        model: The rewriter: a folder or a name.
        to: The program: hf, gguf, ollama or comfy.
        output: The folder (hf, ollama) or file (gguf, comfy) to write; one that semdpo wrote is replaced.
        weights: The type of the weights: f32, f16, bf16, or q8_0 for gguf and ollama.

    Returns:
        What a user must know to use it; may be empty.

    Raises:
        ConfigError: A setting is unknown, or a library is missing.
        ModelError: The rewriter cannot be read, or the program cannot run it.
        StoreError: Something else exists there, or it cannot be written.
    """
    _refuse_unknown(to, weights)
    if to in FOLDERS:
        disk.refuse_unwritable(output, folder=True)
        disk.refuse_foreign(output)
    else:
        files.refuse_foreign(output)
    from semdpo.exporting import source  # here, since it imports torch

    found = source.find(model)
    if to in ("gguf", "ollama"):
        extras.require(gguf=f"--to {to}")
        return _for_llama_cpp(found, to, output, weights)
    import torch

    from semdpo.exporting import comfy, hf

    type_ = getattr(torch, TYPES[weights])
    if to == "hf":
        hf.write(found, output, type_)
        return ""
    typed = comfy.write(found, output, type_)
    return f"in ComfyUI's TextGenerate node, switch sampling off and write as prompt: {typed!r}"


def _for_llama_cpp(found: Source, to: str, output: Path, weights: str) -> str:
    from semdpo.exporting import gguf_file, ollama

    if to == "gguf":
        model, tokenizer = found.load()
        gguf_file.write(found, model, tokenizer, output, weights)
        return ""
    ollama.write(found, output, weights)
    return f"make it known with: ollama create NAME -f {output / ollama.MODELFILE}"


def _refuse_unknown(to: str, weights: str) -> None:
    if to not in TARGETS:
        raise ConfigError(f"--to is '{to}'{did_you_mean(to, TARGETS)}")
    if weights not in (*TYPES, BLOCKS):
        raise ConfigError(f"--type is '{weights}'{did_you_mean(weights, (*TYPES, BLOCKS))}")
    if weights == BLOCKS and to not in ("gguf", "ollama"):
        raise ConfigError(f"--type {BLOCKS} is for --to gguf and --to ollama; give {', '.join(TYPES)} for --to {to}")
