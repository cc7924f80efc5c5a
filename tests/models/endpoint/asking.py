"""Rewriters behind the URL of a server on this machine."""

from __future__ import annotations

import pytest

from semdpo.errors import EndpointError
from semdpo.models.endpoint import EndpointRewriter, load_endpoint
from semdpo.recipe.endpoints import EndpointConfig
from semdpo.recipe.models import DecodingConfig
from tests.loopback import Loopback


def settings(**values: object) -> EndpointConfig:
    return EndpointConfig.model_validate({"model_name": "m", "retries": 0, "timeout": 20} | values)


def rewriter_of(server: Loopback, decoding: DecodingConfig | None = None, **values: object) -> EndpointRewriter:
    return load_endpoint(server.url, settings(**values), decoding)


def refusal(server: Loopback, **values: object) -> str:
    with pytest.raises(EndpointError) as refused:
        rewriter_of(server, **values).rewrite(["a cat"], 1, 0)
    assert "\n" not in str(refused.value)
    return str(refused.value)
