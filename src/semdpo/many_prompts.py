"""Rewrites a file of prompts: batch by batch, and resumes where it was stopped.

Finished rows are kept in ``NAME.partial`` beside the output. Its first line says what they were made with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from semdpo import disk, locks
from semdpo.data import writers
from semdpo.errors import EndpointError, StoreError
from semdpo.progress import Progress, silent
from semdpo.prompt_optimizer import Optimized, PromptOptimizer, Request

BATCH = 64  # prompts
_ROW = TypeAdapter(Annotated[list[Optimized], Field(min_length=1)])  # what a line of the unfinished file holds


def optimized(optimizer: PromptOptimizer, requests: Sequence[Request], batch: int = BATCH) -> Iterator[list[Optimized]]:
    """The variants of each request, in order, while the later ones are still to come."""
    for start in range(0, len(requests), batch):
        yield from optimizer.optimize_all(requests[start : start + batch])


def to_file(
    optimizer: PromptOptimizer,
    requests: Sequence[Request],
    out: Path,
    settings: Mapping[str, Any],
    progress: Progress = silent,
    batch: int = BATCH,
) -> list[Optimized]:
    """Rewrites prompts into a file, completely or not at all; after an interruption, the same call resumes.

    Args:
        optimizer: the rewriter and its guard.
        requests: what is asked, n.
        out: the file to write: txt (rewrites only), jsonl, csv, tsv or parquet.
        settings: all else that the rewrites depend on, such as the encoder and the limit of drift.
        progress: called after every batch.
        batch: the number of prompts that are rewritten at once.

    Returns:
        All variants, in the order of the requests.

    Raises:
        StoreError: unfinished rows of another command are in the way, another process writes the same file, or it
            cannot be written.
        DataError: the suffix is unknown, or a prompt is empty.
        EndpointError: the rewriter's server cannot be used; what is finished is kept.
    """
    partial = out.with_name(f"{out.name}.partial")
    wanted = {"model": optimizer.fingerprint, **settings}
    refusal = f"{out} is being written by {{}}; wait until it ends, or choose another file"
    with locks.alone(out, refusal), disk.explain_full_disk(out):
        rows = _resumed(partial, wanted, requests)
        with partial.open("a", encoding="utf-8") as file:
            if partial.stat().st_size == 0:
                file.write(json.dumps(wanted) + "\n")
            progress(len(rows), len(requests))
            for start in range(len(rows), len(requests), batch):
                found = _rewritten(optimizer, requests, start, batch)
                file.writelines(json.dumps([each.record() for each in variants]) + "\n" for variants in found)
                file.flush()
                rows += found
                progress(len(rows), len(requests))
        variants = [each for row in rows for each in row]
        disk.write_bytes(out, encoded(out.suffix.lower(), variants))
        partial.unlink()
    return variants


def _rewritten(
    optimizer: PromptOptimizer, requests: Sequence[Request], start: int, batch: int
) -> list[list[Optimized]]:
    try:
        return optimizer.optimize_all(requests[start : start + batch], stop_when_down=True)
    except EndpointError as error:  # prompts kept for this reason would never be asked for again
        raise EndpointError(
            f"{error}; {start} of {len(requests)} prompts are finished: run the same command again to resume"
        ) from error


def encoded(suffix: str, variants: Sequence[Optimized]) -> bytes:
    """The bytes of a file of variants: their rewrites as lines of text, or a table of their records."""
    if suffix == ".txt":
        # A prompt of several lines, kept as it is, would move all later lines away from their prompts.
        return "".join(" ".join(variant.rewrite.split()) + "\n" for variant in variants).encode("utf-8")
    records = [variant.record() for variant in variants]
    columns = {name: [_cell(suffix, record[name]) for record in records] for name in records[0]}
    return writers.encoded(suffix, columns)


def _cell(suffix: str, value: Any) -> Any:
    return ", ".join(value) if isinstance(value, list) and suffix in (".csv", ".tsv") else value


def _resumed(partial: Path, wanted: Mapping[str, Any], requests: Sequence[Request]) -> list[list[Optimized]]:
    """The finished rows of the same command; an incomplete last line is removed."""
    if not partial.exists() and not partial.is_symlink():
        return []
    try:
        content = disk.read(partial)
        complete = content[: content.rfind(b"\n") + 1]
        first, *lines = complete.splitlines() or [b""]
        same = not first or json.loads(first.decode()) == json.loads(json.dumps(wanted))
        rows = [_ROW.validate_json(line, strict=True) for line in lines]
    except (OSError, ValueError, RecursionError):
        same = False
    if not same or len(rows) > len(requests):
        raise StoreError(
            f"{partial} has unfinished rows of another command, or is damaged; run that command again, or remove the "
            "file"
        )
    if complete != content:
        disk.write_bytes(partial, complete)
    return rows
