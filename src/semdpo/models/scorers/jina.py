"""Jina's embeddings of pictures and texts (arXiv 2506.18902); its model runs code of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from semdpo.errors import ModelError
from semdpo.models.device import Compute
from semdpo.models.loading import quiet, read_json
from semdpo.models.registry import Place
from semdpo.models.scorers.batched import Judge
from semdpo.models.tokens import refuse_special_text
from semdpo.protocols import Bool

# jina-embeddings-v4 has one adapter a task, and prefixes a query's text with "Query: ".
_V4_TEXT = {"task": "retrieval", "prompt_name": "query"}
_V4_IMAGE = {"task": "retrieval"}


def jina(place: Place, where: Compute, allowed: bool) -> Judge:
    """The cosine of picture and prompt, in [-1, 1].

    Args:
        place: a model with ``encode_text`` and ``encode_image``: jina-embeddings-v4 or jina-clip-v2.
        where: it computes.
        allowed: whether its own Python code may run.

    Raises:
        ModelError: the code may not run, does not run with the libraries that are installed, or lacks weights.
    """
    folder = place.folder()
    if not allowed:
        raise ModelError(
            f"model '{place.name}' runs Python code that comes with it; if you trust its publisher, say so with "
            f"scoring.allow_remote_code=['{place.name}']"
        )
    from semdpo.models.remote import load_remote

    model = load_remote(folder, where)
    tokenizer = _tokenizer(model)
    fourth = "JinaEmbeddingsV4Model" in (read_json(folder / "config.json").get("architectures") or [])
    of_text, of_image = (_V4_TEXT, _V4_IMAGE) if fourth else ({}, {})

    def judge(images: Sequence[Image.Image], prompts: Sequence[str]) -> tuple[Tensor, Bool]:
        if tokenizer is not None:  # of the model's own code, which would obey it
            refuse_special_text(tokenizer, prompts, place.name)
        with quiet():
            text = _unit(model.encode_text(list(prompts), **of_text))
            seen = _unit(model.encode_image(list(images), **of_image))
        # It reads thousands of tokens, so that no prompt is truncated.
        return (text * seen).sum(-1), np.zeros(len(prompts), np.bool_)

    return judge


def _tokenizer(model: Any) -> Any:
    """jina-embeddings-v4 has its tokenizer in a processor, jina-clip-v2 gives it out."""
    inner = getattr(getattr(model, "processor", None), "tokenizer", None) or getattr(model, "tokenizer", None)
    found = model.get_tokenizer() if inner is None and hasattr(model, "get_tokenizer") else inner
    return found if hasattr(found, "all_special_tokens") else None


def _unit(vectors: Any) -> Tensor:
    rows = vectors if isinstance(vectors, Tensor) else torch.stack([torch.as_tensor(each) for each in vectors])
    return torch.nn.functional.normalize(rows.float().cpu(), dim=-1)
