"""A rewriter behind a URL, against a real server on this machine: order, seeds, retries, and every fault in words."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import time

import pytest

from semdpo import answers
from semdpo.errors import ConfigError, EndpointError, ModelError, RefusedRequestError
from semdpo.models.endpoint import WITHHELD, EndpointRewriter, load_endpoint
from semdpo.models.registry import resolve
from semdpo.protocols import Answer, AnsweringRewriter, FlaggingRewriter, Rewriter
from semdpo.protocols import answers as answers_of
from semdpo.recipe import defaults
from semdpo.recipe.endpoints import EndpointConfig
from semdpo.recipe.models import DecodingConfig
from tests.loopback import Asked, Loopback, Reply, chat, echo, error

KEY = "sk-secret-1234567890"


@pytest.fixture(autouse=True)
def _no_key_and_no_litter(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def _settings(**values: object) -> EndpointConfig:
    return EndpointConfig.model_validate({"model_name": "m", "retries": 0, "timeout": 20} | values)


def _rewriter(server: Loopback, decoding: DecodingConfig | None = None, **values: object) -> EndpointRewriter:
    return load_endpoint(server.url, _settings(**values), decoding)


def _refusal(server: Loopback, **values: object) -> str:
    with pytest.raises(EndpointError) as refused:
        _rewriter(server, **values).rewrite(["a cat"], 1, 0)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# ------------------------------------------------------------------------------------------------- what is asked


def test_a_request_has_the_instruction_the_prompt_and_the_decoding() -> None:
    with Loopback(lambda asked: chat("a cat")) as server:
        decoding = DecodingConfig(temperature=0.7, top_p=0.9, max_new_tokens=60)
        _rewriter(server, decoding).rewrite([" a cat "], 1, 3)
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
        first = _rewriter(server, body={"top_k": 5, "seed": None})
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
        load_endpoint(server.url, _settings(), system="").rewrite(["a cat"], 1, 0)
        load_endpoint(server.url, _settings(), system="Be brief.").rewrite(["a cat"], 1, 0)
        roles = [[message["role"] for message in asked.body["messages"]] for asked in server.asked]
    assert roles == [["user"], ["system", "user"]]


def test_many_requests_at_a_time_keep_their_order() -> None:
    prompts = [f"a thing {k}" for k in range(20)]

    def later_for_some(asked: Asked) -> Reply:
        time.sleep(asked.body["seed"] % 7 / 1000)
        return echo(asked)

    with Loopback(later_for_some) as server:
        rows = _rewriter(server, concurrency=16).rewrite(prompts, 3, 5)
        assert server.most > 1
        assert len(server.asked) == 60
        assert all(
            text.startswith(f"{prompt}, seed") for prompt, row in zip(prompts, rows, strict=True) for text in row
        )
        seeds = {text for row in rows for text in row}
        assert len(seeds) == 60, "every rewrite has a seed of its own"
        one_at_a_time = _rewriter(server, concurrency=1)
        assert one_at_a_time.rewrite(prompts[::-1], 3, 5) == rows[::-1]
        assert one_at_a_time.rewrite(prompts[7:9], 2, 5) == [row[:2] for row in rows[7:9]]
        assert one_at_a_time.rewrite(prompts[:1], 3, 6) != rows[:1]


def test_as_many_requests_as_asked_are_under_way() -> None:
    together = threading.Barrier(4, timeout=30)

    def all_four(asked: Asked) -> Reply:
        together.wait()
        return echo(asked)

    with Loopback(all_four) as server:
        _rewriter(server, concurrency=4).rewrite(["a", "b", "c", "d"], 2, 0)
        assert server.most == 4


def test_no_prompts_no_requests() -> None:
    with Loopback() as server:
        assert _rewriter(server).rewrite([], 2, 0) == []
        with pytest.raises(ModelError, match="n must be at least 1, not 0"):
            _rewriter(server).rewrite(["a"], 0, 0)
        assert server.asked == []


# ------------------------------------------------------------------------------------------------- what is answered


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (chat("a cat, oil"), Answer("a cat, oil")),
        (chat('Here is the rewritten prompt:\n\n"a cat, oil"'), Answer("a cat, oil")),
        (chat("a cat, o", "length"), Answer("a cat, o", truncated=True)),
        (chat("a cat", reasoning_content="They want a dog"), Answer("a cat")),
        (chat("<think>x</think>a cat"), Answer("a cat")),
        (chat("", "length", reasoning_content="They want"), Answer("", True, answers.NO_ROOM)),
        (chat(None), Answer("", False, answers.EMPTY)),
        (chat(None, tool_calls=[{}]), Answer("", False, answers.EMPTY)),
        (chat(None, refusal="No."), Answer("", False, "the model refused: 'No.'")),
        (chat("a cat", "content_filter"), Answer("", False, WITHHELD)),
        (chat('{"prompt": "a cat"}'), Answer("", False, answers.JSON)),
        (chat("a cat\n\nI added oil.\n\nEnjoy!"), Answer("", False, answers.PARAGRAPHS)),
    ],
)
def test_an_answer_is_a_rewrite_or_has_a_reason(reply: Reply, answer: Answer) -> None:
    with Loopback(lambda asked: reply) as server:
        rewriter = _rewriter(server)
        assert rewriter.answers(["a cat"], 1, 0) == [[answer]]
        assert rewriter.rewrite_flagged(["a cat"], 1, 0) == [[(answer.text, answer.truncated)]]
        assert rewriter.rewrite(["a cat"], 1, 0) == [[answer.text]]


def test_a_prompt_that_the_server_refuses_leaves_the_others_alone() -> None:
    def picky(asked: Asked) -> Reply:
        return error(400, "too long") if asked.prompt == "long" else chat("a cat")

    with Loopback(picky) as server:
        rewriter = _rewriter(server)
        one, refused, other = rewriter.answers(["one", "long", "other"], 1, 0)
        assert one == other == [Answer("a cat")]
        assert "refuses the request (too long)" in refused[0].reason
        with pytest.raises(RefusedRequestError, match="too long"):
            rewriter.answers(["long"], 3, 0)


def test_the_log_says_how_many_answers_are_none_and_why(caplog: pytest.LogCaptureFixture) -> None:
    said = {"a": "I'm sorry, but I can't help with a.", "b": "", "c": "a cat", "d": "I'm sorry, but no."}
    with Loopback(lambda asked: chat(said[asked.prompt])) as server:
        _rewriter(server).rewrite(list(said), 2, 0)
        assert caplog.messages[-1] == (
            "6 of 8 answers of 'm' are no rewrites and count as empty: the model refused (4); the answer is empty (2)"
        )
        caplog.clear()
        _rewriter(server).rewrite(["c"], 2, 0)
        assert not [record for record in caplog.records if record.name == "semdpo"]


def test_it_is_a_rewriter_that_explains_and_others_are_explained_too() -> None:
    class Plain:
        def rewrite(self, prompts: list[str], n: int, seed: int) -> list[list[str]]:
            return [[f"{prompt} {index}" for index in range(n)] for prompt in prompts]

    class Flagging(Plain):
        def rewrite_flagged(self, prompts: list[str], n: int, seed: int) -> list[list[tuple[str, bool]]]:
            return [[(prompt, True)] * n for prompt in prompts]

    assert answers_of(Plain(), ["a"], 2, 0) == [[Answer("a 0"), Answer("a 1")]]
    assert answers_of(Flagging(), ["a"], 1, 0) == [[Answer("a", truncated=True)]]
    with Loopback(lambda asked: chat("")) as server:
        rewriter = _rewriter(server)
        for protocol in (Rewriter, FlaggingRewriter, AnsweringRewriter):
            assert isinstance(rewriter, protocol)
        assert answers_of(rewriter, ["a"], 1, 0) == [[Answer("", False, answers.EMPTY)]]


# ------------------------------------------------------------------------------------------------- retries


@pytest.mark.parametrize("fault", [error(429), error(500), error(503), error(408), Reply(dropped=True)])
def test_a_passing_fault_is_not_seen(fault: Reply) -> None:
    def second_time(asked: Asked) -> Reply:
        return echo(asked) if asked.time else fault

    with Loopback(second_time) as server:
        prompts = [f"a thing {k}" for k in range(3)]
        rows = _rewriter(server, retries=1).rewrite(prompts, 1, 0)
        assert [row[0].partition(",")[0] for row in rows] == prompts
        assert len(server.asked) == 6


def test_a_lasting_fault_ends_after_the_retries() -> None:
    with Loopback(lambda asked: error(500, "out of memory")) as server:
        said = _refusal(server, retries=3)
        assert len(server.asked) == 4
    assert said == f"{server.url} fails (out of memory); look into the server's log"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_no_repetition_cures_is_not_repeated(status: int) -> None:
    with Loopback(lambda asked: error(status)) as server:
        _refusal(server, retries=3)
        assert sum(asked.path.endswith("completions") for asked in server.asked) == 1


def test_the_first_failure_cancels_what_has_not_begun() -> None:
    def refusing(asked: Asked) -> Reply:
        if asked.prompt == "a thing 0":
            return error(401)
        time.sleep(0.02)
        return echo(asked)

    with Loopback(refusing) as server:
        with pytest.raises(EndpointError):
            _rewriter(server, concurrency=2).rewrite([f"a thing {k}" for k in range(200)], 1, 0)
        assert len(server.asked) < 100


def test_a_server_may_be_started_again() -> None:
    first = Loopback()
    rewriter = _rewriter(first)
    before = rewriter.rewrite(["a cat", "a dog"], 2, 0)
    first.kill()
    with pytest.raises(EndpointError, match=f"http://127.0.0.1:{first.port}/v1 cannot be reached"):
        rewriter.rewrite(["a cat"], 1, 0)
    with Loopback(port=first.port):
        assert rewriter.rewrite(["a cat", "a dog"], 2, 0) == before, "the same rewriter goes on"


# ------------------------------------------------------------------------------------------------- faults in words


def test_a_server_that_is_down() -> None:
    server = Loopback()
    server.kill()
    assert _refusal(server) == (
        f"{server.url} cannot be reached ([Errno 111] Connection refused); start the server, or correct the address"
    )


def test_a_host_that_does_not_exist() -> None:
    with pytest.raises(EndpointError, match=r"http://nowhere.invalid/v1 cannot be reached \(.*\); start the server"):
        load_endpoint("http://nowhere.invalid/v1", _settings()).rewrite(["a"], 1, 0)


def test_a_server_that_is_too_slow() -> None:
    free = threading.Event()

    def late(asked: Asked) -> Reply:
        free.wait(30)
        return echo(asked)

    with Loopback(late) as server:
        try:
            assert _refusal(server, timeout=0.2, retries=1) == (
                f"{server.url} did not answer within 0.2 seconds, 2 times; raise endpoint.timeout, or lower "
                "endpoint.concurrency"
            )
            assert _refusal(server, timeout=0.2).startswith(f"{server.url} did not answer within 0.2 seconds; raise")
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
        assert _refusal(server) == (
            f"{server.url} answers something else than OpenAI's chat completions do; correct the address, which often "
            "ends in /v1"
        )


def test_a_wrong_path() -> None:
    with Loopback() as server:
        server.url = server.url.removesuffix("/v1")
        assert _refusal(server) == (
            f"{server.url} has no chat completions (Not Found); correct the address, which often ends in /v1"
        )


def test_a_model_that_the_server_does_not_have() -> None:
    missing = error(404, "The model does not exist.")
    with Loopback(lambda asked: missing, models=("llama", "qwen")) as server:
        assert _refusal(server) == f"{server.url} has no model 'm'; it offers llama, qwen; name one of them"
    with Loopback(lambda asked: missing, models=tuple(f"m{k}" for k in range(12))) as server:
        assert "it offers m0, m1, m2, m3, m4, m5, m6, m7, m8, m9 and 2 more; name one" in _refusal(server)
    with Loopback(lambda asked: missing, models=()) as server:
        assert "it offers none; name one" in _refusal(server)
    with Loopback(lambda asked: missing) as server:
        assert _refusal(server).startswith(f"{server.url} offers the model 'm' and does not find it (The model does")


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
        found = _refusal(server)
    assert found.startswith(f"{server.url} {said}")
    assert len(found) < 500


# ------------------------------------------------------------------------------------------------- the key


def _keyed(asked: Asked) -> Reply:
    given = asked.headers.get("authorization", "")
    return echo(asked) if given == f"Bearer {KEY}" else error(401, f"wrong key: {given}")


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with Loopback(_keyed) as server:
        assert "wants a key" in _refusal(server)
        monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
        assert _rewriter(server).rewrite(["a cat"], 1, 0)
        monkeypatch.setenv("MY_KEY", "another")
        said = _refusal(server, key_env="MY_KEY")
        assert said == f"{server.url} refuses the key in MY_KEY (wrong key: Bearer …); put the right key there"
        monkeypatch.setenv("OTHER_KEY", "")
        assert "wants a key" in _refusal(server, key_env="OTHER_KEY"), "OPENAI_API_KEY is not taken instead"


def _outcome(rewriter: EndpointRewriter) -> str:
    try:
        return repr(rewriter.rewrite(["a cat"], 1, 0))
    except EndpointError as refused:
        return str(refused)


def test_the_key_is_never_shown(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for library in ("openai", "httpx2", "semdpo"):  # httpcore2 would log the headers that a server sends back
        caplog.set_level(logging.DEBUG, library)
    replies = [error(status, f"your key is {KEY}") for status in (400, 401, 403, 404, 429, 500)]
    replies += [Reply(500, KEY.encode()), Reply(307, headers={"location": f"http://{KEY}@x/{KEY}?{KEY}"}), chat("a")]
    for reply in replies:
        with Loopback(lambda asked, reply=reply: reply, models=(KEY,)) as server:
            rewriter = _rewriter(server)
            said = _outcome(rewriter)
            assert KEY not in said
            assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in caplog.text
    assert KEY not in repr(vars(rewriter))


def test_a_key_that_cannot_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("two words", "clé", "a\nb", "a\x7f"):
        monkeypatch.setenv("OPENAI_API_KEY", text)
        with pytest.raises(EndpointError, match="the environment variable OPENAI_API_KEY holds no key") as refused:
            load_endpoint("http://localhost:1/v1", _settings())
        assert text not in str(refused.value)


def test_a_redirect_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Loopback() as other:
        for status in (301, 302, 303, 307, 308):
            away = Reply(status, headers={"location": f"{other.url}/chat/completions"})
            with Loopback(lambda asked, away=away: away, models=away) as server:
                assert _refusal(server) == (
                    f"{server.url} redirects to {other.url}/chat/completions; give the address at which it answers "
                    "itself"
                )
                with pytest.raises(EndpointError, match="redirects to"):
                    load_endpoint(server.url, _settings(model_name=None))
        assert other.asked == [], "so that no key gets there"


def test_a_server_on_this_machine_is_not_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with Loopback(lambda asked: error(500, "the proxy")) as proxy, Loopback() as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
        monkeypatch.setenv("ALL_PROXY", proxy.url.removesuffix("/v1"))
        assert _rewriter(server).rewrite(["a cat"], 1, 0)
        assert proxy.asked == []
        with pytest.raises(EndpointError):  # any other is
            load_endpoint("http://nowhere.invalid/v1", _settings()).rewrite(["a cat"], 1, 0)
        assert proxy.asked[0].path == "http://nowhere.invalid/v1/chat/completions"


# ------------------------------------------------------------------------------------------------- names and settings


def test_without_a_name_the_only_model_is_taken() -> None:
    with Loopback(models=("qwen",)) as server:
        assert _rewriter(server, model_name=None).model == "qwen"
    with Loopback(models=("a", "b")) as server, pytest.raises(EndpointError) as refused:
        _rewriter(server, model_name=None)
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
            _rewriter(server, model_name=None)
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
        load_endpoint(url, _settings())
    assert said in str(refused.value)
    assert "pw" not in str(refused.value)
    assert "sk-key" not in str(refused.value)


@pytest.mark.parametrize("setting", [{"top_k": 3}, {"num_beams": 2, "temperature": 0}, {"repetition_penalty": 1.1}])
def test_what_no_server_takes_is_refused(setting: dict[str, float]) -> None:
    name = next(iter(setting))
    with pytest.raises(EndpointError, match=f"a model behind a URL takes no {name}; remove it, or put what"):
        load_endpoint("http://localhost:1/v1", _settings(), DecodingConfig.model_validate(setting))


@pytest.mark.parametrize("url", ["http://localhost:8000/v1", " HTTPS://user:pw@host/v1?key=pw"])
def test_where_files_are_needed_a_url_is_refused(url: str) -> None:
    with pytest.raises(ModelError) as refused:
        resolve(url)
    assert "is a server; here a model with files is needed: give a folder or a published name" in str(refused.value)
    assert "pw" not in str(refused.value)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ConfigError) as refused:
        load_endpoint("http://localhost:1/v1", _settings())
    assert str(refused.value) == (
        "a rewriter behind a URL needs openai; install it with: pip install 'semdpo[endpoint]'"
    )


def test_connections_are_closed_with_the_rewriter() -> None:
    with Loopback() as server:
        rewriter = _rewriter(server)
        rewriter.rewrite(["a", "b"], 2, 0)
        del rewriter
        gc.collect()  # an open socket would warn, which fails a test
