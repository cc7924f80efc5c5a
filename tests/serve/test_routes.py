"""What each route answers."""

from __future__ import annotations

import io
import json
from urllib.parse import unquote

import pytest
from PIL import Image

from semdpo.serve.app import STATIC
from tests.serve.servers import PATIENCE, Optimizer1, Renderer1, Running, running


def test_optimize_gives_records_and_spans(server: Running, one: Optimizer1) -> None:
    answer = server.optimize(
        "a (red:1.2) ball", keep=["ball"], n=2, seed=7, length="short", max_drift=0.3, banned=["blue"]
    )
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["model"] == "one"
    assert [each["rewrite"] for each in found["results"]] == ["a (red:1.2) ball, style 7", "a (red:1.2) ball, style 8"]
    assert found["results"][0]["spans"] == ["(red:1.2)", "ball"]
    assert found["results"][0]["model"] == "one", "the name by which the client asks, whatever the folder is called"
    asked = one.batches[0][0]
    assert (asked.keep, asked.length, asked.max_drift, asked.banned) == (("ball",), "short", 0.3, ("blue",))
    assert (asked.n, asked.seed) == (2, 7)
    assert answer.headers["x-semdpo-drift"] == "0.250000"
    assert [unquote(each) for each in answer.headers["x-semdpo-kept"].split(",")] == ["(red:1.2)", "ball"]
    assert answer.headers["x-semdpo-reason"] == ""


def test_a_prompt_that_the_guard_kept_says_why(server: Running) -> None:
    answer = server.optimize("far away")
    assert answer.json()["results"][0]["rewrite"] == "far away"
    assert unquote(answer.headers["x-semdpo-reason"]) == "the prompt is kept: too far, é"
    assert server.metric('semdpo_results_total{outcome="kept"}') == 1
    assert server.metric('semdpo_results_total{outcome="rewritten"}') == 0


def test_only_the_prompt_is_required(server: Running, one: Optimizer1) -> None:
    assert server.optimize("a cat", length=None, max_drift=None, model=None).status_code == 200
    asked = one.batches[0][0]
    assert (asked.keep, asked.length, asked.max_drift, asked.banned, asked.n, asked.seed) == ((), None, None, (), 1, 0)


def test_headers_of_very_many_spans_stay_short(server: Running) -> None:
    prompt = " ".join(f"({word}:1.2)" for word in ["ü" * 40] * 100)
    answer = server.optimize(prompt)
    assert answer.status_code == 200
    assert len(answer.json()["results"][0]["spans"]) == 100
    assert 0 < len(answer.headers["x-semdpo-kept"]) <= 2100


def test_models_are_listed_the_default_first(server: Running) -> None:
    found = server.ask("GET", "/v1/models").json()
    assert [each["id"] for each in found["data"]] == ["one", "two"]
    assert found["data"][0]["object"] == "model"
    assert found["data"][0]["owned_by"] == "semdpo"
    assert found["data"][0]["semdpo"] == {"fingerprint": "f" * 64, "encoder": "tiny:clip", "max_drift": 0.5}
    assert server.optimize("a cat", model="two").json()["model"] == "two"
    unknown = server.optimize("a cat", model="tow")
    assert unknown.status_code == 404
    assert unknown.json()["error"]["code"] == "model_not_found"
    assert "did you mean 'two'?" in unknown.json()["error"]["message"]


def test_chat_reads_the_last_user_message(server: Running, one: Optimizer1) -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "a dog"},
        {"role": "assistant", "content": "a dog, oil"},
        {"role": "user", "content": [{"type": "text", "text": "a red "}, {"type": "text", "text": "cat"}], "name": "x"},
        {"role": "tool", "content": None},
    ]
    more = {"temperature": 0.3, "max_tokens": 9, "seed": 3, "n": None, "semdpo": {"keep": ["red"], "max_drift": 0.2}}
    answer = server.ask("POST", "/v1/chat/completions", json={"model": "one", "messages": messages, **more})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["choices"][0]["message"] == {"role": "assistant", "content": "a red cat, style 3"}
    assert found["semdpo"]["results"][0]["spans"] == ["red"]
    assert answer.headers["x-semdpo-drift"] == "0.250000"
    asked = one.batches[0][0]
    assert (asked.prompt, asked.length, asked.keep, asked.max_drift) == ("a red cat", 9, ("red",), 0.2)


@pytest.mark.parametrize(
    ("budget", "own", "length"),
    [
        ({"max_tokens": 5}, None, 5),
        ({"max_completion_tokens": 6, "max_tokens": 5}, None, 6),
        ({"max_tokens": 128_000}, None, "long"),
        ({"max_tokens": 5}, "long", "long"),
    ],
)
def test_chat_budgets(
    budget: dict[str, int], own: str | None, length: str | int, server: Running, one: Optimizer1
) -> None:
    body = {"messages": [{"role": "user", "content": "a cat"}], "semdpo": {"length": own}, **budget}
    assert server.ask("POST", "/v1/chat/completions", json=body).status_code == 200
    assert one.batches[0][0].length == length


@pytest.mark.parametrize(("prompt", "finish"), [("a cat", "stop"), ("an endless cat", "length")])
def test_a_rewrite_that_the_budget_ended_says_so_as_openais_do(prompt: str, finish: str, server: Running) -> None:
    body = {"messages": [{"role": "user", "content": prompt}]}
    answer = server.ask("POST", "/v1/chat/completions", json=body)
    assert answer.json()["choices"][0]["finish_reason"] == finish
    events = server.ask("POST", "/v1/chat/completions", json=body | {"stream": True}).text.split("\n\n")
    last = json.loads(events[-3].removeprefix("data: "))
    assert last["choices"][0]["finish_reason"] == finish


