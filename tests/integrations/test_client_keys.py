"""The client: whom it sends a key, and how it finds the server."""

from __future__ import annotations

import pytest

from semdpo import client
from semdpo.client import NoRewriteError, optimize, optimize_or_keep, phrases, token_for
from tests.integrations import stub_server
from tests.integrations.stub_server import DRIFT, Answer, StubServer, closed_port, failure

PROMPT = "a red ball"


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
    assert phrases("红球，沙漠、猫 كرة، قطة") == ["红球", "沙漠", "猫 كرة", "قطة"]
    assert phrases("") == []
