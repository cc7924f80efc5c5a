from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serve.servers import Optimizer1, Renderer1, Running, running


@pytest.fixture
def one() -> Optimizer1:
    return Optimizer1()


@pytest.fixture
def server(one: Optimizer1) -> Iterator[Running]:
    """A server with two models and a renderer."""
    with running({"one": one, "two": Optimizer1("two")}, Renderer1()) as started:
        yield started
