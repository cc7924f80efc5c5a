"""Jina's embeddings of images and texts (arXiv 2506.18902); the model runs its own Python code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from semdpo.models.device import Compute
from semdpo.models.loading import quiet, read_json
from semdpo.models.registry import Place
from semdpo.models.remote import load_remote
from semdpo.models.scorers.base import ScoreFunction, ScorerKind
from semdpo.models.tokens import refuse_special_text
from semdpo.protocols import Bool

# jina-embeddings-v4 has one adapter per task, and puts "Query: " before a query's text.
_V4_TEXT = {"task": "retrieval", "prompt_name": "query"}
_V4_IMAGE = {"task": "retrieval"}


def jina(place: Place, where: Compute) -> ScoreFunction:
    """The cosine of image and prompt, in [-1, 1].

    Args:
        place: The place of a model with ``encode_text`` and ``encode_image``: jina-embeddings-v4 or jina-clip-v2.
        where: The device and the weights' type.

    Raises:
        ModelError: Its Python code does not run with the installed libraries, or weights are missing.
    """
    folder = place.folder()
    model = load_remote(folder, where)
    tokenizer = _tokenizer(model)
    fourth = "JinaEmbeddingsV4Model" in (read_json(folder / "config.json").get("architectures") or [])
    of_text, of_image = (_V4_TEXT, _V4_IMAGE) if fourth else ({}, {})

    def score(images: Sequence[Image.Image], prompts: Sequence[str]) -> tuple[Tensor, Bool]:
        if tokenizer is not None:  # the model's own code would obey special tokens
            refuse_special_text(tokenizer, prompts, place.name)
        with quiet():
            text = _unit(model.encode_text(list(prompts), **of_text))
            image = _unit(model.encode_image(list(images), **of_image))
        # It reads thousands of tokens, so no prompt is truncated.
        return (text * image).sum(-1), np.zeros(len(prompts), np.bool_)

    return score


def _tokenizer(model: Any) -> Any:
    """The model's tokenizer: jina-embeddings-v4 has it in a processor, jina-clip-v2 behind a method."""
    inner = getattr(getattr(model, "processor", None), "tokenizer", None) or getattr(model, "tokenizer", None)
    tokenizer = model.get_tokenizer() if inner is None and hasattr(model, "get_tokenizer") else inner
    return tokenizer if hasattr(tokenizer, "all_special_tokens") else None


def _unit(vectors: Any) -> Tensor:
    rows = vectors if isinstance(vectors, Tensor) else torch.stack([torch.as_tensor(row) for row in vectors])
    return torch.nn.functional.normalize(rows.float().cpu(), dim=-1)


SCORER = ScorerKind("jina", jina, architectures=("JinaEmbeddingsV4Model", "JinaCLIPModel"), runs_code=True)
