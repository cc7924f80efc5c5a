"""A renderer behind a URL: what it asks a real server on this machine, and what it makes of every answer."""

from __future__ import annotations

import base64
import io
import logging
import pickle
import socket
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from semdpo.errors import EndpointError, ModelError, PartlyRefusedError, RefusedRequestError
from semdpo.models.endpoint_renderer import EndpointRenderer, load_endpoint_renderer
from semdpo.models.server import SEEDS
from semdpo.protocols import CheckingRenderer, Renderer
from semdpo.recipe.models import RendererConfig
from tests.loopback import Asked, Loopback, Reply, drawn, error, of_bytes

SIDE = 16


def noise(seed: int, side: int = SIDE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8))


def artist(asked: Asked) -> Reply:
    return drawn(noise(len(asked.prompt) * 1000 + asked.body["seed"]))


def config_of(
    server: Loopback, body: dict[str, object] | None = None, retries: int = 0, **values: object
) -> RendererConfig:
    endpoint = {"model_name": "m", "retries": retries, "timeout": 20, "concurrency": 3, "body": body or {}}
    size = {"height": SIDE, "width": SIDE, "steps": 4, "guidance": 3.5}
    return RendererConfig.model_validate({"model": server.url, "endpoint": endpoint} | size | values)


def renderer_of(server: Loopback, body: dict[str, object] | None = None, **values: object) -> EndpointRenderer:
    return load_endpoint_renderer(config_of(server, body, **values))


def posts(server: Loopback) -> list[Asked]:
    return [asked for asked in server.asked if asked.path.endswith("generations")]


def test_a_request_has_the_prompt_the_size_the_seed_and_the_settings() -> None:
    with Loopback(artist) as server:
        renderer = renderer_of(server)
        images = renderer.render(["a cat", "a bird", "a cat"], [5, 2**62 + 7, 5])
        assert isinstance(renderer, Renderer)
        assert isinstance(renderer, CheckingRenderer)
    assert images[0] is images[2], "an equal text and seed is asked for once"
    assert np.array_equal(images[1], noise(6 * 1000 + (2**62 + 7) % SEEDS)), "no pixel is lost"
    assert images[0].mode == "RGB"
    first, second = sorted((asked.body for asked in posts(server)), key=lambda body: body["prompt"], reverse=True)
    assert first == {
        "model": "m", "prompt": "a cat", "n": 1, "size": "16x16", "response_format": "b64_json",
        "output_format": "png", "seed": 5, "num_inference_steps": 4, "guidance_scale": 3.5,
    }  # fmt: skip
    assert second["seed"] == (2**62 + 7) % SEEDS < 2**31


def test_the_body_adds_fields_and_null_leaves_them_out() -> None:
    body = {"negative_prompt": "blurry", "true_cfg_scale": 4.0, "seed": None, "output_format": None}
    with Loopback(lambda asked: drawn(noise(1))) as server:
        renderer_of(server, body, height=None, width=None).render(["a cat"], [5])
        sent = posts(server)[0].body
    assert (sent["negative_prompt"], sent["true_cfg_scale"]) == ("blurry", 4.0)
    assert not {"seed", "output_format", "size"} & sent.keys()


def test_an_address_in_place_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    buffer = io.BytesIO()
    noise(3).save(buffer, "PNG")
    file = Reply(body=buffer.getvalue(), headers={"content-type": "image/png"})
    for place in ("/v1/images/1/content", "{origin}/out/1.png"):
        with Loopback() as server:
            origin = server.url.removesuffix("/v1")
            server.files = {"/v1/images/1/content": file, "/out/1.png": file}
            whole = place.format(origin=origin)
            server.answer = lambda asked, whole=whole: Reply(body={"data": [{"url": whole, "b64_json": None}]})
            assert np.array_equal(renderer_of(server).render(["a cat"], [1])[0], noise(3))
            assert server.asked[-1].headers["authorization"] == "Bearer sk-secret", "its own address, with its key"


