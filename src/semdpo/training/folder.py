"""A trained rewriter's folder: an ordinary transformers model, with its template and a short model card."""

from __future__ import annotations

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
from semdpo.training.packing import Group

_CARD = """\
---
{data}
---

# Prompt rewriter ({method})

Rewrites short prompts for text-to-image models. It reads `{template}` and continues with the rewrite.

    import semdpo
    semdpo.PromptOptimizer.from_pretrained("path/to/this/folder").optimize("a red ball")

| setting | value |
| --- | --- |
{rows}
"""


@contextmanager
def renamed_at_the_end(output: Path) -> Iterator[Path]:
    """A temporary folder beside ``output``, which takes its place when all went well and is removed otherwise.

    Args:
        output: absent, empty, or a folder of this package's, which is replaced.

    Raises:
        StoreError: ``output`` holds something else, or cannot be written.
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
            if (temporary / disk.REWRITER).is_file():  # a mark of its own
                (temporary / disk.MARK).unlink()
            temporary.chmod(0o755)  # mkdtemp's are for the owner only
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
    """Writes everything that ``load_rewriter`` and other tools need.

    Args:
        folder: exists.
        model: a causal language model.
        tokenizer: its tokenizer.
        kept: what it needs to be used.
        method: for the card's title.
        settings: for the card's table.
        weights: gathered from several processes; None are the model's own.
    """
    with quiet():
        # PEFT would save the embeddings too where it adapts them, although they are the base's.
        more = {"save_embedding_layers": False} if hasattr(model, "peft_config") else {}
        model.save_pretrained(folder, state_dict=weights, **more)
        tokenizer.save_pretrained(folder)
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
    card = ModelCard(_CARD.format(data=data.to_yaml(), method=method, template=kept.template, rows=rows))
    card.save(folder / "README.md")


def budget(groups: Sequence[Group], start: RewriterSettings) -> int:
    """The tokens that a rewriter may need: those of the longest rewrite that it has learnt, its end token among them.

    Args:
        groups: what it is trained on; the first completion of each is learnt.
        start: what the model that training starts from keeps; what it has learnt is not forgotten.
    """
    return max(Decoding().max_new_tokens, start.max_new_tokens or 0, *(len(each.completions[0]) for each in groups))
