"""A user's preference pairs, from a file, a data set or a list: reads, measures and audits them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from semdpo.analysis import audit as auditing
from semdpo.analysis.drift import measure, refuse_unknown_words, with_drift
from semdpo.analysis.semantics import semantic_weight
from semdpo.data.pairs import pairs_of
from semdpo.data.prompts import read_prompts
from semdpo.data.records import Pair
from semdpo.data.tables import Table, layered, read_table
from semdpo.engine import fingerprint
from semdpo.errors import DataError
from semdpo.models.registry import lasting
from semdpo.progress import Progress, silent
from semdpo.protocols import TextEncoder
from semdpo.recipe import defaults

# A file's or folder's path, a datasets.Dataset, a pandas.DataFrame, rows as mappings, or pairs.
Source = str | Path | Sequence[Mapping[str, Any]] | Sequence[Pair] | Any
MEASURED = ("distance", "rejected_distance", "truncated", "encoder", "encoder_fingerprint")


def table_of(source: Source, name: str = "the pairs") -> Table:
    """The columns of a source.

    Args:
        source: a path (csv, tsv, json, jsonl, parquet, a folder, ``hub:OWNER/NAME``), a ``datasets.Dataset``,
            a ``pandas.DataFrame``, or rows.
        name: name of the source in messages.

    Raises:
        DataError: there are no rows, a row is not a mapping, or the source has several splits; see ``read_table`` for
            files.
    """
    if isinstance(source, str | Path):
        return read_table(source)
    if isinstance(source, Mapping):
        _refuse_mapping(source, name)
    if hasattr(source, "iloc") and hasattr(source, "to_dict"):  # a pandas.DataFrame
        source = source.to_dict("records")
    if hasattr(source, "column_names") and hasattr(source, "to_dict"):  # a datasets.Dataset
        columns: Mapping[str, Sequence[Any]] = source.to_dict()
    else:
        columns = _columns(list(source), name)
    count = len(next(iter(columns.values()), ()))
    if not count:
        raise DataError(f"{name} are empty; give at least one row")
    return Table(name, columns, [f"row {k}" for k in range(1, count + 1)])


def _refuse_mapping(source: Mapping[Any, Any], name: str) -> None:
    """Refuses a ``datasets.DatasetDict`` and any other mapping, of which it is not clear what its rows are."""
    if source and all(hasattr(part, "column_names") for part in source.values()):
        splits = ", ".join(str(split) for split in source)
        raise DataError(f"{name} has the splits {splits}; give one of them, such as dataset[{next(iter(source))!r}]")
    raise DataError(f"{name} is a {type(source).__name__}; give a list of rows, each a mapping of columns to values")


def _columns(rows: Sequence[Any], name: str) -> dict[str, list[Any]]:
    for k, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise DataError(
                f"{name}, row {k} is a {type(row).__name__}; give rows as mappings, with prompt, chosen and rejected"
            )
    names = dict.fromkeys(key for row in rows for key in row)
    return {key: [row.get(key) for row in rows] for key in names}


def read(source: Source, name: str = "the pairs") -> list[Pair]:
    """The pairs of any source.

    Args:
        source: a source as in ``table_of``, or a list of pairs, which is returned unchanged.
        name: name of the source in messages.

    Raises:
        DataError: a column is missing, a text is empty, or a number is not finite; the message names the row.
    """
    if isinstance(source, Sequence) and not isinstance(source, str) and source and _are_pairs(source):
        return list(source)
    return pairs_of(table_of(source, name))


def _are_pairs(rows: Iterable[Any]) -> bool:
    return all(isinstance(row, Pair) for row in rows)


def measured(
    pairs: Sequence[Pair],
    encoder: str | Path | TextEncoder,
    batch_size: int = defaults.TEXTS_AT_A_TIME,
    progress: Progress = silent,
) -> list[Pair]:
    """The pairs with their distances, all measured by one encoder.

    Args:
        pairs: the pairs, at least one.
        encoder: name or folder of a CLIP or sentence-transformers model, or an object with ``encode``.
        batch_size: number of texts that are encoded at a time.
        progress: called after every batch.

    Raises:
        DataError: the encoder does not know the words, or an embedding is not finite.
        ModelError: there is no such encoder.
    """
    if not isinstance(encoder, str | Path):
        drift = measure(pairs, encoder, batch_size, progress)
        refuse_unknown_words(drift.unknown, "the encoder")
        return with_drift(pairs, drift)
    name, content = str(encoder), fingerprint.model(encoder)  # an unknown name is refused before torch is imported
    from semdpo.models.text_encoder import load_text_encoder

    drift = measure(pairs, load_text_encoder(name), batch_size, progress)
    refuse_unknown_words(drift.unknown, name)
    return with_drift(pairs, drift, lasting(name), content)


def with_distance(pairs: list[Pair], encoder: str | Path | TextEncoder | None, name: str = "the pairs") -> list[Pair]:
    """The pairs unchanged where all have a distance, or else all measured again by one encoder.

    Args:
        pairs: the pairs, at least one.
        encoder: encoder as in ``measured``; None measures nothing.
        name: name of the pairs in messages.

    Raises:
        DataError: distances are missing, and there is no encoder.
    """
    without = sum(pair.distance is None for pair in pairs)
    if not without:
        return pairs
    if encoder is None:
        raise DataError(
            f"{without} of {len(pairs)} rows of {name} have no distance; give encoder= to measure it, or use "
            "semdpo.measure_drift first"
        )
    return measured(pairs, encoder)


def measure_drift(
    pairs: Source,
    encoder: str | Path | TextEncoder,
    *,
    alpha: float | None = None,
    batch_size: int = defaults.TEXTS_AT_A_TIME,
) -> Any:
    """The drift of the rewrites of preference pairs from their prompts: d(x, y) = 1 − cos(e(x), e(y)).

    Args:
        pairs: the pairs: a file's path, a ``datasets.Dataset``, or rows with prompt, chosen and rejected.
        encoder: name or folder of a CLIP or sentence-transformers model, or an object with ``encode(texts)``.
        alpha: strength of the semantic weight; given, a column ``weight`` = exp(−alpha·distance) is added, for other
            trainers. semdpo's ``sem_dpo`` computes the weight itself and refuses this column.
        batch_size: number of texts that are encoded at a time.

    Returns:
        The same rows with the columns ``distance``, ``rejected_distance``, ``truncated``, ``encoder`` and
        ``encoder_fingerprint``: a ``datasets.Dataset`` for a ``datasets.Dataset``, else a list of dictionaries.

    Raises:
        DataError: a row cannot be read, or the encoder does not know its words.
        ModelError: there is no such encoder.
        ValueError: alpha is negative or not finite.

    Source:
        Sem-DPO (arXiv 2507.20133), section 3 and equation 4.

    Example:
        >>> import semdpo
        >>> rows = [{"prompt": "a red cat", "chosen": "a red cat and a tree", "rejected": "a blue house"}]
        >>> measured = semdpo.measure_drift(rows, "tiny:clip", alpha=4.0)
        >>> measured[0]["distance"] < measured[0]["rejected_distance"]
        True
    """
    table = table_of(pairs)
    rows = measured(pairs_of(table), encoder, batch_size)
    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in MEASURED}
    if alpha is not None:
        columns["weight"] = [float(weight) for weight in semantic_weight(columns["distance"], alpha)]
    if hasattr(pairs, "add_column"):
        dataset: Any = pairs
        dataset = dataset.remove_columns([name for name in columns if name in dataset.column_names])
        for name, values in columns.items():
            dataset = dataset.add_column(name, values)
        return dataset
    all_columns = layered(columns, table.columns)
    return [{name: all_columns[name][k] for name in all_columns} for k in range(len(rows))]


def audit(
    pairs: Source,
    *,
    alpha: float = defaults.ALPHA,
    encoder: str | Path | TextEncoder | None = None,
    evaluation: str | Path | Sequence[str] = (),
) -> auditing.Audit:
    """Checks preference pairs before a training: drift, duplicates, leaks, truncation, ties, length bias.

    Args:
        pairs: the pairs: a file's path, a ``datasets.Dataset``, or rows with prompt, chosen and rejected.
        alpha: strength of the semantic weight, ≥ 0.
        encoder: encoder that measures the distances where a row has none.
        evaluation: prompts that must not be trained on, or the path of a file with such prompts.

    Returns:
        The pairs' weights, their effective sample size, and the checks with their shares and example pairs.

    Raises:
        DataError: a row cannot be read, or distances are missing and no encoder is given.
        ModelError: there is no such encoder.

    Source:
        Sem-DPO (arXiv 2507.20133), section 3; the effective sample size is Kish's (1965).

    Example:
        >>> import semdpo
        >>> rows = [
        ...     {"prompt": "a red cat", "chosen": f"a red cat, oil {k}", "rejected": "a dog", "distance": k / 10}
        ...     for k in range(4)
        ... ]
        >>> round(semdpo.audit(rows, alpha=4.0).effective, 2)
        3.36
    """
    rows = with_distance(read(pairs), encoder)
    held_out = read_prompts(str(evaluation)) if isinstance(evaluation, str | Path) else list(evaluation)
    return auditing.audit(rows, alpha, held_out)
