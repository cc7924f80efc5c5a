"""Log-probabilities under the reference: the model before training, asked once for every sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from semdpo.objectives import sequence_logps
from semdpo.progress import Progress, silent
from semdpo.training.batches import Tokens, pad


def reference_logps(
    model: Any, sequences: Sequence[Tokens], pad_id: int, batch_size: int, progress: Progress = silent
) -> Tensor:
    """log π_ref(y|x) of every sequence.

    Args:
        model: the starting model; put into evaluation mode.
        sequences: n token sequences.
        pad_id: fills up batches.
        batch_size: sequences at a time.
        progress: told after every batch.

    Returns:
        [n], float32, without gradient.
    """
    model.eval()
    found = torch.zeros(len(sequences))
    for start in range(0, len(sequences), batch_size):
        batch = pad(sequences[start : start + batch_size], pad_id)
        with torch.no_grad():
            logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits
            found[start : start + batch_size] = sequence_logps(logits, batch.labels)
        progress(min(start + batch_size, len(sequences)), len(sequences), "reference")
    return found
