"""A rewriter behind a URL: whom its key is sent, and that nobody sees it."""

from __future__ import annotations

import logging

import pytest

from semdpo.errors import EndpointError
from semdpo.models.endpoint import EndpointRewriter, load_endpoint
from tests.loopback import Asked, Loopback, Reply, chat, echo, error
from tests.models.endpoint.asking import refusal, rewriter_of, settings

KEY = "sk-secret-1234567890"


def _keyed(asked: Asked) -> Reply:
    given = asked.headers.get("authorization", "")
    return echo(asked) if given == f"Bearer {KEY}" else error(401, f"wrong key: {given}")


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with Loopback(_keyed) as server:
        assert "wants a key" in refusal(server)
        monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
        assert rewriter_of(server).rewrite(["a cat"], 1, 0)
        monkeypatch.setenv("MY_KEY", "another")
        said = refusal(server, key_env="MY_KEY")
        assert said == f"{server.url} refuses the key in MY_KEY (wrong key: Bearer …); put the right key there"
        monkeypatch.setenv("OTHER_KEY", "")
        assert "wants a key" in refusal(server, key_env="OTHER_KEY"), "OPENAI_API_KEY is not taken instead"


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
            rewriter = rewriter_of(server)
            said = _outcome(rewriter)
            assert KEY not in said
            assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in caplog.text
    assert KEY not in repr(vars(rewriter))


def test_a_key_that_cannot_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("two words", "clé", "a\nb", "a\x7f"):
        monkeypatch.setenv("OPENAI_API_KEY", text)
        with pytest.raises(EndpointError, match="the environment variable OPENAI_API_KEY holds no key") as refused:
            load_endpoint("http://localhost:1/v1", settings())
        assert text not in str(refused.value)


def test_a_redirect_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Loopback() as other:
        for status in (301, 302, 303, 307, 308):
            away = Reply(status, headers={"location": f"{other.url}/chat/completions"})
            with Loopback(lambda asked, away=away: away, models=away) as server:
                assert refusal(server) == (
                    f"{server.url} redirects to {other.url}/chat/completions; give the address at which it answers "
                    "itself"
                )
                with pytest.raises(EndpointError, match="redirects to"):
                    load_endpoint(server.url, settings(model_name=None))
        assert other.asked == [], "so that no key gets there"


def test_a_server_on_this_machine_is_not_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with Loopback(lambda asked: error(500, "the proxy")) as proxy, Loopback() as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
        monkeypatch.setenv("ALL_PROXY", proxy.url.removesuffix("/v1"))
        assert rewriter_of(server).rewrite(["a cat"], 1, 0)
        with pytest.raises(EndpointError):  # any other is
            load_endpoint("http://nowhere.invalid/v1", settings()).rewrite(["a cat"], 1, 0)
        # Threads that Ray left behind in this process may ask it for addresses of their own.
        asked = [each.path for each in proxy.asked]
        assert not [path for path in asked if path.startswith(server.url)]
        assert "http://nowhere.invalid/v1/chat/completions" in asked
