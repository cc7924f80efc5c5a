"""A scorer behind a URL: what it asks a real server on this machine, and what it makes of every answer."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
import pytest
from PIL import Image

from semdpo.errors import EndpointError, ModelError, PartlyRefusedError, RefusedRequestError
from semdpo.models.endpoint_question import probability
from semdpo.models.endpoint_scorer import EndpointScorer, load_endpoint_scorer
from semdpo.protocols import Scorer
from tests.loopback import Asked, Loopback, Reply, chat, error, told
from tests.models.endpoint.asking import settings

GREY, YES = Image.new("L", (8, 8), 60), ("yes",)


def scorer_of(server: Loopback, **values: object) -> EndpointScorer:
    return load_endpoint_scorer(server.url, settings(**values))


def refusal(reply: Reply) -> EndpointError:
    with Loopback(lambda asked: reply) as server, pytest.raises(EndpointError) as refused:
        scorer_of(server).score([GREY], ["a cat"])
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500
    return refused.value


def test_a_request_has_the_image_the_question_and_asks_for_probabilities() -> None:
    with Loopback(lambda asked: told(("Yes", math.log(0.75)), ("No", math.log(0.25)))) as server:
        scorer = scorer_of(server)
        scores = scorer.score([GREY], ['a "cat"'])
        (asked,) = server.asked
    assert isinstance(scorer, Scorer)
    assert scores.values.dtype == np.float32
    assert scores.values == pytest.approx([0.75])
    assert scores.truncated.tolist() == [False]
    (message,) = asked.body.pop("messages")
    image, text = message["content"]
    assert text == {"type": "text", "text": 'Does this figure show "a "cat""? Please answer yes or no.'}
    head, _, data = image["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as sent:
        assert (sent.mode, sent.getpixel((0, 0))) == ("RGB", (60, 60, 60))
    assert asked.body == {
        "model": "m", "max_tokens": 1, "temperature": 1.0, "top_p": 1.0, "logprobs": True, "top_logprobs": 20,
    }  # fmt: skip


def test_many_images_keep_their_order_and_the_body_its_word() -> None:
    def of_length(asked: Asked) -> Reply:
        return told(("yes", -float(len(asked.body["messages"][0]["content"][1]["text"]))))

    with Loopback(of_length) as server:
        prompts = ["a" * k for k in range(12)]
        values = scorer_of(server, concurrency=4, body={"top_logprobs": 5, "top_p": None}).score([GREY] * 12, prompts)
        assert server.asked[0].body["top_logprobs"] == 5
        assert "top_p" not in server.asked[0].body
    assert np.all(np.diff(values.values) < 0)


@pytest.mark.parametrize(
    ("top", "value"),
    [
        ([("Yes", 0.5), ("No", 0.5)], 0.5),
        ([("Yes", 0.5), (" yes", 0.2), ("YES", 0.1), ("yes\n", 0.05), ("No", 0.1)], 0.85),
        ([("No", 0.6), ("Yes", 0.1), ("Yesterday", 0.3)], 0.1),
        ([("No", 0.9999), ("no", 0.00005)], 0.0),
        ([("No", 0.9), ("no", 0.0005)], 0.0),
        ([("No", 0.9), ("no", 0.01)], None),
        ([("No", 0.9)], None),
        ([("Sure", 0.5), ("The", 0.2)], None),
        ([("<think>", 1.0)], 0.0),
    ],
)
def test_the_probability_of_yes(top: list[tuple[str, float]], value: float | None) -> None:
    found = probability(YES, "No", [(token, math.log(p)) for token, p in top])
    assert found == (None if value is None else pytest.approx(value, abs=1e-9))


def test_the_token_that_was_sampled_is_no_bound() -> None:
    told_also = [("No", math.log(0.9)), ("Sure", math.log(0.00001))]
    assert probability(YES, "Sure", told_also) is None, "it is told although others are more probable"
    assert probability(YES, "No", told_also) == 0


@pytest.mark.parametrize(
    "reply",
    [
        chat("Yes"),
        Reply(body={"choices": [{"message": {"content": "Yes"}, "logprobs": None}]}),
        Reply(body={"choices": [{"message": {"content": "Yes"}, "logprobs": {"content": []}}]}),
        Reply(body={"choices": [{"message": {"content": "Yes"}, "logprobs": {"content": [{"token": "Yes"}]}}]}),
        told(),
        Reply(body={"choices": [{"message": {}, "logprobs": {"content": [{"token": "Y", "top_logprobs": [3]}]}}]}),
    ],
)
def test_a_server_without_probabilities_is_refused(reply: Reply) -> None:
    found = refusal(reply)
    assert not isinstance(found, RefusedRequestError), "no image has a score from it"
    assert "tells no probabilities of tokens (logprobs and top_logprobs), which a scorer needs" in str(found)


@pytest.mark.parametrize("logps", [[0.0, 0.0], [5.0], [math.nan], [math.inf]])
def test_what_are_no_probabilities(logps: list[float]) -> None:
    found = refusal(told(*((f"t{k}", logp) for k, logp in enumerate(logps))))
    assert "tells probabilities of tokens that sum to" in str(found)
    assert not isinstance(found, RefusedRequestError)


def test_a_model_that_thinks_first_says_neither_yes_nor_no() -> None:
    found = refusal(told(("<think>", math.log(0.9)), ("Okay", math.log(0.05)), chosen="<think>"))
    assert isinstance(found, RefusedRequestError)
    assert "answers neither yes nor no about 'a cat': its answer begins with '<think>'; switch off" in str(found)


@pytest.mark.parametrize(
    "reply",
    [chat("no", "content_filter"), chat(None, refusal="I won't."), error(400, "image too large"), error(422)],
)
def test_an_image_without_a_score_leaves_the_others_alone(reply: Reply) -> None:
    def picky(asked: Asked) -> Reply:
        return reply if "bad" in str(asked.body["messages"][0]["content"][1]) else told(("Yes", -1.0))

    with Loopback(picky) as server, pytest.raises(PartlyRefusedError) as refused:
        scorer_of(server).score([GREY] * 3, ["a", "bad", "c"])
    first, bad, last = refused.value.outcomes
    assert first == last == (pytest.approx(math.exp(-1)), False)
    assert isinstance(bad, RefusedRequestError)


@pytest.mark.parametrize("fault", [error(401), error(500), Reply(dropped=True), Reply(body=[]), Reply(body={})])
def test_what_is_no_fault_of_an_image_stops(fault: Reply) -> None:
    assert not isinstance(refusal(fault), RefusedRequestError)


def test_without_a_name_the_only_model_is_taken_and_every_image_has_a_prompt() -> None:
    with Loopback(models=("vlm",)) as server:
        scorer = scorer_of(server, model_name=None)
        assert scorer.model == "vlm"
        with pytest.raises(ModelError, match="got 1 images and 2 prompts"):
            scorer.score([GREY], ["a", "b"])
        assert scorer.score([], []).values.shape == (0,)
