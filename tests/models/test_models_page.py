"""docs/models.md has every model of the catalogue in a table, and says of encoders what the catalogue says."""

from __future__ import annotations

from pathlib import Path

import pytest

from semdpo.models.catalogue import PUBLISHED

PAGE = Path(__file__).parents[2] / "docs/models.md"
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.read_text().splitlines() if line[:1] == "|"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_name_stands_in_a_table(name: str) -> None:
    assert any(f"`{name}`" in cell for row in ROWS for cell in row), f"add `{name}` to a table of docs/models.md"


def test_the_table_of_encoders_says_what_the_catalogue_says() -> None:
    shown = {row[0].strip("`"): row[1:] for row in ROWS if len(row) == 8}
    encoders = {name: model for name, model in PUBLISHED.items() if model.encoder is not None}
    assert shown.keys() - {"published name", "---"} == encoders.keys()
    for name, model in encoders.items():
        assert model.encoder is not None
        repository, tokens, numbers, licence, size, prefix, checked = shown[name]
        assert repository == model.repository
        assert (tokens, numbers) == (f"{model.encoder.tokens:,}", f"{model.encoder.dimension:,}"), name
        assert size == f"{model.gigabytes:g}", name
        assert ("gated" in licence) is model.gated, name
        assert model.licence in licence, name
        assert prefix.strip("`").strip() == model.encoder.prefix.strip() or "its prompt" in prefix, name
        assert checked
