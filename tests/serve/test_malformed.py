"""Requests that no client should send: a status from 400 to 499, an error in OpenAI's form, and a server that lives."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serve.servers import PATIENCE, Optimizer1, Renderer1, Running, raw, running

VALID: dict[str, dict[str, Any]] = {
    "/v1/optimize": {
        "prompt": "a cat", "keep": ["cat"], "length": "short", "max_drift": 0.5, "banned": ["dog"], "n": 2, "seed": 1,
        "model": "one",
    },
    "/v1/chat/completions": {
        "model": "one", "messages": [{"role": "user", "content": "a cat"}], "n": 1, "seed": 1, "max_tokens": 9,
        "max_completion_tokens": 9, "stream": True, "semdpo": {"keep": ["cat"], "length": 4, "max_drift": 0.5},
    },
    "/v1/render": {"prompt": "a cat", "original": "a cat", "seed": 3, "model": "one"},
}  # fmt: skip
PATHS = [
    *VALID,
    "/v1/models",
    "/healthz",
    "/metrics",
    "/",
    "/static/index.html",
    "/openapi.json",
    "/none",
    "//",
    "/v1/",
]
DEEP = 10_000
HALF = "\\ud800"
LONG = "9" * 5000

# Bodies that are wrong in themselves, whatever the route.
NO_JSON = {
    "empty": b"",
    "blank": b"  ",
    "word": b"prompt",
    "cut": b'{"prompt": "a cat"',
    "two": b'{"prompt": "a cat"}{}',
    "comment": b'{"prompt": "a cat"} // cat',
    "single quotes": b"{'prompt': 'a cat'}",
    "latin-1": '{"prompt": "é"}'.encode("latin-1"),
    "utf-16": '{"prompt": "a cat"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"prompt": "a cat"}',
    "null byte": b'{"prompt": "a cat"}\0',
    "control character": b'{"prompt": "a\ncat"}',
    "NaN": b'{"prompt": "a cat", "max_drift": NaN}',
    "Infinity": b'{"prompt": "a cat", "max_drift": Infinity}',
    "-Infinity": b'{"prompt": "a cat", "x": -Infinity}',
    "twice": b'{"prompt": "a cat", "prompt": "a dog"}',
    "twice inside": b'{"prompt": "a cat", "semdpo": {"keep": [], "keep": []}}',
    "half a key": f'{{"prompt": "a cat", "{HALF}": 1}}'.encode(),
    "brackets": b"[" * DEEP + b"]" * DEEP,
    "open brackets": b"[" * DEEP,
    "objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "deep field": b'{"prompt": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "digits": f'{{"prompt": "a cat", "seed": {LONG}}}'.encode(),
}
# JSON that is not what a route takes, for all routes and for some.
NOT_AN_OBJECT = ["null", "true", "0", '"a cat"', "[]", '[{"prompt": "a cat"}]', "{}"]
WRONG: dict[str, dict[str, list[str]]] = {
    "/v1/optimize": {
        "prompt": ["null", "1", "[]", "{}", '""', '" "', r'"\u200b"', f'"{HALF}"', '"' + "x" * 10_001 + '"'],
        "keep": ["null", '"cat"', "[1]", "[null]", '[""]', "{}", f'["{HALF}"]', json.dumps(["x"] * 101)],
        "banned": ['["' + "x" * 201 + '"]', '[["x"]]'],
        "length": ['"shorter"', "0", "-1", "1.5", "10001", "true", "[]", "1e999", '"9"', str(10**30)],
        "max_drift": ["-0.1", "2.1", '"0.5"', "true", "1e999", "-1e999", "[]"],
        "n": ["0", "17", "-1", "1.5", '"2"', "true", "null", "[]", str(10**30)],
        "seed": ["-1", str(2**63), str(10**400), "1.5", '"1"', "false", "null"],
        "model": ["1", "[]", "true", f'"{HALF}"'],
        "kep": ["[]"],
    },
    "/v1/chat/completions": {
        "messages": [
            "null", "[]", "{}", '"a cat"', "[null]", "[[]]", '["a cat"]', '[{"content": "a cat"}]', '[{"role": 1}]',
            '[{"role": "system", "content": "a cat"}]', '[{"role": "user"}]', '[{"role": "user", "content": 1}]',
            '[{"role": "user", "content": ""}]', '[{"role": "user", "content": []}]',
            '[{"role": "user", "content": ["a cat"]}]', '[{"role": "user", "content": [{"text": "a cat"}]}]',
            '[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]',
            '[{"role": "user", "content": [{"type": "text"}]}]', f'[{{"role": "user", "content": "{HALF}"}}]',
            '[{"role": "user", "content": "' + "x" * 10_001 + '"}]',
        ],
        "n": ["0", "17", '"2"'],
        "max_tokens": ["0", "-1", '"9"', "1.5"],
        "max_completion_tokens": ["0", "true"],
        "stream": ['"yes"', "1"],
        "semdpo": ["[]", "1", '{"keep": "cat"}', '{"max_drift": 3}', '{"unknown": 1}', '{"length": "tiny"}'],
        "seed": ["-1", str(2**63)],
    },
    "/v1/render": {
        "prompt": ["null", '""', "1"],
        "original": ["1", "[]", '"' + "x" * 10_001 + '"'],
        "seed": ["-1", str(2**64), "1.0e0", "null"],
        "model": ["1"],
        "steps": ["20"],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    with running({"one": Optimizer1()}, Renderer1()) as started:
        yield started


def _check(server: Running, path: str, body: bytes, wanted: int = 400) -> dict[str, Any]:
    answer = server.ask("POST", path, content=body, headers={"Content-Type": "application/json"})
    shown = (path, body[:80], answer.status_code, answer.text[:300])
    assert answer.status_code == wanted, shown
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}, shown
    assert error["type"] == "invalid_request_error", shown
    assert 10 < len(error["message"]) < 300, shown
    assert "\n" not in error["message"], shown
    return error


@pytest.mark.parametrize("path", VALID)
def test_the_valid_requests_are_valid(path: str, shared: Running) -> None:
    assert shared.ask("POST", path, json=VALID[path]).status_code == 200


@pytest.mark.parametrize("path", VALID)
def test_what_is_no_json(path: str, shared: Running) -> None:
    for name, body in NO_JSON.items():
        assert _check(shared, path, body)["code"] == "invalid_json", name


@pytest.mark.parametrize("path", VALID)
def test_json_of_another_shape(path: str, shared: Running) -> None:
    for text in NOT_AN_OBJECT:
        _check(shared, path, text.encode())


@pytest.mark.parametrize("path", WRONG)
def test_fields_of_another_type(path: str, shared: Running) -> None:
    for name, values in WRONG[path].items():
        for value in values:
            fields = {**{key: json.dumps(each) for key, each in VALID[path].items()}, name: value}
            text = "{" + ",".join(f'"{key}": {each}' for key, each in fields.items()) + "}"
            error = _check(shared, path, text.encode())
            assert error["param"] is None or error["param"].split(".")[0] == name, (name, value, error)


def test_a_message_names_the_field_and_not_the_value(shared: Running) -> None:
    body = json.dumps({"prompt": "a cat", "keep": ["a secret", 1], "length": "a secret"}).encode()
    error = _check(shared, "/v1/optimize", body)
    assert error["param"] == "keep.1"
    assert error["message"] == "keep.1: input should be a valid string"
    length = _check(shared, "/v1/optimize", b'{"prompt": "a cat", "length": "a secret"}')
    assert length["param"] == "length"
    assert length["message"].endswith(
        "it must be 'short', 'medium', 'long', or the most tokens of a rewrite, from 1 to 10,000"
    )


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "", "a/b/c", None]
)
def test_another_content_type(kind: str | None, shared: Running) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    for path in VALID:
        answer = shared.ask("POST", path, content=json.dumps(VALID[path]).encode(), headers=headers)
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "content_type"
    right = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert shared.ask("POST", "/v1/optimize", content=b'{"prompt": "a cat"}', headers=right).status_code == 200


def test_unknown_addresses_and_wrong_methods(shared: Running) -> None:
    for path in (
        "/none",
        "/v1",
        "/v1/",
        "/v1/optimize/",
        "/V1/optimize",
        "/v1/%00",
        "/v1/models/one",
        "//v1/models",
        "/docs",
    ):
        answer = shared.ask("GET", path)
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "invalid_request_error"), path
    for path in VALID:
        for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"):
            answer = shared.ask(method, path)
            assert answer.status_code == 405, (method, path)
            assert answer.headers["allow"] == "POST"
            assert answer.json()["error"]["type"] == "invalid_request_error"
    assert shared.ask("POST", "/healthz").status_code == 405


def test_what_is_no_http(shared: Running) -> None:
    for text in (
        b"\r\n\r\n",
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0" * 5000,
        b"GET /" + b"x" * 200_000,
    ):
        with raw(shared.port) as connection:
            try:
                connection.sendall(text)
                connection.shutdown(1)
                assert connection.recv(12) in (b"", b"HTTP/1.1 400")
            except ConnectionError:
                pass
    assert shared.optimize("a cat").status_code == 200


_text = st.text(st.characters(exclude_categories=[]), max_size=40)
_scalar = (
    st.none() | st.booleans() | st.integers() | st.floats() | _text | st.sampled_from([2**63, 10**30, "a cat", "short"])
)
_flat = _scalar | st.lists(_scalar, max_size=4) | st.dictionaries(_text, _scalar, max_size=4)
_value = _flat | st.lists(_flat, max_size=4) | st.dictionaries(_text, _flat, max_size=4)


@st.composite
def _bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    """A path, and a body that may be anything, or is right but for some of its fields."""
    path = draw(st.sampled_from(PATHS))
    match draw(st.sampled_from(["bytes", "value", "fields", "fields", "fields", "cut"])):
        case "bytes":
            return path, draw(st.binary(max_size=200))
        case "value":
            return path, json.dumps(draw(_value)).encode()
        case kind:
            body = dict(VALID.get(path, VALID["/v1/optimize"]))
            for name in draw(st.lists(st.sampled_from([*body, "other"]), min_size=1, max_size=3)):
                body[name] = draw(_value)
            text = json.dumps(body).encode()
            return path, text[: draw(st.integers(0, len(text)))] if kind == "cut" else text


@pytest.mark.slow
def test_a_thousand_malformed_requests(shared: Running) -> None:
    statuses: dict[int, int] = {}
    connection = http.client.HTTPConnection("127.0.0.1", shared.port, timeout=PATIENCE)

    @settings(max_examples=1000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(_bodies(), st.sampled_from(["POST"] * 9 + ["GET", "PUT"]))
    def ask(body: tuple[str, bytes], method: str) -> None:
        connection.request(method, body[0], body[1], {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
        assert answer.status < 500, content
        if answer.status >= 400:
            assert set(json.loads(content)["error"]) == {"message", "type", "param", "code"}

    try:
        ask()
    finally:
        connection.close()
    assert sum(statuses.values()) >= 1000
    assert {200, 400, 404, 405} <= statuses.keys()
    assert shared.ask("GET", "/healthz").json()["status"] == "ok"
    assert shared.metric('semdpo_queue_length{queue="rewrite"}') == 0
