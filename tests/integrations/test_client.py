"""The client: what it sends, whom it trusts with a key, and what becomes of every fault."""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import suppress
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from semdpo import client
from semdpo.client import NoRewriteError, Reply, optimize, optimize_or_keep, phrases, token_for
from tests.integrations import stub_server
from tests.integrations.stub_server import ADDED, DRIFT, REASON, Answer, StubServer, another_server, chat, failure

PROMPT = "a red ball"


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the client would have slept."""
    slept: list[float] = []
    monkeypatch.setattr(client.time, "sleep", slept.append)
    return slept


# ---- semdpo serve ----


def test_semdpo_serve_gives_the_rewrite_and_its_drift(server: StubServer) -> None:
    assert optimize(PROMPT, server.url) == Reply(PROMPT + ADDED, PROMPT, DRIFT)


def test_what_is_asked_follows_the_contract(server: StubServer) -> None:
    optimize(PROMPT, server.url, keep=["red"], length="short", max_drift=0.5, seed=7, model="mine")
    wish = {"prompt": PROMPT, "keep": ["red"], "length": "short", "max_drift": 0.5, "seed": 7, "model": "mine"}
    assert [(asked.path, asked.body) for asked in server.asked] == [("/v1/optimize", wish)]
    assert server.asked[0].headers["Content-Type"] == "application/json"
    assert "Authorization" not in server.asked[0].headers
    optimize(PROMPT, server.url, length=40)
    assert server.asked[1].body["length"] == 40
    optimize(PROMPT, server.url, length="auto")
    wish = {"prompt": PROMPT, "keep": [], "length": None, "max_drift": None, "seed": 0, "model": None}
    assert server.asked[2].body == wish


def test_the_guards_reason_comes_back_with_the_users_own_prompt(server: StubServer) -> None:
    typed = f" {PROMPT}\n"
    assert optimize(typed, server.url, max_drift=0.0) == Reply(typed, typed, 0.0, REASON)


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/", "/v1/optimize"])
def test_the_url_may_have_its_end_or_not(server: StubServer, end: str) -> None:
    assert optimize(PROMPT, f" {server.url}{end} ").drift == DRIFT
    assert server.asked[0].path == "/v1/optimize"


def test_an_empty_prompt_is_not_sent(server: StubServer) -> None:
    assert optimize(" \n", server.url) == Reply(" \n", " \n", 0.0, "the prompt is kept: it is empty")
    assert server.asked == []


@pytest.mark.parametrize(
    "record",
    [
        {"rewrite": "x"},
        {"rewrite": 1, "drift": 0.1, "reason": ""},
        {"rewrite": "x", "drift": None, "reason": ""},
        {"rewrite": "x", "drift": float("nan"), "reason": ""},
        {"rewrite": "x", "drift": 10**400, "reason": ""},
        {"rewrite": "x", "drift": -1, "reason": ""},
        {"rewrite": "x", "drift": 0.1, "reason": None},
        "x",
        None,
    ],
)
def test_a_record_of_another_form_is_refused(server: StubServer, record: Any) -> None:
    server.answers(Answer({"results": [record]}))
    with pytest.raises(NoRewriteError, match="another form"):
        optimize(PROMPT, server.url)


@pytest.mark.parametrize("results", [[], None, {}, 3])
def test_results_of_another_form_are_refused(server: StubServer, results: Any) -> None:
    server.answers(Answer({"results": results}))
    with pytest.raises(NoRewriteError, match="another form"):
        optimize(PROMPT, server.url)


def test_a_drift_that_rounding_made_negative_is_zero(server: StubServer) -> None:
    server.answers(Answer({"results": [{"rewrite": "x", "drift": -1e-7, "reason": ""}]}))
    assert optimize(PROMPT, server.url).drift == 0.0


@pytest.mark.parametrize(
    ("rewrite", "why"), [("", "is empty"), (" ", "is empty"), ("a\0b", "not text"), ("a\ud800b", "not text")]
)
def test_a_rewrite_that_is_no_text_is_refused(server: StubServer, rewrite: str, why: str) -> None:
    server.answers(Answer({"results": [{"rewrite": rewrite, "drift": 0.1, "reason": ""}]}))
    with pytest.raises(NoRewriteError, match=why):
        optimize(PROMPT, server.url)


# ---- another server ----


def test_another_server_is_asked_in_its_own_way(server: StubServer) -> None:
    server.answer = another_server('Rewritten prompt: "a red ball, oil"')
    reply = optimize(PROMPT, server.url, keep=["red"], length="long", seed=3, model="m")
    assert reply == Reply("a red ball, oil", PROMPT, None)
    assert [asked.path for asked in server.asked] == ["/v1/optimize", "/v1/chat/completions"]
    body = server.asked[1].body
    system, user = body.pop("messages")
    assert body == {"stream": False, "seed": 3, "model": "m"}
    assert user == {"role": "user", "content": PROMPT}
    assert system["role"] == "system"
    for part in (client.INSTRUCTION, "red", "about 100 words"):
        assert part in system["content"]


def test_a_model_trained_to_rewrite_gets_the_prompt_alone(server: StubServer) -> None:
    server.answer = another_server("a red ball, oil")
    optimize(PROMPT, server.url, instruction="")
    assert server.asked[1].body == {"messages": [{"role": "user", "content": PROMPT}], "stream": False, "seed": 0}
    optimize(PROMPT, server.url, instruction="", length=30)
    assert "at most 30 tokens" in server.asked[3].body["messages"][0]["content"]


def test_a_whole_address_is_asked_at_once(server: StubServer) -> None:
    server.answer = lambda asked: chat("a red ball, oil")
    assert optimize(PROMPT, f"{server.url}/api/chat/completions").rewrite == "a red ball, oil"
    assert [asked.path for asked in server.asked] == ["/api/chat/completions"]


def test_semdpos_chat_route_gives_the_drift_too(server: StubServer) -> None:
    assert optimize(PROMPT, f"{server.url}/v1/chat/completions") == Reply(PROMPT + ADDED, PROMPT, DRIFT)


def test_a_server_that_says_200_to_every_route_is_asked_in_openais_way(server: StubServer) -> None:
    server.answer = lambda asked: chat("x") if "chat" in asked.path else Answer({"error": "Unexpected endpoint"})
    assert optimize("y", server.url).rewrite == "x"


def test_a_limit_that_nobody_measures_is_refused(server: StubServer) -> None:
    server.answer = another_server("a red ball, oil")
    with pytest.raises(NoRewriteError, match="measures no drift; leave max_drift unset"):
        optimize(PROMPT, server.url, max_drift=0.3)
    assert [asked.path for asked in server.asked] == ["/v1/optimize"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (chat(None), "gave no text"),
        (chat([{"type": "text", "text": "a"}]), "gave no text"),
        (chat("", refusal="no"), "is empty"),
        (chat("I'm sorry, I can't help with that."), "refused"),
        (chat("a red ball on the", finish_reason="length"), "cut off"),
        (chat("a red ball\n\nI added nothing."), "several lines"),
        (chat("a ball"), "lost 'red'"),
        (Answer({"choices": []}), "not a chat completion"),
        (Answer({"choices": [{"text": "a red ball"}]}), "not a chat completion"),
        (Answer({"choices": [{"message": "a red ball"}]}), "not a chat completion"),
        (Answer([]), "not a chat completion"),
        (Answer(b"<html>Welcome</html>"), "not a chat completion"),
        (Answer(b"[" * 100_000), "not a chat completion"),
        (
            Answer({"choices": [{"message": {"content": None, "refusal": "I will not\n"}}]}),
            r"gave no text \(I will not\)",
        ),
    ],
)
def test_an_answer_that_is_no_rewrite_is_refused(server: StubServer, answer: Answer, why: str) -> None:
    server.answers(answer)
    with pytest.raises(NoRewriteError, match=why):
        optimize(PROMPT, server.url, keep=["red"])


def test_syntax_that_another_server_lost_is_refused(server: StubServer) -> None:
    server.answer = another_server("a red ball, oil")
    with pytest.raises(NoRewriteError, match=r"lost '<lora:oil:0\.8>'"):
        optimize("a red ball <lora:oil:0.8>", server.url)


KEYS = ["results", "choices", "message", "content", "refusal", "finish_reason", "rewrite", "drift", "reason", "semdpo"]
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
ANSWERS = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner), max_leaves=12
)


@given(own=ANSWERS, chats=ANSWERS)
@example(own={"results": [{"rewrite": "x", "drift": True, "reason": ""}]}, chats=None)
@example(own=None, chats={"choices": [{"message": {"content": "x", "refusal": 0}, "finish_reason": []}]})
@example(own=None, chats={"choices": {"0": 1}, "semdpo": {"results": {}}})
@settings(deadline=None)
def test_every_answer_becomes_a_reply_or_a_sentence(own: Any, chats: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        answers = iter([own, chats])
        patch.setattr(client, "_asked", lambda *_: (200, next(answers)))
        reply = optimize_or_keep("x")
    assert isinstance(reply.rewrite, str)
    assert len(reply.reason.splitlines()) <= 1
    assert reply.drift is None or 0 <= reply.drift <= 2
    assert reply.rewrite.strip()
    if reply.reason:
        assert (reply.rewrite, reply.drift) == ("x", 0.0)


# ---- faults ----


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


# ---- whom a key is sent ----


def test_the_key_is_sent_to_the_server(server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMDPO_TOKEN", " secret\n")
    assert optimize_or_keep(PROMPT, server.url).drift == DRIFT
    assert server.asked[0].headers["Authorization"] == "Bearer secret"
    optimize_or_keep(PROMPT, server.url, token_env="")
    assert "Authorization" not in server.asked[1].headers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(server: StubServer, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with stub_server.stub_server() as elsewhere:
        server.answers(Answer(b"", status, {"Location": f"{elsewhere.url}/v1/optimize"}))
        with pytest.raises(NoRewriteError, match=f"sends on to '{elsewhere.url}/v1/optimize'; if it is right"):
            optimize(PROMPT, server.url, token="secret")
        assert elsewhere.asked == []


def test_a_redirect_to_a_file_is_not_followed(server: StubServer) -> None:
    server.answers(Answer(b"", 302, {"Location": "file:///etc/passwd"}))
    with pytest.raises(NoRewriteError):
        optimize(PROMPT, server.url)


def test_the_key_is_in_no_message(server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMDPO_TOKEN", "secret")
    server.answers(failure(401, "the key secret is wrong"))
    assert "secret" not in optimize_or_keep(PROMPT, server.url).reason
    for token in ("sec\nret: x", "sécret", "sec ret"):
        with pytest.raises(NoRewriteError, match="no header can carry") as error:
            optimize(PROMPT, server.url, token=token)
        assert "ret" not in str(error.value)


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "PATH", "semdpo_token", "SEMDPO", "SEMDPO_A=B", "SEMDPO_É"])
def test_other_variables_are_not_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with pytest.raises(NoRewriteError, match="begins with SEMDPO_"):
        token_for(client.DEFAULT_URL, name)


def test_a_key_stays_on_this_machine_unless_its_owner_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMDPO_TOKEN", "secret")
    for url in ("http://127.0.0.1:1", "http://localhost/v1", "https://[::1]:7331", "http://127.9.9.9"):
        assert token_for(url, "SEMDPO_TOKEN") == "secret"
    for url in ("https://example.com", "http://127.evil.com", "http://localhost.evil.com", "http://192.168.0.2"):
        with pytest.raises(NoRewriteError, match="allow it with SEMDPO_TOKEN_HOSTS="):
            token_for(url, "SEMDPO_TOKEN")
    monkeypatch.setenv("SEMDPO_TOKEN_HOSTS", "Example.com, 192.168.0.2")
    assert token_for("https://EXAMPLE.com/v1", "SEMDPO_TOKEN") == "secret"
    assert token_for("http://192.168.0.2:80", "SEMDPO_TOKEN") == "secret"
    with pytest.raises(NoRewriteError, match="allow it"):
        token_for("https://example.com.evil.com", "SEMDPO_TOKEN")


def test_a_variable_that_is_named_must_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert token_for("https://example.com", "SEMDPO_TOKEN") == ""
    with pytest.raises(NoRewriteError, match="SEMDPO_TOKEN_OF_MINE is not set"):
        token_for("https://example.com", "SEMDPO_TOKEN_OF_MINE")
    monkeypatch.setenv("SEMDPO_TOKEN_OF_MINE", "secret")
    assert token_for(client.DEFAULT_URL, " SEMDPO_TOKEN_OF_MINE ") == "secret"


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "x",
            "127.0.0.1:7331",
            "file:///etc/passwd",
            "ftp://host/x",
            "data:,x",
            "http://",
            "http:///v1",
            "//host",
        ),
        *("http://host:port", "http://host:99999", "http://[::1", "http://ho st", "http://ho\nst", "http://höst"),
        *("http://user:secret@host", "http://host?key=secret", "http://host#secret", "javascript:alert(1)"),
        *("http://user:secret@[", "http://user:secret@ho st"),
    ],
)
def test_a_url_that_is_no_servers_is_refused(url: str) -> None:
    with pytest.raises(
        NoRewriteError, match=r"is not one of a server; write it like http://127\.0\.0\.1:7331"
    ) as error:
        optimize(PROMPT, url)
    assert "secret" not in str(error.value)
    assert optimize_or_keep(PROMPT, url).fault


def test_a_proxy_is_not_asked_for_this_machine(server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert optimize(PROMPT, server.url).drift == DRIFT


def test_a_proxy_is_asked_for_others(server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    server.answers(Answer({"results": [stub_server.record(PROMPT, None)]}))
    assert optimize(PROMPT, "http://example.invalid").drift == DRIFT
    assert [asked.path for asked in server.asked] == ["http://example.invalid/v1/optimize"]


def test_phrases() -> None:
    assert phrases(" red ball, ,snow\n sign ") == ["red ball", "snow", "sign"]
    assert phrases("") == []
