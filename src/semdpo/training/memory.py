"""The processor's memory: large tensors are taken from it once, not anew for every operation."""

from __future__ import annotations

import ctypes
import sys

import torch

# From glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> None:
    """Tells glibc to keep what was freed for the next tensor; does nothing elsewhere, or where a GPU computes.

    It changes the whole process, so only commands call it, which have one of their own.

    As it comes, malloc gives every tensor of more than some megabytes back to the system and asks for fresh pages for
    the next one, which are then filled with zeros: a third of a training step of GPT-2 on a CPU.
    """
    if torch.cuda.is_available() or not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return  # another C library, such as musl
    for setting, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 64 << 20), (_ARENA_MAX, 1)):
        mallopt(setting, value)
