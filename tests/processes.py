"""Processes, found by their command while they come and go."""

from __future__ import annotations

from collections.abc import Iterable

import psutil


def having(words: str, among: Iterable[psutil.Process]) -> list[psutil.Process]:
    """The processes whose command has these words, without those that end while they are asked."""
    found = []
    for process in among:
        try:
            if words in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:  # a ZombieProcess is one too
            pass
    return found
