"""What tests of several stages share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.image_servers import KEY, answer
from tests.loopback import Loopback


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """A server that renders and scores as the stand-ins do; it may be given another answer."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Loopback(answer) as loopback:
        yield loopback
