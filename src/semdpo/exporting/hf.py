"""The export to transformers: an ordinary folder, with adapters added to the weights."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import torch

from semdpo.engine import fingerprint
from semdpo.exporting.source import Source, refuse_overflow
from semdpo.models import drift_limit
from semdpo.models.loading import quiet
from semdpo.models.rewriter import SETTINGS
from semdpo.models.rewriter_settings import read_settings, write_settings
from semdpo.training.folder import renamed_at_the_end, write_card

CARD = "README.md"


def write(source: Source, output: Path, weights: torch.dtype) -> None:
    """Writes the folder: weights, tokenizer, generation settings, ``semdpo.json``, the model card, and ``guard.json``.

    Args:
        source: The rewriter.
        output: The folder to write.
        weights: The type of the weights.

    Raises:
        ModelError: The rewriter cannot be read, or float16 cannot hold a weight.
        StoreError: Something else exists there, or the folder cannot be written.
    """
    model, tokenizer = source.load()
    for name, weight in model.state_dict().items():
        refuse_overflow(name, weight, weights)
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
        if weights is torch.float32:
            _keep_limit(source.folder, folder)


def _keep_limit(before: Path, after: Path) -> None:
    """Keeps the limit of the drift that the rewriter's own evaluation measured; equal weights write equal rewrites."""
    limit = drift_limit.read_for(before, fingerprint.model(before))
    if limit is not None:
        drift_limit.write(after, replace(limit, model=fingerprint.model(after)))
