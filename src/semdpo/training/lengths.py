"""Up to which length a model says the same of a text, whatever it is computed with."""

from __future__ import annotations

from typing import Any


def constant_length(config: Any) -> int | None:
    """Up to how many tokens attention and positions do not depend on a sequence's length; None: always.

    Args:
        config: of a causal language model: ``sliding_window`` and ``attention_chunk_size`` limit what a token sees;
            rotary positions of type ``dynamic`` and ``longrope`` are other ones beyond their original length.
    """
    limits = [getattr(config, "attention_chunk_size", None)]
    windowed = getattr(config, "use_sliding_window", True)
    limits.append(getattr(config, "sliding_window", None) if windowed else None)
    limits += [getattr(config, name, None) for name in ("window_size", "attention_window")]
    limits.append(varying_rope_length(config))
    whole = [each for each in limits if isinstance(each, int) and each > 0]
    return min(whole, default=None)


def varying_rope_length(config: Any) -> int | None:
    """Up to how many tokens rotary positions are the same for texts of any length; None: always.

    Args:
        config: of a causal language model.
    """
    found = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = [found, *(each for each in found.values() if isinstance(each, dict))]
    varying = [each for each in kinds if each.get("rope_type", each.get("type")) in ("dynamic", "longrope")]
    original = getattr(config, "original_max_position_embeddings", None)
    most = [
        each.get("original_max_position_embeddings") or original or getattr(config, "max_position_embeddings", None)
        for each in varying
    ]
    return min((int(each) for each in most if each), default=None)
