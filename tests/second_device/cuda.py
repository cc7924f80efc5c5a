"""``as_cuda``: torch has a GPU, which is the second device.

Whatever Python asks of torch passes a mode that reads "cuda" as the second device, and says "cuda" where torch says the
second device: code for CUDA runs unchanged, whichever way it names or looks up its device. C++ still knows the two
apart, so it refuses what CUDA would refuse.
"""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode

from tests.second_device.build import NAME, library

GIGABYTE = 10**9
Function = Callable[..., Any]
_NAMES_A_DEVICE = ("is_autocast_enabled", "get_autocast_dtype", "set_autocast_enabled", "set_autocast_dtype", "load")


@functools.cache
def load() -> types.ModuleType:
    """Registers the device with torch, compiled where it is not yet; the module torch.second."""
    torch.ops.load_library(str(library()))
    torch.utils.rename_privateuse1_backend(NAME)
    module = types.ModuleType(f"torch.{NAME}")
    default = torch.ops.second.generator()
    nothing: dict[str, Function] = dict.fromkeys(("set_device", "synchronize", "empty_cache"), lambda *_: None)
    more: dict[str, Function] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_is_in_bad_fork": lambda: False,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "manual_seed": default.manual_seed,
        "manual_seed_all": default.manual_seed,
        "get_rng_state": lambda *_: default.get_state(),
        "set_rng_state": lambda state, *_: default.set_state(state),
        "get_rng_state_all": lambda: [default.get_state()],
        "set_rng_state_all": lambda states: default.set_state(states[0]),
        "get_amp_supported_dtype": lambda: [torch.float16, torch.bfloat16],
    }
    vars(module).update(nothing | more)
    torch._register_device_module(NAME, module)
    _teach_flex_attention_mixed_precision()
    return module


def operators_run() -> int:
    """How many operators the second device has computed in this process."""
    load()
    count: int = torch.ops.second.operators_run()
    return count


@contextlib.contextmanager
def as_cuda(native_bfloat16: bool = True) -> Iterator[None]:
    """While open there is one GPU; models must be loaded inside.

    FlexAttention is computed uncompiled, since Triton's kernels need a GPU.

    Args:
        native_bfloat16: whether the GPU is one that computes in it.
    """
    from torch.nn.attention import flex_attention
    from transformers.integrations import flex_attention as in_transformers

    def uncompiled(*tensors: Any, training: bool = False, **more: Any) -> Any:
        return flex_attention.flex_attention(*tensors, **more)

    before = torch.__future__.get_swap_module_params_on_conversion()
    with contextlib.ExitStack() as stack:

        def put(owner: Any, name: str, value: Any) -> None:
            stack.enter_context(mock.patch.object(owner, name, value))

        for name, said in _answers(native_bfloat16).items():
            put(torch.cuda, name, said)
            if hasattr(torch.cuda.random, name):
                put(torch.cuda.random, name, said)
        for name in _NAMES_A_DEVICE:
            put(torch, name, _reading_cuda(getattr(torch, name)))
        put(torch.autocast, "__init__", _reading_cuda(torch.autocast.__init__))
        put(torch, "Generator", _Generator)
        put(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
        put(in_transformers, "compile_friendly_flex_attention", uncompiled)
        # Or Module.to would make new parameters, and part those that are tied.
        torch.__future__.set_swap_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, before)
        _forget_the_device()
        stack.callback(_forget_the_device)
        # In threads of its own torch's backward knows those devices only that were there at its first call.
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        stack.enter_context(_Reading())
        yield


class _Reading(TorchFunctionMode):
    """Reads "cuda" as the second device in all of torch's functions, and the other way round in what they return."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is torch.Tensor.cuda:
            return args[0].to(NAME)
        if function is torch.Tensor.backward:  # in which models compute again what was not kept
            with self:
                kwargs["grad_tensors"] = kwargs.pop("gradient", None)
                return torch.autograd.backward(*args, **kwargs)
        if function == torch.Tensor.is_cuda.__get__:
            return args[0].device.type == NAME
        return _said(_reading_cuda(function)(*args, **kwargs))


class _Generator(torch.Generator):
    """torch's, made on the second device where CUDA is named."""

    def __new__(cls, device: Any = "cpu") -> Any:
        return super().__new__(cls, _meant(device))

    @property
    def device(self) -> torch.device:
        return _said(super().device)


def _meant(value: Any) -> Any:
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device(NAME, value.index or 0)
    return NAME if isinstance(value, str) and value in ("cuda", "cuda:0") else value


def _said(value: Any) -> Any:
    return torch.device("cuda", 0) if isinstance(value, torch.device) and value.type == NAME else value


def _reading_cuda(function: Function) -> Function:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*map(_meant, args), **{name: _meant(value) for name, value in kwargs.items()})

    return call


def _answers(native_bfloat16: bool) -> dict[str, Any]:
    """What torch.cuda says of a machine with one GPU, and its functions that act."""
    names = ("set_device", "synchronize", "empty_cache", "manual_seed", "manual_seed_all", "get_rng_state")
    names += ("set_rng_state", "get_rng_state_all", "set_rng_state_all", "device_count", "current_device")
    counts = ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved")
    return {
        **{name: getattr(load(), name) for name in names},
        **dict.fromkeys(counts, lambda *_: 0),
        "is_available": lambda: True,
        "is_bf16_supported": lambda including_emulation=True: native_bfloat16 or including_emulation,
        "get_device_name": lambda *_: "second device",
        "get_device_capability": lambda *_: (9, 0) if native_bfloat16 else (7, 5),
        "mem_get_info": lambda *_: (70 * GIGABYTE, 80 * GIGABYTE),
        "reset_peak_memory_stats": lambda *_: None,
        "device": lambda *_: contextlib.nullcontext(),
    }


def _forget_the_device() -> None:
    """Accelerate remembers a process's device."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)


def _teach_flex_attention_mixed_precision() -> None:
    """As torch itself does it for the devices that it knows."""
    operators, key = torch.ops.higher_order, torch._C.DispatchKey.AutocastPrivateUse1
    operators.flex_attention_backward.fallthrough(key)

    @operators.flex_attention.py_impl(key)  # type: ignore[untyped-decorator]
    def in_low_precision(query: Any, keys: Any, values: Any, *rest: Any) -> Any:
        low = (each.to(torch.get_autocast_dtype(NAME)) for each in (query, keys, values))
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(key)):
            return operators.flex_attention(*low, *rest)
