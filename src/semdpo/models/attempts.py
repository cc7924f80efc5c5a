"""What fails for one item alone: the others of its batch go on, and the item gets the reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from semdpo import disk
from semdpo.data.records import UNRENDERED
from semdpo.errors import (
    DataError,
    PartlyRefusedError,
    RefusedRequestError,
    SemdpoError,
    StoreError,
    out_of_memory,
)
from semdpo.protocols import Renderer, render_checked

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")
R = TypeVar("R")


def attempted(work: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> list[R | Exception]:
    """The result of each item; where the work fails for several together, it is tried for each alone.

    Errors that one item cannot cause end the run: semdpo's own, and a lack of memory or of space on the disk. A server
    that refuses some of several requests has answered the others.

    Args:
        work: gives one result for each item.
        items: the items, [n].

    Returns:
        n results, or the error of an item that has none.

    Raises:
        SemdpoError: the work cannot be done, whatever the items.
    """
    if not items:
        return []
    try:
        results = work(items)
    except PartlyRefusedError as error:
        return error.outcomes
    except Exception as error:
        if isinstance(error, SemdpoError) or out_of_memory(error):
            raise
        if disk.out_of_space(error):  # of a model that keeps files of its own, such as compiled kernels
            raise StoreError("there is no space left for the files of a renderer or scorer; free some space") from error
        return [error] if len(items) == 1 else [each for item in items for each in attempted(work, [item])]
    if len(results) != len(items):
        raise DataError(f"a model gave {len(results)} results for {len(items)} images; correct the renderer or scorer")
    return list(results)


def rendered(renderer: Renderer, rows: Sequence[tuple[str, int]]) -> tuple[list[tuple[Image.Image, bool] | str], bool]:
    """Renders a batch. What cannot be rendered has the reason in its place.

    Args:
        renderer: the text-to-image model.
        rows: text and seed of each image, [n].

    Returns:
        For each row its image and whether it was blackened, or why it has none; and whether all were rendered together.

    Raises:
        SemdpoError: as for ``attempted``.
    """
    calls: list[int] = []

    def render(some: Sequence[tuple[str, int]]) -> list[tuple[Image.Image, bool]]:
        calls.append(len(some))
        return render_checked(renderer, [text for text, _ in some], [seed for _, seed in some])

    outcomes = attempted(render, rows)
    found = [f"{UNRENDERED} ({reason(each)})" if isinstance(each, Exception) else each for each in outcomes]
    return found, calls == [len(rows)]


def reason(error: Exception) -> str:
    """Why an item has no result, in one line."""
    if isinstance(error, RefusedRequestError):
        return str(error)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def tolerated(items: int, share: float) -> int:
    """How many of a shard's items may fail: one, however small the shard, unless none may.

    Args:
        items: the number of items.
        share: the share of them that may fail, 0 to 1.
    """
    return max(1, math.floor(share * items)) if share else 0
