"""``semdpo audit``: what a file of pairs will teach, as text, page, numbers and exit code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from semdpo import disk, files, fingerprint, tables
from semdpo.audit import audit, failures, limits
from semdpo.parts import real_parts
from semdpo.progress import bar, say, show
from semdpo.prompt_sets import read_prompts
from semdpo.records import Pair
from semdpo.stages.weigh import weigh


def audit_file(
    pairs: str,
    encoder: str,
    alpha: float,
    evaluation: str | None,
    page: Path | None,
    numbers: Path | None,
    fail_on: Sequence[str],
) -> bool:
    """Prints the audit, and writes it where asked.

    Args:
        pairs: file of columns prompt, chosen, rejected, and distance where they were weighed.
        encoder: measures the distances, where they are not there.
        alpha: strength of the weight, ≥ 0.
        evaluation: file of prompts that must not be trained on.
        page: an HTML file to write.
        numbers: a JSON file to write.
        fail_on: see ``audit.limits``.

    Returns:
        Whether everything is as the user will have it.

    Raises:
        SemdpoError: a file, option or the encoder cannot be used.
    """
    allowed = limits(fail_on)
    table = tables.read_table(pairs)
    rows = files.pairs_of(table)
    held = [] if evaluation is None else read_prompts(evaluation)
    found = audit(_weighed(rows, encoder), alpha, held)
    failed = failures(found, allowed)
    from semdpo.reporting import audit as shown

    show(shown.as_text(found, failed).removesuffix("\n"))
    if note := files.other_scores(table).note:
        say(f"{pairs}: {note}")
    if page is not None:
        disk.write_bytes(page, shown.as_page(found, _title(Path(pairs)), failed).encode())
        say(f"wrote {page}")
    if numbers is not None:
        disk.write_bytes(numbers, json.dumps(shown.as_numbers(found, failed), indent=1).encode())
        say(f"wrote {numbers}")
    return not failed


def _title(pairs: Path) -> str:
    """A file by its name; a stage's folder with that of its run."""
    return f"{pairs.resolve().parent.name}/{pairs.name}" if pairs.is_dir() else pairs.name


def _weighed(rows: Sequence[Pair], encoder: str) -> Sequence[Pair]:
    if all(each.distance is not None for each in rows):
        return rows
    fingerprint.model(encoder)  # an unknown name is told before torch is imported
    model = real_parts().encoder(encoder)
    with bar("measuring drift") as progress:
        return weigh(rows, model, 64, encoder, progress)
