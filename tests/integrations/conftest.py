"""The server that the integrations ask in tests, and how their files are loaded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from semdpo import client
from tests.integrations.stub_server import StubServer, stub_server


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (client.TOKEN_VARIABLE, client.HOSTS_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[StubServer]:
    """A server whose answers a test may choose."""
    with stub_server() as stub:
        yield stub


@pytest.fixture(params=["stub", pytest.param("semdpo serve", marks=pytest.mark.slow)])
def base_url(request: pytest.FixtureRequest) -> str:
    """Where a server listens: one that keeps the contract of `semdpo serve`, and then the command itself."""
    if request.param == "stub":
        stub: StubServer = request.getfixturevalue("server")
        return stub.url
    real: str = request.getfixturevalue("real_server")
    return real
