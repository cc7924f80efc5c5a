"""The client: what becomes of every fault of a server."""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import suppress
from email.utils import formatdate

import pytest

from semdpo import client
from semdpo.client import NoRewriteError, Reply, optimize, optimize_or_keep
from tests.integrations import stub_server
from tests.integrations.stub_server import DRIFT, REASON, Answer, StubServer, closed_port, failure

PROMPT = "a red ball"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the client would have slept."""
    slept: list[float] = []
    monkeypatch.setattr(client.time, "sleep", slept.append)
    return slept


def test_a_server_that_is_down(caplog: pytest.LogCaptureFixture) -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    with caplog.at_level(logging.INFO, "semdpo"):
        reply = optimize_or_keep(PROMPT, url, seed=1)
    assert reply == Reply(PROMPT, PROMPT, 0.0, reply.reason, fault=True)
    assert reply.reason.startswith(f"the prompt is kept: {url} is not there (")
    assert "start `semdpo serve`" in reply.reason
    assert [record.getMessage() for record in caplog.records] == [f"semdpo: {reply.reason}"]
    assert len(caplog.text.splitlines()) == 1


def test_a_host_that_does_not_exist() -> None:
    with pytest.raises(NoRewriteError, match="is not there"):
        optimize(PROMPT, "http://no-such-host.invalid:7331", timeout=20)


def test_a_guards_reason_is_no_fault(server: StubServer, caplog: pytest.LogCaptureFixture) -> None:
    assert optimize_or_keep(PROMPT, server.url, max_drift=0.0) == Reply(PROMPT, PROMPT, 0.0, REASON, fault=False)
    assert len(caplog.records) == 1
    optimize_or_keep(PROMPT, server.url)
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (failure(401, "wrong key"), "answers 401: put the right key into SEMDPO_TOKEN.*wrong key"),
        (failure(403, "no"), "answers 403: put the right key"),
        (failure(400, "prompt is too long"), "answers 400: prompt is too long$"),
        (failure(504, "took too long"), "answers 504: took too long"),
        (Answer({"error": "just\na text"}, 500), "answers 500: just a text$"),
        (Answer({"detail": "x"}, 500), "answers 500$"),
        (Answer([1], 500), "answers 500$"),
        (Answer(b"<html>oops</html>", 502), "answers 502$"),
        (Answer(b"", 500), "answers 500$"),
        (failure(404, "no model 'x'"), "answers 404: no model 'x'$"),
        (failure(400, "x" * 9999), "x{250}…$"),
        (failure(400, "a\n\x1b[2Jb"), r"answers 400: a \[2Jb$"),
    ],
)
def test_a_refusal_says_what_the_server_said(server: StubServer, answer: Answer, why: str) -> None:
    server.answers(answer)
    with pytest.raises(NoRewriteError, match=why) as error:
        optimize(PROMPT, server.url)
    assert str(error.value).startswith(server.url)
    assert len(str(error.value).splitlines()) == 1


def test_a_busy_server_is_asked_again_when_it_says(server: StubServer, waits: list[float]) -> None:
    busy = [
        failure(429, "busy", **{"Retry-After": "3"}),
        failure(503, "busy"),
        failure(429, "busy", **{"Retry-After": "x"}),
    ]
    server.answers(*busy, stub_server.semdpo(stub_server.Asked("/v1/optimize", {"prompt": PROMPT}, {})))
    assert optimize(PROMPT, server.url).drift == DRIFT
    assert waits == [3.0, 2.0, 4.0]


def test_a_server_that_stays_busy_is_left_alone(server: StubServer, waits: list[float]) -> None:
    server.answers(failure(429, "too many", **{"Retry-After": "0"}))
    with pytest.raises(NoRewriteError, match="answers 429: too many"):
        optimize(PROMPT, server.url)
    assert len(server.asked) == client.TRIES
    assert waits == [0.0] * (client.TRIES - 1)


@pytest.mark.parametrize("later", ["3600", "1e999", "Fri, 01 Jan 2100 00:00:00 GMT"])
def test_nobody_waits_longer_than_the_timeout(server: StubServer, waits: list[float], later: str) -> None:
    server.answers(failure(429, "too many", **{"Retry-After": later}))
    with pytest.raises(NoRewriteError, match="answers 429"):
        optimize(PROMPT, server.url)
    assert (len(server.asked), waits) == (1, [])


@pytest.mark.parametrize("past", ["-5", formatdate(0, usegmt=True)])
def test_a_time_that_is_past_is_now(server: StubServer, waits: list[float], past: str) -> None:
    server.answers(
        failure(429, "", **{"Retry-After": past}), Answer({"results": [{"rewrite": "x", "drift": 0, "reason": ""}]})
    )
    assert optimize(PROMPT, server.url).rewrite == "x"
    assert waits == [0.0]


def test_a_server_that_never_answers(server: StubServer) -> None:
    over = threading.Event()
    server.answer = lambda asked: Answer({}, 500 + over.wait(60))
    try:
        with pytest.raises(NoRewriteError, match="took too long"):
            optimize(PROMPT, server.url, timeout=0.2)
    finally:
        over.set()


def test_a_server_that_answers_byte_by_byte() -> None:
    """Each byte comes in time, so that only the deadline of the whole answer ends it."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not over.wait(0.02):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            with pytest.raises(NoRewriteError, match="took too long"):
                optimize(PROMPT, f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=0.3)
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize("text", [b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}", b""])
def test_a_program_that_is_no_web_server(text: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with suppress(OSError):  # the client may hang up at any time, and the shutdown below ends `accept`
                while True:
                    connection, _ = listener.accept()
                    with connection, suppress(OSError):
                        connection.recv(65536)
                        connection.sendall(text)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            with pytest.raises(NoRewriteError, match=r"is not there|not a chat completion"):
                optimize(PROMPT, f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=20)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_huge_answer_is_not_read_to_its_end(server: StubServer) -> None:
    server.answers(Answer(b" " * (client.MOST_BYTES + 2)))
    with pytest.raises(NoRewriteError, match="larger than"):
        optimize(PROMPT, server.url)
