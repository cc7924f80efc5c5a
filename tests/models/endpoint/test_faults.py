"""A rewriter behind a URL: what is asked again, and every fault in words."""

from __future__ import annotations

import threading
import time

import pytest

from semdpo.errors import EndpointError
from semdpo.models.endpoint import load_endpoint
from tests.loopback import Asked, Loopback, Reply, chat, echo, error
from tests.models.endpoint.asking import refusal, rewriter_of, settings


@pytest.mark.parametrize("fault", [error(429), error(500), error(503), error(408), Reply(dropped=True)])
def test_a_passing_fault_is_not_seen(fault: Reply) -> None:
    def second_time(asked: Asked) -> Reply:
        return echo(asked) if asked.time else fault

    with Loopback(second_time) as server:
        prompts = [f"a thing {k}" for k in range(3)]
        rows = rewriter_of(server, retries=1).rewrite(prompts, 1, 0)
        assert [row[0].partition(",")[0] for row in rows] == prompts
        assert len(server.asked) == 6


def test_a_lasting_fault_ends_after_the_retries() -> None:
    with Loopback(lambda asked: error(500, "out of memory")) as server:
        said = refusal(server, retries=3)
        assert len(server.asked) == 4
    assert said == f"{server.url} fails (out of memory); look into the server's log"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_no_repetition_cures_is_not_repeated(status: int) -> None:
    with Loopback(lambda asked: error(status)) as server:
        refusal(server, retries=3)
        assert sum(asked.path.endswith("completions") for asked in server.asked) == 1


def test_the_first_failure_cancels_what_has_not_begun() -> None:
    def refusing(asked: Asked) -> Reply:
        if asked.prompt == "a thing 0":
            return error(401)
        time.sleep(0.02)
        return echo(asked)

    with Loopback(refusing) as server:
        with pytest.raises(EndpointError):
            rewriter_of(server, concurrency=2).rewrite([f"a thing {k}" for k in range(200)], 1, 0)
        assert len(server.asked) < 100


def test_a_server_may_be_started_again() -> None:
    first = Loopback()
    rewriter = rewriter_of(first)
    before = rewriter.rewrite(["a cat", "a dog"], 2, 0)
    first.kill()
    with pytest.raises(EndpointError, match=f"http://127.0.0.1:{first.port}/v1 cannot be reached"):
        rewriter.rewrite(["a cat"], 1, 0)
    with Loopback(port=first.port):
        assert rewriter.rewrite(["a cat", "a dog"], 2, 0) == before, "the same rewriter goes on"


def test_a_server_that_is_down() -> None:
    server = Loopback()
    server.kill()
    assert refusal(server) == (
        f"{server.url} cannot be reached ([Errno 111] Connection refused); start the server, or correct the address"
    )


def test_a_host_that_does_not_exist() -> None:
    with pytest.raises(EndpointError, match=r"http://nowhere.invalid/v1 cannot be reached \(.*\); start the server"):
        load_endpoint("http://nowhere.invalid/v1", settings()).rewrite(["a"], 1, 0)


def test_a_server_that_is_too_slow() -> None:
    free = threading.Event()

    def late(asked: Asked) -> Reply:
        free.wait(30)
        return echo(asked)

    with Loopback(late) as server:
        try:
            assert refusal(server, timeout=0.2, retries=1) == (
                f"{server.url} did not answer within 0.2 seconds, 2 times; raise endpoint.timeout, or lower "
                "endpoint.concurrency"
            )
            assert refusal(server, timeout=0.2).startswith(f"{server.url} did not answer within 0.2 seconds; raise")
        finally:
            free.set()


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"<html>hello</html>"),
        Reply(body=b""),
        Reply(body=b"{", headers={"content-type": "application/json"}),
        Reply(body=b"\xff\xfe", headers={"content-type": "application/json"}),
        Reply(body=b"[" * 100_000, headers={"content-type": "application/json"}),
        Reply(body=b"null", headers={"content-type": "application/json"}),
        Reply(body=[]),
        Reply(body={}),
        Reply(body={"choices": []}),
        Reply(body={"choices": None}),
        Reply(body={"choices": [None]}),
        Reply(body={"choices": [{"text": "of completions, not of chats"}]}),
        Reply(body={"choices": [{"message": None}]}),
        Reply(body={"choices": [{"message": "a cat"}]}),
        chat(["a", "cat"]),
        chat(3),
    ],
)
def test_an_answer_that_is_no_completion(reply: Reply) -> None:
    with Loopback(lambda asked: reply) as server:
        assert refusal(server) == (
            f"{server.url} answers something else than OpenAI's chat completions do; correct the address, which often "
            "ends in /v1"
        )


def test_a_wrong_path() -> None:
    with Loopback() as server:
        server.url = server.url.removesuffix("/v1")
        assert refusal(server) == (
            f"{server.url} has no chat completions (Not Found); correct the address, which often ends in /v1"
        )


def test_a_model_that_the_server_does_not_have() -> None:
    missing = error(404, "The model does not exist.")
    with Loopback(lambda asked: missing, models=("llama", "qwen")) as server:
        assert refusal(server) == f"{server.url} has no model 'm'; it offers llama, qwen; name one of them"
    with Loopback(lambda asked: missing, models=tuple(f"m{k}" for k in range(12))) as server:
        assert "it offers m0, m1, m2, m3, m4, m5, m6, m7, m8, m9 and 2 more; name one" in refusal(server)
    with Loopback(lambda asked: missing, models=()) as server:
        assert "it offers none; name one" in refusal(server)
    with Loopback(lambda asked: missing) as server:
        assert refusal(server).startswith(f"{server.url} offers the model 'm' and does not find it (The model does")


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (error(400, "prompt too long"), "refuses the request (prompt too long); change what it names"),
        (error(422, "bad"), "refuses the request (bad); change what it names"),
        (error(429, "slow down"), "is too busy, or your quota is used up (slow down); lower endpoint.concurrency"),
        (error(429, "come back", retry_after="9999"), "is too busy, or your quota is used up (come back)"),
        (error(401, "who?"), "wants a key (who?); put it into the environment variable OPENAI_API_KEY"),
        (error(403, "who?"), "wants a key (who?)"),
        (error(502, "\x1b[31mred\n\nlines"), "fails (\\x1b[31mred lines); look into the server's log"),
        (Reply(500, b"<html>" + b"x" * 9000), "fails (<html>xxx"),
        (Reply(400, {"detail": "n too large"}), "refuses the request (n too large)"),
        (Reply(400, {"object": "error", "message": "bad n"}), "refuses the request (bad n)"),
        (Reply(400, {"error": "Unexpected endpoint"}), "refuses the request (Unexpected endpoint)"),
        (Reply(400, {"error": {"message": 3}}), "refuses the request (Error code: 400)"),
        (Reply(400, []), "refuses the request (Error code: 400)"),
    ],
)
def test_a_refusal_names_the_url_the_reason_and_the_cure(reply: Reply, said: str) -> None:
    with Loopback(lambda asked: reply) as server:
        found = refusal(server)
    assert found.startswith(f"{server.url} {said}")
    assert len(found) < 500
