"""The settings that a user gave to ``semdpo train``, each with the place where it was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Setting:
    """A value, and the place where the user wrote it, as errors name it: ``--beta`` or ``mine.yaml, line 3``."""

    value: Any
    place: str

    def named(self, name: str) -> str:
        """The setting as an error names it, at the beginning of its sentence."""
        return self.place if self.place.startswith("--") else f"{self.place}: '{name}'"


@dataclass(frozen=True)
class Given:
    """The settings of a training.

    Attributes:
        values: The values of all settings, by option name with ``_`` for ``-``.
        written: The settings that the user gave, by option or in the file.
        own: The objective's other settings, from --set or from ``set`` in the file.
    """

    values: Mapping[str, Any]
    written: Mapping[str, Setting]
    own: Mapping[str, Setting]
