"""``semdpo export``: writes a rewriter for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semdpo import disk
from semdpo.cli import output
from semdpo.progress import say


def export(
    model: Annotated[str, typer.Argument(help="The rewriter: a folder or a name.")],
    to: Annotated[str, typer.Option(help="The program to write for: hf (transformers), gguf, ollama or comfy.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder (hf, ollama) or the file (gguf, comfy) to write.")
    ],
    type_: Annotated[
        str, typer.Option("--type", help="Type of the weights: f32, f16, bf16, or q8_0 for gguf and ollama.")
    ] = "f32",
) -> None:
    """Write a rewriter for transformers, llama.cpp, Ollama or ComfyUI, with adapters added to its weights."""
    output.refuse_inputs(out, [model])
    from semdpo.exporting.export import export

    existed = disk.is_dir(out) or disk.is_file(out)
    hint = export(model, to, out, type_)
    say(f"replaced {out}" if existed else f"wrote {out}")
    if hint:
        say(hint)
