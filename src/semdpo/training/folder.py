"""The folder of a trained rewriter: an ordinary transformers model with its template and a short model card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from semdpo import disk
from semdpo.models.loading import quiet
from semdpo.models.rewriter import Decoding
from semdpo.models.rewriter_settings import RewriterSettings, write_settings
from semdpo.models.standalone import write_for_others
from semdpo.training.packing import Group

_CARD = """\
---
{data}
---

# Prompt rewriter ({method})

Rewrites short prompts for text-to-image models. It reads {reads} and continues with the rewrite.

With transformers alone:

    from transformers import pipeline

    rewriter = pipeline("text-generation", "path/to/this/folder")
    messages = {messages}
    print(rewriter(messages)[0]["generated_text"][-1]["content"].strip())

With semdpo, which keeps the prompt where a rewrite drifts too far from it:

    import semdpo

    print(semdpo.PromptOptimizer.from_pretrained("path/to/this/folder").optimize("a red ball").rewrite)

| setting | value |
| --- | --- |
{rows}
"""


@contextmanager
def renamed_at_the_end(output: Path) -> Iterator[Path]:
    """A temporary folder next to ``output``, renamed to it on success and removed on failure.

    Args:
        output: the final folder: absent, empty, or written by semdpo, in which case it is replaced.

    Raises:
        StoreError: ``output`` has files that semdpo did not write, or cannot be written.
    """
    disk.refuse_foreign(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(mkdtemp(prefix=f".{output.name[:100]}-", dir=output.parent))
    except OSError as error:
        raise disk.unwritable(output.parent, error) from error
    try:
        disk.mark(temporary)
        with disk.explain_full_disk(output):
            yield temporary
            if (temporary / disk.REWRITER).is_file():  # the rewriter's own mark
                (temporary / disk.MARK).unlink()
            temporary.chmod(0o755)  # mkdtemp's folders are readable by their owner only
            disk.sync(temporary)
        disk.remove(output)
        disk.rename(temporary, output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def save(
    folder: Path,
    model: Any,
    tokenizer: Any,
    kept: RewriterSettings,
    method: str,
    settings: Mapping[str, Any],
    weights: Mapping[str, Any] | None = None,
) -> None:
    """Writes the model, its tokenizer, its settings and its model card.

    Args:
        folder: an existing folder.
        model: a causal language model.
        tokenizer: the model's tokenizer.
        kept: settings that the rewriter needs for use.
        method: name of the method, for the card's title.
        settings: settings of the training, for the card's table.
        weights: weights gathered from several processes; None uses the model's own.
    """
    with quiet():
        # Where PEFT adapts the embeddings it would also save the base model's embeddings.
        more = {"save_embedding_layers": False} if hasattr(model, "peft_config") else {}
        model.save_pretrained(folder, state_dict=weights, **more)
        write_for_others(folder, tokenizer, kept, model.generation_config.eos_token_id)
    write_settings(folder, kept)
    write_card(folder, kept, method, settings)


def write_card(folder: Path, kept: RewriterSettings, method: str, settings: Mapping[str, Any]) -> None:
    """Writes the model card, ``README.md``.

    Args:
        folder: exists.
        kept: what the rewriter needs to be used.
        method: for the title.
        settings: for the table.
    """
    rows = "\n".join(f"| {name} | {value} |" for name, value in {**settings, **kept.card_rows()}.items())
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["semdpo", "text-to-image", "prompt-optimization"],
    )
    system = [] if kept.system is None else [{"role": "system", "content": kept.system}]
    messages = json.dumps([*system, {"role": "user", "content": "a red ball"}], ensure_ascii=False)
    reads = "the prompt as a message of a chat" if kept.reads.is_chat else f"`{kept.template}`"
    card = ModelCard(_CARD.format(data=data.to_yaml(), method=method, reads=reads, messages=messages, rows=rows))
    card.save(folder / "README.md")


def budget(groups: Sequence[Group], start: RewriterSettings) -> int:
    """The token budget of a rewriter: that of the longest rewrite it was trained on, including the end token.

    Args:
        groups: the training groups; the first completion of every group counts.
        start: settings of the starting model, whose budget is a lower bound.
    """
    return max(Decoding().max_new_tokens, start.max_new_tokens or 0, *(len(group.completions[0]) for group in groups))