def test_the_key_goes_to_no_other_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    buffer = io.BytesIO()
    noise(3).save(buffer, "PNG")
    with Loopback() as other, Loopback() as server:
        other.files["/1.png"] = Reply(body=buffer.getvalue())
        place = other.url.replace("/v1", "/1.png")
        server.answer = lambda asked: Reply(body={"data": [{"url": place}]})
        assert np.array_equal(renderer_of(server).render(["a cat"], [1])[0], noise(3))
        assert "authorization" not in other.asked[0].headers


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("file:///etc/passwd", "none that begins with http:// or https://"),
        ("data:image/png;base64,AAAA", "none that begins with http:// or https://"),
        ("ftp://127.0.0.1/a.png", "none that begins with http:// or https://"),
        ("http://user:pw@127.0.0.1/a.png", "none that begins with http:// or https://"),
        ("http://127.0.0.1:port/a.png", "the address of its image is none"),
        ("http://169.254.169.254/latest", "is of a private network, and not of the server's host"),
        ("http://10.0.0.1/a.png", "is of a private network, and not of the server's host"),
        ("http://[::1]/a.png", "is of a private network, and not of the server's host"),
        ("/moved", "does not give it (HTTP Error 302"),
        ("/absent", "does not give it (HTTP Error 404"),
        ("/page", "what it sent is no PNG, JPEG or WEBP file"),
    ],
)
def test_addresses_that_are_refused(place: str, said: str) -> None:
    with Loopback() as server:
        server.files = {
            "/moved": Reply(302, headers={"location": f"{server.url}/models"}),
            "/page": Reply(body=b"<html>secret of another page</html>"),
        }
        server.answer = lambda asked: Reply(body={"data": [{"url": place}]})
        with pytest.raises(RefusedRequestError) as refused:
            renderer_of(server).render(["a cat"], [1])
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_name_of_a_private_address_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    private = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.168.1.7", 0))]
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *rest, **more: private if host == "cdn.example" else real(host, *rest, **more),
    )
    away = Reply(body={"data": [{"url": "https://cdn.example/a.png"}]})
    with Loopback(lambda asked: away) as server, pytest.raises(RefusedRequestError, match="of a private network"):
        renderer_of(server).render(["a cat"], [1])


