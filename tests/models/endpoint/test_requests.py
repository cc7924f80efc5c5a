"""A rewriter behind a URL: what it asks a real server on this machine, in which order, and under which name."""

from __future__ import annotations

import gc
import sys
import threading
import time

import pytest

from semdpo.errors import ConfigError, EndpointError, ModelError
from semdpo.models.endpoint import load_endpoint
from semdpo.models.registry import resolve
from semdpo.recipe import defaults
from semdpo.recipe.models import DecodingConfig
from tests.loopback import Asked, Loopback, Reply, chat, echo, error
from tests.models.endpoint.asking import rewriter_of, settings


def test_a_request_has_the_instruction_the_prompt_and_the_decoding() -> None:
    with Loopback(lambda asked: chat("a cat")) as server:
        decoding = DecodingConfig(temperature=0.7, top_p=0.9, max_new_tokens=60)
        rewriter_of(server, decoding).rewrite([" a cat "], 1, 3)
        (asked,) = server.asked
    seed = asked.body.pop("seed")
    assert asked.body == {
        "model": "m",
        "messages": [{"role": "system", "content": defaults.SYSTEM}, {"role": "user", "content": "a cat"}],
        "max_tokens": 60,
        "temperature": 0.7,
        "top_p": 0.9,
    }
    assert 0 <= seed < 2**31
    assert "authorization" not in asked.headers, "no key, no header"


def test_greedy_decoding_and_another_budget_share_the_server() -> None:
    with Loopback(lambda asked: chat("a cat")) as server:
        first = rewriter_of(server, body={"top_k": 5, "seed": None})
        first.at_temperature(0.0).with_budget(7).rewrite(["a cat"], 1, 0)
        first.rewrite(["a cat"], 1, 0)
        greedy, sampled = (each.body for each in server.asked)
    assert (greedy["temperature"], greedy["max_tokens"], sampled["temperature"], sampled["max_tokens"]) == (0, 7, 1, 40)
    assert "top_p" not in greedy
    assert sampled["top_p"] == 0.95
    for body in (greedy, sampled):
        assert body["top_k"] == 5, "a field of the user's own"
        assert "seed" not in body, "null leaves a field out"


def test_an_empty_instruction_is_none() -> None:
    with Loopback() as server:
        load_endpoint(server.url, settings(), system="").rewrite(["a cat"], 1, 0)
        load_endpoint(server.url, settings(), system="Be brief.").rewrite(["a cat"], 1, 0)
        roles = [[message["role"] for message in asked.body["messages"]] for asked in server.asked]
    assert roles == [["user"], ["system", "user"]]


def test_many_requests_at_a_time_keep_their_order() -> None:
    prompts = [f"a thing {k}" for k in range(20)]

    def later_for_some(asked: Asked) -> Reply:
        time.sleep(asked.body["seed"] % 7 / 1000)
        return echo(asked)

    with Loopback(later_for_some) as server:
        rows = rewriter_of(server, concurrency=16).rewrite(prompts, 3, 5)
        assert server.most > 1
        assert len(server.asked) == 60
        assert all(
            text.startswith(f"{prompt}, seed") for prompt, row in zip(prompts, rows, strict=True) for text in row
        )
        seeds = {text for row in rows for text in row}
        assert len(seeds) == 60, "every rewrite has a seed of its own"
        one_at_a_time = rewriter_of(server, concurrency=1)
        assert one_at_a_time.rewrite(prompts[::-1], 3, 5) == rows[::-1]
        assert one_at_a_time.rewrite(prompts[7:9], 2, 5) == [row[:2] for row in rows[7:9]]
        assert one_at_a_time.rewrite(prompts[:1], 3, 6) != rows[:1]


def test_as_many_requests_as_asked_are_under_way() -> None:
    together = threading.Barrier(4, timeout=30)

    def all_four(asked: Asked) -> Reply:
        together.wait()
        return echo(asked)

    with Loopback(all_four) as server:
        rewriter_of(server, concurrency=4).rewrite(["a", "b", "c", "d"], 2, 0)
        assert server.most == 4


