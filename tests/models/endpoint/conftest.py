"""No key and no proxy of whoever runs the tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_key_and_no_litter(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
