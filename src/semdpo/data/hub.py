"""Reads data sets of the hub with the library ``datasets``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from semdpo import extras
from semdpo.data.arrow_files import Columns, from_arrow
from semdpo.errors import DataError

__all__ = ["hub_rows", "hub_table"]


def hub_table(name: str) -> Columns:
    """A data set's columns; only columns that are used become Python values.

    Args:
        name: ``OWNER/NAME[:SPLIT]``.

    Raises:
        ConfigError: the library ``datasets`` is not installed.
        DataError: the hub cannot be reached, or has no such data set.
    """
    return from_arrow(_load(name).with_format("arrow")[:], f"hub:{name}")


def hub_rows(name: str) -> Iterator[dict[str, Any]]:
    """All rows of a data set of the hub, with all columns as they are stored.

    Args:
        name: ``OWNER/NAME[:SPLIT]``.

    Raises:
        ConfigError: the library ``datasets`` is not installed.
        DataError: the hub cannot be reached.
    """
    for part in _load(name).with_format("arrow").iter(batch_size=1000):
        yield from part.to_pylist()


def _load(name: str) -> Any:
    repository, _, split = name.partition(":")
    extras.require(hub=f"reading hub:{name}")
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    try:
        return load_dataset(repository, split=split or "train")
    except Exception as error:  # the library passes on the errors of its readers and of the network
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"the data set {repository} could not be read from the hub ({lines[0][:200].rstrip(' .')}); check its "
            "name, its split and the network connection, or download it and give the file"
        ) from error