def test_a_stream_is_the_whole_rewrite_in_pieces(server: Running) -> None:
    body = {"messages": [{"role": "user", "content": "a  red\ncat "}], "stream": True, "n": 2}
    answer = server.ask("POST", "/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-semdpo-drift"] == "0.250000"
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(each) for each in events[:-1]]
    assert len({each["id"] for each in chunks}) == 1
    assert all("semdpo" not in each for each in chunks[:-1])
    assert len(chunks[-1]["semdpo"]["results"]) == 2
    for index in (0, 1):
        own = [each["choices"][0] for each in chunks if each["choices"][0]["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        words = [each["delta"]["content"] for each in own if each["delta"].get("content")]
        assert "".join(words) == f"a  red\ncat, style {index}"
        assert len(words) == 5
        assert [each["finish_reason"] for each in own] == [None] * 6 + ["stop"]


def test_an_image_says_how_it_was_made(server: Running) -> None:
    body = {"prompt": "a cat, oil", "original": "a cat", "seed": 200, "model": "two"}
    answer = server.ask("POST", "/v1/render", json=body)
    assert answer.headers["content-type"] == "image/png"
    image = Image.open(io.BytesIO(answer.content))
    assert image.getpixel((0, 0)) == (200, 0, 0)
    made = json.loads(image.info["semdpo"])
    assert (made["prompt"], made["rewrite"], made["seed"]) == ("a cat", "a cat, oil", 200)
    assert (made["rewriter"], made["renderer"]) == ("two", "squares")
    assert "x-semdpo-truncated" not in answer.headers
    long = server.ask("POST", "/v1/render", json={"prompt": "猫 " * 60})
    made = json.loads(Image.open(io.BytesIO(long.content)).info["semdpo"])
    assert (made["rewrite"], made["prompt"], made["rewriter"]) == ("猫 " * 60, None, "")
    assert long.headers["x-semdpo-truncated"] == "true"


def test_without_a_renderer_there_are_no_images(one: Optimizer1) -> None:
    with running({"one": one}) as server:
        answer = server.ask("POST", "/v1/render", json={"prompt": "a cat"})
        assert answer.status_code == 404
        assert "--renderer" in answer.json()["error"]["message"]
        assert server.ask("GET", "/healthz").json() == {"status": "ok", "renderer": None}


def test_health_is_answered_while_the_models_work(one: Optimizer1) -> None:
    renderer = Renderer1()
    with running({"one": one}, renderer) as server:
        renderer.free.clear()
        waiting = _in_thread(server, "/v1/render")
        assert renderer.entered.acquire(timeout=PATIENCE)
        with one.held():
            rewriting = _in_thread(server, "/v1/optimize")
            assert one.entered.acquire(timeout=PATIENCE)
            assert server.ask("GET", "/healthz").json() == {"status": "ok", "renderer": "squares"}
        rewriting.join()
        assert server.optimize("a dog").status_code == 200, "an image that takes long does not stop the rewriting"
        renderer.free.set()
        waiting.join()


def _in_thread(server: Running, path: str):  # type: ignore[no-untyped-def]
    import threading

    thread = threading.Thread(target=server.ask, args=("POST", path), kwargs={"json": {"prompt": "a cat"}})
    thread.start()
    return thread


def test_metrics_count_what_happened(server: Running) -> None:
    server.optimize("a cat")
    server.optimize("")
    server.ask("GET", "/elsewhere/%00")
    assert server.metric('semdpo_requests_total{route="/v1/optimize",status="200"}') == 1
    assert server.metric('semdpo_requests_total{route="/v1/optimize",status="400"}') == 1
    assert server.metric('semdpo_requests_total{route="other",status="404"}') == 1
    assert server.metric('semdpo_request_seconds_count{route="/v1/optimize"}') == 2
    assert server.metric('semdpo_batch_size_count{queue="rewrite"}') == 1
    assert 'semdpo_queue_length{queue="render"} 0.0' in server.ask("GET", "/metrics").text


def test_the_page_and_its_files(server: Running) -> None:
    page = server.ask("GET", "/")
    assert page.content == (STATIC / "index.html").read_bytes()
    assert page.headers["content-type"].startswith("text/html")
    for name in ("content-security-policy", "x-content-type-options", "referrer-policy"):
        assert name in page.headers
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in STATIC.iterdir():
        assert server.ask("GET", f"/static/{path.name}").content == path.read_bytes()
    for name in ("nothing.js", "%2e%2e/app.py", "..%2fapp.py", "%00", "index.html/", ""):
        answer = server.ask("GET", f"/static/{name}")
        assert answer.status_code == 404, name
        assert answer.json()["error"]["type"] == "invalid_request_error"


def test_openapi_describes_what_is_sent(server: Running) -> None:
    described = server.ask("GET", "/openapi.json").json()
    assert set(described["paths"]) == {
        "/v1/optimize", "/v1/chat/completions", "/v1/render", "/v1/models", "/healthz", "/metrics",
    }  # fmt: skip
    for path in described["paths"].values():
        for operation in path.values():
            assert "422" not in operation["responses"]
            assert "4XX" in operation["responses"]
    assert set(described["components"]["schemas"]["OptimizeBody"]["required"]) == {"prompt"}
    assert server.ask("GET", "/docs").status_code == 404
