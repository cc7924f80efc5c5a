"""The client: what it asks, and what becomes of an answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from semdpo import client
from semdpo.client import NoRewriteError, Reply, optimize, optimize_or_keep
from tests.integrations.stub_server import ADDED, DRIFT, REASON, Answer, StubServer, another_server, chat

PROMPT = "a red ball"


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


def test_words_to_keep_are_a_list(server: StubServer) -> None:
    with pytest.raises(NoRewriteError, match="keep is the text 'red ball'; give a list"):
        optimize("a red ball", server.url, keep="red ball")


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
        (chat("a red ball on the", finish_reason="content_filter"), "content filter"),
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
