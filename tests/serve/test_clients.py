"""The clients that people have: OpenAI's, LiteLLM, curl."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import openai
import pytest

from tests.serve.servers import PATIENCE, Optimizer1, Running, running

TOKEN = "a-long-random-text"
LITELLM = """
import json, os, sys
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it asks the network for prices
import litellm
more = {"model": "openai/one", "api_base": sys.argv[1] + "/v1", "api_key": sys.argv[2]}
messages = [{"role": "user", "content": "a cat"}]
whole = litellm.completion(messages=messages, n=2, **more)
pieces = list(litellm.completion(messages=messages, stream=True, **more))
print(json.dumps({
    "whole": [each.message.content for each in whole.choices],
    "pieces": "".join(each.choices[0].delta.content or "" for each in pieces),
}))
"""


@pytest.fixture
def guarded(one: Optimizer1) -> Iterator[Running]:
    with running({"one": one}, token=TOKEN) as started:
        yield started


@pytest.fixture
def client(guarded: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=TOKEN, max_retries=0) as made:
        yield made


def test_openai_gets_a_rewrite_and_its_drift(client: openai.OpenAI) -> None:
    found = client.chat.completions.create(
        model="one", messages=[{"role": "user", "content": "a cat"}], n=2, seed=5, extra_body={"semdpo": {"keep": []}}
    )
    assert [each.message.content for each in found.choices] == ["a cat, style 5", "a cat, style 6"]
    assert found.model_extra is not None
    assert found.model_extra["semdpo"]["results"][0]["drift"] == 0.25
    raw = client.chat.completions.with_raw_response.create(model="one", messages=[{"role": "user", "content": "a cat"}])
    assert raw.headers["x-semdpo-drift"] == "0.250000"
    assert [each.id for each in client.models.list()] == ["one"]


def test_openai_streams(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model="one", messages=[{"role": "user", "content": "a cat"}], stream=True
    ) as stream:
        chunks = list(stream)
    assert "".join(each.choices[0].delta.content or "" for each in chunks) == "a cat, style 0"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].model_extra is not None
    assert chunks[-1].model_extra["semdpo"]["results"][0]["rewrite"] == "a cat, style 0"


def test_openai_raises_its_own_errors(client: openai.OpenAI, guarded: Running, one: Optimizer1) -> None:
    def ask(prompt: str, model: str = "one", **more: int) -> None:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": prompt}], **more)

    with pytest.raises(openai.BadRequestError) as bad:
        ask("a cat", n=17)
    assert bad.value.param == "n"
    with pytest.raises(openai.BadRequestError, match="about refuse"):
        ask("refuse")
    with pytest.raises(openai.NotFoundError) as unknown:
        ask("a cat", model="gpt")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.InternalServerError, match="the server has failed"):
        ask("defect")
    with pytest.raises(openai.InternalServerError, match="about broken") as broken:
        ask("broken")
    assert broken.value.status_code == 503
    with (
        openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        stranger.models.list()
    assert refused.value.code == "invalid_api_key"
    ask("a cat")


def test_a_full_queue_is_a_rate_limit(one: Optimizer1) -> None:
    with running({"one": one}, queue=1, batch=1) as server, one.held():
        import threading

        threads = [threading.Thread(target=server.optimize, args=("a cat",)) for _ in range(2)]
        threads[0].start()
        assert one.entered.acquire(timeout=PATIENCE)
        threads[1].start()
        server.waits(1)
        with (
            openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client,
            pytest.raises(openai.RateLimitError) as full,
        ):
            client.chat.completions.create(model="one", messages=[{"role": "user", "content": "a dog"}])
        assert full.value.response.headers["retry-after"] == "1"
        one.free.set()
        for thread in threads:
            thread.join()


@pytest.mark.slow
def test_litellm(guarded: Running) -> None:
    asked = [sys.executable, "-c", LITELLM, guarded.url, TOKEN]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"whole": ["a cat, style 0", "a cat, style 1"], "pieces": "a cat, style 0"}


def test_curl(guarded: Running) -> None:
    def curl(*arguments: str) -> str:
        return subprocess.run(
            ["curl", "-s", "--noproxy", "*", *arguments], capture_output=True, text=True, check=True
        ).stdout

    bearer, kind = ("-H", f"Authorization: Bearer {TOKEN}"), ("-H", "Content-Type: application/json")
    found = json.loads(curl(f"{guarded.url}/v1/optimize", *bearer, *kind, "-d", '{"prompt": "a cat"}'))
    assert found["results"][0]["rewrite"] == "a cat, style 0"
    body = json.dumps({"messages": [{"role": "user", "content": "a cat"}], "stream": True})
    streamed = curl("-N", f"{guarded.url}/v1/chat/completions", *bearer, *kind, "-d", body)
    assert streamed.endswith("data: [DONE]\n\n")
    form = curl(f"{guarded.url}/v1/optimize", *bearer, "-d", '{"prompt": "a cat"}')  # curl calls that a form
    assert "Content-Type: application/json" in json.loads(form)["error"]["message"]
