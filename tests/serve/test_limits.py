"""Who is let in, what is too large, too slow or too much, and clients that leave."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import httpx
import pytest

from semdpo.web import requests
from semdpo.web.requests import BODY
from tests.serve.servers import PATIENCE, Optimizer1, Renderer1, Running, post, raw, running, until

TOKEN = "a-long-random-text"


@pytest.fixture
def guarded(one: Optimizer1) -> Iterator[Running]:
    with running({"one": one}, Renderer1(), token=TOKEN) as started:
        yield started


WRONG = ["", "Bearer", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x", TOKEN, f"Bearer {TOKEN[:-1]}", "Bearer é"]


def test_without_the_token_nobody_gets_in(guarded: Running, one: Optimizer1) -> None:
    for path in ("/v1/models", "/v1/optimize", "/v1/chat/completions", "/v1/render", "/v1/none", "/metrics", "/none"):
        for headers in ({}, *({"Authorization": each.encode()} for each in WRONG)):
            answer = guarded.ask("POST", path, json={"prompt": "a cat"}, headers=headers)
            assert answer.status_code == 401, (path, headers)
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["error"]["type"] == "authentication_error"
    assert one.batches == []


def test_with_the_token_everything_works(guarded: Running) -> None:
    headers = {"Authorization": f"bearer {TOKEN}", "Host": "my.machine.example"}
    assert guarded.optimize("a cat").status_code == 401
    assert guarded.ask("POST", "/v1/optimize", json={"prompt": "a cat"}, headers=headers).status_code == 200
    assert guarded.ask("GET", "/metrics", headers=headers).status_code == 200


def test_the_page_and_health_are_open(guarded: Running) -> None:
    for path in ("/", "/static/index.html", "/healthz", "/openapi.json"):
        assert guarded.ask("GET", path).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7331", "127.0.0.1.evil.example", "[::1", "10.0.0.1", ""]
)
def test_another_name_for_this_machine_is_refused_without_a_token(host: str, server: Running) -> None:
    """A web page whose name points here could read the answers otherwise."""
    answer = server.ask("GET", "/v1/models", headers={"Host": host})
    assert answer.status_code == 400
    for own in ("localhost", "LOCALHOST:1", "127.0.0.1:7331", "[::1]:80"):
        assert server.ask("GET", "/v1/models", headers={"Host": own}).status_code == 200


def test_other_origins_get_no_permission(server: Running) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = server.ask("OPTIONS", "/v1/optimize", headers=headers)
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def _padded(size: int) -> bytes:
    return json.dumps({"prompt": "a cat"}).encode().ljust(size)


@pytest.mark.parametrize("path", ["/v1/optimize", "/v1/chat/completions", "/v1/render", "/none"])
def test_a_body_that_is_too_large(path: str, server: Running) -> None:
    kind = {"Content-Type": "application/json"}
    for size in (BODY + 1, 10 * BODY, 3_000_000):
        for content in (_padded(size), iter([_padded(size)])):  # the second has no Content-Length
            answer = server.ask("POST", path, content=content, headers=kind)
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "too_large"


def test_a_body_that_just_fits(server: Running) -> None:
    kind = {"Content-Type": "application/json"}
    for content in (_padded(BODY), iter([_padded(BODY)[:100], _padded(BODY)[100:]])):
        assert server.ask("POST", "/v1/optimize", content=content, headers=kind).status_code == 200
    assert server.optimize("猫" * 10_000).status_code == 200
    assert server.optimize("猫" * 10_001).status_code == 400


def test_who_asks_first_is_told_before_sending(server: Running) -> None:
    head = post("/v1/optimize", b"", "Expect: 100-continue").replace(b"Length: 0", b"Length: 99999999")
    with raw(server.port, head) as connection:
        assert b" 413 " in connection.recv(1000)


def test_a_body_that_never_comes(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "BODY_SECONDS", 0.05)
    whole = post("/v1/optimize", b'{"prompt": "a cat"}')
    with raw(server.port, whole[:-3]) as connection:
        assert b" 408 " in connection.recv(1000)


def test_work_that_takes_too_long(one: Optimizer1) -> None:
    with running({"one": one}, time_limit=0.1, batch=1) as server:
        with one.held():
            answers = [server.optimize("a cat"), server.optimize("a dog")]  # the second never leaves the queue
            assert [each.status_code for each in answers] == [504, 504]
            assert answers[0].json()["error"]["type"] == "server_error"
            server.waits(0)
        until(lambda: server.optimize("a fox").status_code == 200)
        assert [each.prompt for batch in one.batches for each in batch if each.prompt == "a dog"] == []


@pytest.mark.parametrize("path", ["/v1/optimize", "/v1/chat/completions", "/v1/render"])
def test_clients_that_leave_hold_no_place(path: str, one: Optimizer1) -> None:
    renderer = Renderer1()
    body = {"prompt": "a cat"} if "chat" not in path else {"messages": [{"role": "user", "content": "a cat"}]}
    asked, queue = post(path, json.dumps(body).encode()), int("render" in path)
    with running({"one": one}, renderer, batch=1) as server:
        model = (one, renderer)[queue]
        model.free.clear()
        connections = [raw(server.port, asked)]
        assert model.entered.acquire(timeout=PATIENCE)
        connections += [raw(server.port, asked) for _ in range(20)]
        server.waits(20, queue)
        for connection in connections:
            connection.close()
        server.waits(0, queue)
        model.free.set()
        until(lambda: server.metric(f'semdpo_requests_total{{route="{path}",status="499"}}') == 21)
        assert server.ask("POST", path, json=body).status_code == 200
        if not queue:
            assert len(one.batches) == 2, "what nobody waited for was not done"


def test_a_client_that_leaves_while_it_sends(server: Running) -> None:
    for _ in range(5):
        raw(server.port, post("/v1/optimize", b'{"prompt": "a cat"}')[:-5]).close()
    until(lambda: server.metric('semdpo_requests_total{route="/v1/optimize",status="499"}') == 5)
    assert server.optimize("a cat").status_code == 200


def test_a_client_that_leaves_while_it_is_sent_to(server: Running) -> None:
    body = {"messages": [{"role": "user", "content": "a " * 4000}], "stream": True, "n": 16}
    for _ in range(3):
        with raw(server.port, post("/v1/chat/completions", json.dumps(body).encode())) as connection:
            assert connection.recv(100)
    assert server.optimize("a cat").status_code == 200


def test_clients_that_say_nothing_keep_nobody_from_stopping_it(one: Optimizer1) -> None:
    with running({"one": one}) as server:
        silent = [raw(server.port) for _ in range(5)] + [raw(server.port, b"GET /healthz HTT") for _ in range(5)]
        assert server.optimize("a cat").status_code == 200
    for connection in silent:
        connection.close()


def test_what_waits_is_answered_when_the_server_stops(one: Optimizer1) -> None:
    found: dict[str, int] = {}

    def ask(server: Running, prompt: str) -> None:
        found[prompt] = server.optimize(prompt).status_code

    with one.held(), running({"one": one}, batch=1) as server:
        threads = [threading.Thread(target=ask, args=(server, prompt)) for prompt in ("runs", "waits", "waits too")]
        threads[0].start()
        assert one.entered.acquire(timeout=PATIENCE)
        for thread in threads[1:]:
            thread.start()
        server.waits(2)
        server.server.should_exit = True
        for thread in threads[1:]:
            thread.join(PATIENCE)
        assert found == {"waits": 503, "waits too": 503}
        one.free.set()
        threads[0].join(PATIENCE)
        assert found["runs"] == 200


def test_a_batch_that_does_not_end_is_abandoned(one: Optimizer1, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semdpo.serve.server.GRACE", 0.05)
    found = []
    with one.held(), running({"one": one}) as server:
        thread = threading.Thread(target=lambda: found.append(server.optimize("a cat")))
        thread.start()
        assert one.entered.acquire(timeout=PATIENCE)
        server.server.should_exit = True
        thread.join(PATIENCE)
        assert not server.service.queues[0].ended(0)
        one.free.set()
    assert found[0].status_code == 503
    assert found[0].json()["error"]["code"] == "stopping"


def test_a_server_that_stops_takes_no_more(one: Optimizer1) -> None:
    with running({"one": one}) as server, httpx.Client() as client:
        assert client.get(f"{server.url}/healthz").status_code == 200
        server.service.queues[0].close()
        assert server.optimize("a cat").status_code == 503