def test_no_prompts_no_requests() -> None:
    with Loopback() as server:
        assert rewriter_of(server).rewrite([], 2, 0) == []
        with pytest.raises(ModelError, match="n must be at least 1, not 0"):
            rewriter_of(server).rewrite(["a"], 0, 0)
        assert server.asked == []


def test_without_a_name_the_only_model_is_taken() -> None:
    with Loopback(models=("qwen",)) as server:
        assert rewriter_of(server, model_name=None).model == "qwen"
    with Loopback(models=("a", "b")) as server, pytest.raises(EndpointError) as refused:
        rewriter_of(server, model_name=None)
    assert str(refused.value) == (
        f"{server.url} offers a, b; say which model to use with --model-name (in a recipe: endpoint.model_name)"
    )
    for reply, said in (
        (error(404), "does not list its models (no); check the address"),
        (Reply(body={"data": None}), "does not list its models; check the address"),
        (Reply(body={"data": ["a"]}), "does not list its models; check the address"),
        (Reply(body=[]), "does not list its models; check the address"),
        (Reply(body=b"<html>"), "answers something else than OpenAI's chat completions"),
    ):
        with Loopback(models=reply) as server, pytest.raises(EndpointError) as refused:
            rewriter_of(server, model_name=None)
        assert str(refused.value).startswith(f"{server.url} {said}")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://user:pw@host/v1", "'http://host/v1' is written with more than host, port and path"),
        ("http://sk-key@host/v1", "'http://host/v1' is written with more than host, port and path"),
        ("http://host/v1?key=pw", "'http://host/v1' is written with more than host, port and path"),
        ("http://host/v1#pw", "'http://host/v1' is written with more than host, port and path"),
        ("http://", "'http://' is no address of a server; write it as http://localhost:8000/v1"),
        ("http://host:port/v1", "'http://host:port/v1' is no address of a server"),
        ("http://host:0/v1", "'http://host:0/v1' is no address of a server"),
        ("http://[::1/v1", "'http://[::1/v1' is no address of a server"),
        ("http://a host/v1", "'http://a host/v1' is no address of a server"),
        ("http://host/v1/chat/completions/", "ends with /chat/completions, which is added to it; leave that out"),
        ("ftp://host/v1", "'ftp://host/v1' is no address of a server"),
        ("host:8000", "'host:8000' is no address of a server"),
        ("", "'' is no address of a server"),
    ],
)
def test_what_is_no_address(url: str, said: str) -> None:
    with pytest.raises(EndpointError) as refused:
        load_endpoint(url, settings())
    assert said in str(refused.value)
    assert "pw" not in str(refused.value)
    assert "sk-key" not in str(refused.value)


@pytest.mark.parametrize("setting", [{"top_k": 3}, {"num_beams": 2, "temperature": 0}, {"repetition_penalty": 1.1}])
def test_what_no_server_takes_is_refused(setting: dict[str, float]) -> None:
    name = next(iter(setting))
    with pytest.raises(EndpointError, match=f"a model behind a URL takes no {name}; remove it, or put what"):
        load_endpoint("http://localhost:1/v1", settings(), DecodingConfig.model_validate(setting))


@pytest.mark.parametrize("url", ["http://localhost:8000/v1", " HTTPS://user:pw@host/v1?key=pw"])
def test_where_files_are_needed_a_url_is_refused(url: str) -> None:
    with pytest.raises(ModelError) as refused:
        resolve(url)
    assert "is a server; here a model with files is needed: give a folder or a published name" in str(refused.value)
    assert "pw" not in str(refused.value)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ConfigError) as refused:
        load_endpoint("http://localhost:1/v1", settings())
    assert str(refused.value) == (
        "a rewriter behind a URL needs openai; install it with: pip install 'semdpo[endpoint]'"
    )


def test_connections_are_closed_with_the_rewriter() -> None:
    with Loopback() as server:
        rewriter = rewriter_of(server)
        rewriter.rewrite(["a", "b"], 2, 0)
        del rewriter
        gc.collect()  # an open socket would warn, which fails a test
