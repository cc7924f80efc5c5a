"""What worker processes do in tests/test_workers.py; this module imports nothing, so that they start at once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable


def opened(make: Callable[[str, int], object]) -> Callable[[str, int], object]:
    return make


def dies(stage: str, index: int) -> int:
    if index == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return index


def fails(error: Exception, stage: str, index: int) -> int:
    raise error


def slow(stage: str, index: int) -> int:
    time.sleep(60)
    return index


def gpu(stage: str, index: int) -> str:
    time.sleep(2)  # until all have a shard
    return os.environ["CUDA_VISIBLE_DEVICES"]


def name(stage: str, index: int) -> str:
    return f"{stage} {index}"


def nap(stage: str, index: int) -> int:
    time.sleep(0.2)
    return index
