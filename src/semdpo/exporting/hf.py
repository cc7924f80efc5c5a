"""The export to transformers: an ordinary folder, with adapters added to the weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from semdpo.exporting.source import Source
from semdpo.models.loading import quiet
from semdpo.models.rewriter import SETTINGS
from semdpo.models.rewriter_settings import read_settings, write_settings
from semdpo.training.folder import renamed_at_the_end, write_card

CARD = "README.md"


def write(source: Source, output: Path, weights: torch.dtype) -> None:
    """Writes the folder: weights, tokenizer, generation settings, ``semdpo.json`` and the model card.

    Args:
        source: The rewriter.
        output: The folder to write.
        weights: The type of the weights.

    Raises:
        ModelError: The rewriter cannot be read.
        StoreError: Something else exists there, or the folder cannot be written.
    """
    model, tokenizer = source.load()
    model.generation_config.max_new_tokens = source.form.max_new_tokens
    with renamed_at_the_end(output) as folder:
        with quiet():
            model.to(weights).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        kept = [name for name in (SETTINGS, CARD) if (source.folder / name).is_file()]
        for name in kept:
            shutil.copyfile(source.folder / name, folder / name)
        if SETTINGS not in kept:
            write_settings(folder, read_settings(source.folder))
        if CARD not in kept:
            write_card(folder, read_settings(source.folder), "exported", {"exported from": source.name})
