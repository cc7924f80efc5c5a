"""The command itself, with real models: asked by the client of image programs, and as a rewriter."""

from __future__ import annotations

import json

import httpx
import pytest

from semdpo import client
from semdpo.prompt_optimizer import PromptOptimizer
from semdpo.recipe.endpoints import EndpointConfig

PROMPT = "a (red:1.2) ball in the desert"


@pytest.mark.slow
def test_the_client_of_image_programs(real_server: str) -> None:
    reply = client.optimize(PROMPT, real_server, keep=["desert"], seed=3)
    assert not reply.fault
    assert "(red:1.2)" in reply.rewrite
    assert "desert" in reply.rewrite
    assert reply.drift is not None
    kept = client.optimize(PROMPT, real_server, max_drift=0.0)
    assert (kept.rewrite, kept.reason != "") == (PROMPT, True)


@pytest.mark.slow
def test_the_server_is_a_rewriter_behind_a_url(real_server: str) -> None:
    here = PromptOptimizer.from_pretrained("tiny:gpt2", "tiny:clip").optimize(PROMPT)
    there = PromptOptimizer.from_pretrained(
        f"{real_server}/v1", "tiny:clip", endpoint=EndpointConfig(model_name="tiny")
    )
    found = there.optimize(PROMPT)
    assert found.rewrite == here.rewrite
    assert found.drift == pytest.approx(here.drift, abs=1e-5)


@pytest.mark.slow
def test_images_say_how_they_were_made(real_server: str) -> None:
    wish = {"prompt": f"{PROMPT}, oil painting", "original": PROMPT, "seed": 4}
    answer = httpx.post(f"{real_server}/v1/render", json=wish, timeout=60)
    assert answer.headers["content-type"] == "image/png"
    assert json.dumps(PROMPT)[1:-1].encode() in answer.content
    assert b"Seed: 4" in answer.content