def _png(side: int) -> bytes:
    """A PNG file that says it has side x side pixels, in a hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def _whole() -> bytes:
    buffer = io.BytesIO()
    noise(1, 64).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (of_bytes(b"<html>"), "what it sent is no PNG, JPEG or WEBP file"),
        (of_bytes(b"GIF89a" + b"\0" * 50), "what it sent is no PNG, JPEG or WEBP file"),
        (of_bytes(_whole()[:900]), "its PNG file is damaged or incomplete"),
        (of_bytes(b""), "the answer has neither b64_json nor url"),
        (of_bytes(_png(9_000)), "its image has more than 64 million pixels"),
        (of_bytes(_png(30_000)), "its image has more than 64 million pixels"),
        (of_bytes(_png(16)), "its PNG file is damaged or incomplete"),
        (Reply(body={"data": [{"b64_json": "AAA"}]}), "b64_json is not whole base64"),
        (Reply(body={"data": [{"b64_json": "@@@@"}]}), "b64_json is not whole base64"),
        (Reply(body={"data": [{"b64_json": 3}]}), "the answer has neither b64_json nor url"),
        (Reply(body={"data": [{}]}), "the answer has neither b64_json nor url"),
        (Reply(body={"data": []}), "it sent 0 images for one"),
        (Reply(body={"data": [{}, {}]}), "it sent 2 images for one"),
    ],
)
def test_an_answer_without_an_image(reply: Reply, said: str) -> None:
    with Loopback(lambda asked: reply) as server:
        with pytest.raises(PartlyRefusedError) as refused:
            renderer_of(server, retries=3).render(["a cat"], [1])
        assert len(posts(server)) == 2, "it is asked for once more"
    assert str(refused.value) == f"{server.url} gives no image of 'a cat': {said}; look into the server's log"


def test_a_broken_answer_may_be_followed_by_a_whole_one() -> None:
    with Loopback(lambda asked: artist(asked) if asked.time else of_bytes(_whole()[:900])) as server:
        assert renderer_of(server, retries=1).render(["a cat"], [1])


@pytest.mark.parametrize(
    "reply",
    [Reply(body=b"<html>"), Reply(body=[]), Reply(body={}), Reply(body={"data": None}), Reply(body={"data": [3]})],
)
def test_an_answer_in_another_form(reply: Reply) -> None:
    with Loopback(lambda asked: reply) as server, pytest.raises(EndpointError) as refused:
        renderer_of(server).render(["a cat"], [1])
    assert not isinstance(refused.value, RefusedRequestError), "it is no fault of one prompt"
    assert str(refused.value) == (
        f"{server.url} answers something else than OpenAI's image generations do; correct the address, which often "
        "ends in /v1"
    )


def test_images_of_another_size_are_refused() -> None:
    with Loopback(lambda asked: drawn(noise(1, 24))) as server:
        with pytest.raises(EndpointError) as refused:
            renderer_of(server).render(["a cat"], [1])
        assert renderer_of(server, height=None, width=None).render(["a cat"], [1])[0].size == (24, 24)
    assert str(refused.value) == (
        f"{server.url} gives an image of 24x24 pixels of 'a cat', and was asked for 16x16; set height and width to a "
        "size that 'm' renders"
    )
    assert not isinstance(refused.value, RefusedRequestError)


def test_a_server_that_rewrites_prompts_is_refused() -> None:
    other = drawn(noise(1), revised_prompt="A detailed painting of a cat")
    with Loopback(lambda asked: other) as server, pytest.raises(EndpointError, match="rewrites prompts") as refused:
        renderer_of(server).render(["a cat"], [1])
    assert not isinstance(refused.value, RefusedRequestError)
    for same in ("a cat", " a  cat\n", "", None):
        with Loopback(lambda asked, same=same: drawn(noise(1), revised_prompt=same)) as server:
            assert renderer_of(server).render(["a cat"], [1])


@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_what_is_refused_leaves_the_others_alone(status: int) -> None:
    def picky(asked: Asked) -> Reply:
        return error(status, "not this") if "bad" in asked.prompt else artist(asked)

    with Loopback(picky) as server, pytest.raises(PartlyRefusedError, match="not this") as refused:
        renderer_of(server).render(["a", "bad", "cc", "a"], [1, 2, 3, 1])
    one, bad, other, again = refused.value.outcomes
    assert (one[1], other[1], isinstance(bad, RefusedRequestError)) == (False, False, True)
    assert one is again
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(bad), "as a worker process sends it"


@pytest.mark.parametrize("fault", [error(401), error(403), error(404), error(429), error(503), Reply(dropped=True)])
def test_what_is_no_fault_of_a_prompt_stops(fault: Reply) -> None:
    with Loopback(lambda asked: fault) as server, pytest.raises(EndpointError) as refused:
        renderer_of(server).render(["a", "b", "c", "d", "e"], [1] * 5)
    assert not isinstance(refused.value, RefusedRequestError)


def test_a_passing_fault_is_not_seen() -> None:
    with Loopback(lambda asked: artist(asked) if asked.time else error(503, retry_after="0")) as server:
        assert len(renderer_of(server, retries=1).render(["a", "b"], [1, 1])) == 2
        assert len(posts(server)) == 4


def test_a_server_of_one_other_model_is_refused() -> None:
    with Loopback(artist, models=("other",)) as server, pytest.raises(EndpointError) as refused:
        renderer_of(server)
    assert str(refused.value) == f"{server.url} offers other, and not 'm'; set endpoint.model_name to it"
    for models in (("a", "b"), ("m",), (), error(404), error(405), Reply(body=[])):
        with Loopback(artist, models=models) as server:
            assert renderer_of(server).render(["a cat"], [1]), "it may know names that it does not list"
    with pytest.raises(EndpointError, match="cannot be reached"):
        renderer_of(server)  # which has ended


def test_a_server_of_chats_only() -> None:
    with Loopback(lambda asked: error(404, "Not Found")) as server, pytest.raises(EndpointError) as refused:
        renderer_of(server).render(["a cat"], [1])
    assert str(refused.value) == (
        f"{server.url} offers the model 'm' and does not find it (Not Found); name a server that renders images"
    )


def test_an_image_that_is_black_all_over_is_one_of_a_safety_checker() -> None:
    black = Image.new("RGB", (SIDE, SIDE))
    with Loopback(lambda asked: drawn(black) if asked.prompt == "bad" else artist(asked)) as server:
        flags = [flag for _, flag in renderer_of(server).render_checked(["a", "bad"], [1, 1])]
    assert flags == [False, True]


def test_seeds_that_the_server_does_not_use_are_noticed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "semdpo")
    with Loopback(lambda asked: drawn(noise(1))) as server:
        renderer_of(server).render(["a cat", "a dog", "a cat", "a cat"], [1, 1, 2, 3])
    assert caplog.messages == [f"{server.url}: two seeds give one image of 'a cat'; the server does not use the seed"]
    caplog.clear()
    with Loopback(artist) as server:
        renderer_of(server).render(["a cat", "a cat", "a cat"], [1, 2, 1 + SEEDS])
    assert caplog.messages == []


def test_jpeg_is_taken_and_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "semdpo")
    with Loopback(lambda asked: drawn(noise(1), "JPEG")) as server:
        assert renderer_of(server).render(["a cat", "a dog"], [1, 1])[0].size == (SIDE, SIDE)
    assert caplog.messages == [
        f"{server.url}: its images are JPEG files, which lose details; ask for PNG in endpoint.body"
    ]


def test_transparent_and_grey_images_become_rgb() -> None:
    clear = Image.new("RGBA", (SIDE, SIDE), (255, 0, 0, 0))
    grey = Image.new("L", (SIDE, SIDE), 7)
    with Loopback(lambda asked: drawn(clear if asked.prompt == "clear" else grey)) as server:
        first, second = renderer_of(server).render(["clear", "grey"], [1, 1])
    assert (first.getpixel((0, 0)), second.getpixel((0, 0))) == ((255, 255, 255), (7, 7, 7))


def test_a_seed_for_every_prompt() -> None:
    with Loopback(artist) as server, pytest.raises(ModelError, match="got 1 prompts and 2 seeds"):
        renderer_of(server).render(["a"], [1, 2])


def test_an_image_of_too_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semdpo.models.image_answer.MOST_BYTES", 1000)
    large = base64.b64encode(b"\0" * 2000).decode()
    with Loopback() as server:
        server.files["/large"] = Reply(body=b"\0" * 70_000)
        for entry in ({"b64_json": large}, {"url": "/large"}):
            server.answer = lambda asked, entry=entry: Reply(body={"data": [entry]})
            with pytest.raises(RefusedRequestError, match="its image has more than 0 MiB"):
                renderer_of(server).render(["a cat"], [1])
