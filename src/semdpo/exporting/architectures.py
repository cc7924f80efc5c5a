"""What a GGUF file says about GPT-2, Llama and Qwen3 models, and how llama.cpp wants their weights.

Source:
    llama.cpp's ``src/models/gpt2.cpp``, ``llama.cpp`` and ``qwen3.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gguf
import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from semdpo.errors import ModelError

NAMES = "GPT-2, Llama and Qwen3"
ROPE_FACTORS = "rope_freqs.weight"


@dataclass(frozen=True, slots=True)
class Architecture:
    """One of llama.cpp's architectures.

    Attributes:
        kind: llama.cpp's name for its list of tensors.
        describe: Writes the model's sizes.
        refusal: Why a model cannot be computed by llama.cpp; None if it can.
    """

    kind: gguf.MODEL_ARCH
    describe: Callable[[gguf.GGUFWriter, Any], None]
    refusal: Callable[[Any], str | None]


def architecture(model: Any, name: str) -> Architecture:
    """The architecture of a model.

    Args:
        model: A causal language model.
        name: Its name, for messages.

    Raises:
        ModelError: It is not one of the three, or differs from them in a way that llama.cpp cannot compute.
    """
    kind = model.config.model_type
    if kind not in ARCHITECTURES:
        raise ModelError(f"'{name}' is a model of the kind {kind}; export to gguf supports {NAMES}")
    found = ARCHITECTURES[kind]
    if reason := found.refusal(model.config):
        raise ModelError(f"llama.cpp cannot compute '{name}' ({reason}); export to hf")
    return found


def tensors(model: Any, kind: gguf.MODEL_ARCH) -> Iterator[tuple[str, Tensor]]:
    """The model's weights under llama.cpp's names and in its order of rows and columns.

    Args:
        model: A causal language model.
        kind: llama.cpp's architecture.

    Yields:
        Name, and weight in float32.

    Raises:
        ModelError: llama.cpp has no place for a weight.
    """
    names = gguf.get_tensor_name_map(kind, model.config.num_hidden_layers)
    transposed = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D)}
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for name, weight in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue  # llama.cpp takes the embeddings
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise ModelError(f"llama.cpp has no place for the weight {name}; export to hf")
        if name in transposed:
            weight = weight.T
        if kind == gguf.MODEL_ARCH.LLAMA and name.endswith(("q_proj.weight", "k_proj.weight")):
            weight = _interleaved(weight, model.config.head_dim)
        yield target, weight
    if kind == gguf.MODEL_ARCH.LLAMA and model.config.rope_parameters["rope_type"] == "llama3":
        yield ROPE_FACTORS, _rope_factors(model)


def _interleaved(weight: Tensor, size: int) -> Tensor:
    """Rows of a Llama's queries or keys, [heads · size, hidden], in the order of llama.cpp's rotation.

    transformers turns row i of a head together with row i + size / 2; llama.cpp turns neighbours, 2i and 2i + 1.
    """
    return weight.reshape(-1, 2, size // 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def _rope_factors(model: Any) -> Tensor:
    """By how much each frequency is slowed down in Llama 3.1 and later, [size of a head / 2]."""
    slowed: Tensor = model.model.rotary_emb.inv_freq.float()
    size, theta = model.config.head_dim, model.config.rope_parameters["rope_theta"]
    return torch.pow(theta, -torch.arange(0, size, 2).float() / size) / slowed


def _describe_gpt2(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)


def _refusal_of_gpt2(config: Any) -> str | None:
    if config.activation_function not in ("gelu_new", "gelu_pytorch_tanh"):
        return f"its activation is {config.activation_function}"
    if not config.scale_attn_weights or config.scale_attn_by_inverse_layer_idx:
        return "its attention is scaled in another way than GPT-2's"
    return "it has cross-attention" if config.add_cross_attention else None


def _describe_llama(writer: gguf.GGUFWriter, config: Any) -> None:
    """Llama and Qwen3."""
    rope = config.rope_parameters
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])


def _refusal_of_llama(config: Any) -> str | None:
    return _refusal_of_both(config, ("default", "linear", "llama3"))


def _refusal_of_qwen3(config: Any) -> str | None:
    if config.use_sliding_window:
        return "its attention has a sliding window"
    return _refusal_of_both(config, ("default", "linear"))


def _refusal_of_both(config: Any, rotations: tuple[str, ...]) -> str | None:
    rope = config.rope_parameters
    if rope["rope_type"] not in rotations:
        return f"its rotary embedding is of the type {rope['rope_type']}, and only {', '.join(rotations)} are known"
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        return "it rotates only a part of each head"
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act}"
    has_bias = config.attention_bias or getattr(config, "mlp_bias", False)
    return "its projections have biases" if has_bias else None


ARCHITECTURES = {
    "gpt2": Architecture(gguf.MODEL_ARCH.GPT2, _describe_gpt2, _refusal_of_gpt2),
    "llama": Architecture(gguf.MODEL_ARCH.LLAMA, _describe_llama, _refusal_of_llama),
    "qwen3": Architecture(gguf.MODEL_ARCH.QWEN3, _describe_llama, _refusal_of_qwen3),
}
