"""The length up to which a model's result for a text does not depend on the other texts of its batch."""

from __future__ import annotations

from typing import Any


def constant_length(config: Any) -> int | None:
    """The number of tokens up to which attention and positions do not depend on a sequence's length; None: unlimited.

    ``sliding_window`` and ``attention_chunk_size`` limit the tokens that a token attends to; rotary positions of type
    ``dynamic`` and ``longrope`` change beyond their original length.

    Args:
        config: configuration of a causal language model.
    """
    limits = [getattr(config, "attention_chunk_size", None)]
    windowed = getattr(config, "use_sliding_window", True)
    limits.append(getattr(config, "sliding_window", None) if windowed else None)
    limits += [getattr(config, name, None) for name in ("window_size", "attention_window")]
    limits.append(varying_rope_length(config))
    given = [limit for limit in limits if isinstance(limit, int) and limit > 0]
    return min(given, default=None)


def varying_rope_length(config: Any) -> int | None:
    """The number of tokens up to which rotary positions do not depend on a text's length; None: unlimited.

    Args:
        config: configuration of a causal language model.
    """
    parameters = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = [parameters, *(kind for kind in parameters.values() if isinstance(kind, dict))]
    varying = [kind for kind in kinds if kind.get("rope_type", kind.get("type")) in ("dynamic", "longrope")]
    original = getattr(config, "original_max_position_embeddings", None)
    lengths = [
        kind.get("original_max_position_embeddings") or original or getattr(config, "max_position_embeddings", None)
        for kind in varying
    ]
    return min((int(length) for length in lengths if length), default=None)
