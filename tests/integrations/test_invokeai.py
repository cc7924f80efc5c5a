"""What only InvokeAI's node does."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tests.integrations.host_programs import ROOT, invokeai_node


@pytest.fixture
def node() -> Any:
    return invokeai_node(ROOT / "invokeai/semdpo_rewrite")


def test_a_fault_is_not_remembered(node: Any) -> None:
    """InvokeAI remembers a node's output by its inputs, and has no word for one that failed."""
    assert node.model_fields["use_cache"].default is False


def test_every_field_is_explained(node: Any) -> None:
    own = {name: field for name, field in node.model_fields.items() if name not in ("id", "use_cache", "type")}
    assert own.keys() == {"prompt", "keep", "length", "seed", "max_drift", "url", "model", "token_env"}
    assert all(field.description for field in own.values())
    assert node().type == "semdpo_rewrite"


@pytest.mark.parametrize("wrong", [{"length": "huge"}, {"seed": -1}, {"max_drift": 3}])
def test_wrong_values_are_refused(node: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        node(**wrong)
