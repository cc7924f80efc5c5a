"""Memory on CPUs: keeps the memory of freed tensors for the next ones instead of returning it to the system."""

from __future__ import annotations

import ctypes
import sys

import torch

# From glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> None:
    """Makes glibc keep freed memory for the next tensor; does nothing with other C libraries or where there is a GPU.

    It changes the whole process, so only commands, which have their own process, call it.

    By default, malloc returns every tensor of more than some megabytes to the system and requests new pages for the
    next one, which the system fills with zeros: this takes a third of a training step of GPT-2 on a CPU.
    """
    if torch.cuda.is_available() or not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return  # another C library, such as musl
    for setting, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 64 << 20), (_ARENA_MAX, 1)):
        mallopt(setting, value)
