"""The export to Ollama: a folder with a GGUF file and a Modelfile, for ``ollama create NAME -f Modelfile``.

Source:
    Ollama's ``docs/modelfile.md``; its templates are those of Go's ``text/template``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from semdpo.disk import write_bytes
from semdpo.errors import ModelError
from semdpo.exporting import gguf_file
from semdpo.exporting.source import Source, edges
from semdpo.exporting.vocabulary import vocabulary
from semdpo.training.folder import renamed_at_the_end

WEIGHTS, MODELFILE = "model.gguf", "Modelfile"
_CONTEXT = 4096  # positions; a prompt and its rewrite need no more, and Ollama reserves memory for all of them


def write(source: Source, output: Path, weights: str) -> None:
    """Writes the folder.

    Args:
        source: The rewriter.
        output: The folder to write.
        weights: The type of the matrices, as for ``gguf_file.write``.

    Raises:
        ModelError: llama.cpp cannot compute the model, or a text cannot be written into a Modelfile.
        StoreError: Something else exists there, or the folder cannot be written.
    """
    model, tokenizer = source.load()
    text = modelfile(source, model, tokenizer)
    with renamed_at_the_end(output) as folder:
        gguf_file.write(source, model, tokenizer, folder / WEIGHTS, weights)
        write_bytes(folder / MODELFILE, text.encode())


def modelfile(source: Source, model: Any, tokenizer: Any) -> str:
    """The Modelfile: where the weights are, the text around a prompt, and greedy decoding with the rewriter's budget.

    Args:
        source: The rewriter.
        model: Its model.
        tokenizer: Its tokenizer.

    Raises:
        ModelError: A text cannot be written into a Modelfile.
    """
    words = vocabulary(tokenizer, model, source.name)
    parts = edges(source, tokenizer)
    if words.adds_begin:  # Ollama puts it there itself
        parts[0] = parts[0].removeprefix(words.tokens[words.begin])
    slots = ["{{ .Prompt }}"] if len(parts) == 2 else ["{{ .System }}", "{{ .Prompt }}"]
    template = "".join(_literal(part) + slot for part, slot in zip(parts, [*slots, ""], strict=True))
    lines = [f"FROM ./{WEIGHTS}", f"TEMPLATE {_quoted(template)}"]
    if source.form.system is not None:
        lines.append(f"SYSTEM {_quoted(source.form.system)}")
    settings = {
        "temperature": 0,
        "repeat_penalty": 1,  # Ollama's own is 1.1
        "num_predict": source.form.max_new_tokens,
        "num_ctx": min(_CONTEXT, model.config.max_position_embeddings),
    }
    lines += [f"PARAMETER {name} {value}" for name, value in settings.items()]
    ends = [words.tokens[end] for end in words.ends]
    if odd := [token for token in ends if '"' in token or not token.isprintable()]:
        raise ModelError(f"a Modelfile cannot hold the end token {odd[0]!r} of '{source.name}'; export to gguf")
    lines += [f'PARAMETER stop "{token}"' for token in ends]
    return "\n".join([*lines, ""])


def _literal(text: str) -> str:
    """A text that Go's templates print as it is."""
    return text.replace("{{", '{{ "{{" }}')


def _quoted(text: str) -> str:
    if '"""' in text:
        raise ModelError('a Modelfile cannot hold a text with three quotation marks in a row ("""); export to gguf')
    return f'"""{text}"""'
