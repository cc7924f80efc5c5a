"""Atoms answered by a model behind a URL: what it is asked, and what becomes of every answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from semdpo.data.atoms import Atom
from semdpo.data.records import content_id
from semdpo.errors import EndpointError, ModelError, PartlyRefusedError, RefusedRequestError
from semdpo.models.atom_scorer import AtomScorer
from semdpo.models.endpoint_answerer import EndpointAnswerer, load_endpoint_answerer
from semdpo.protocols import Answerer
from tests.loopback import Asked, Loopback, Reply, chat, error, told
from tests.models.endpoint.asking import settings

GREY = Image.new("L", (8, 8), 60)


def answerer_of(server: Loopback, **values: object) -> EndpointAnswerer:
    return load_endpoint_answerer(server.url, settings(**values))


def _logs(*top: tuple[str, float]) -> list[tuple[str, float]]:
    return [(token, math.log(p)) for token, p in top]


def _text(asked: Asked) -> str:
    text: str = asked.body["messages"][0]["content"][1]["text"]
    return text


def test_it_is_asked_as_a_model_with_files_is() -> None:
    with Loopback(lambda asked: told(*_logs(("Yes", 0.6), (" yes", 0.1), ("No", 0.3)))) as server:
        answerer = answerer_of(server)
        found = answerer.answer([GREY], [("Is there a cat?", "yes")])
        (asked,) = server.asked
    assert isinstance(answerer, Answerer)
    assert (found.dtype, found.tolist()) == (np.float64, [pytest.approx(0.7)])
    assert _text(asked) == "Is there a cat? Answer in one word."
    assert (asked.body["logprobs"], asked.body["top_logprobs"], asked.body["max_tokens"]) == (True, 20, 1)
    assert answerer.answer([], []).shape == (0,)


@pytest.mark.parametrize(
    ("top", "right", "value"),
    [
        ([("two", 0.4), ("Two", 0.2), (" 2", 0.1), ("three", 0.3)], "two", 0.7),
        ([("three", 0.9995), ("four", 0.0001)], "two", 0.0),
        ([("No", 0.9999), ("no", 0.00005)], "yes", 0.0),
        ([("seven", 1.0)], "seven", 1.0),
        ([("20", 0.5), ("2", 0.5)], "two", 0.5),
    ],
)
def test_numbers_count_as_words_and_as_digits(top: list[tuple[str, float]], right: str, value: float) -> None:
    with Loopback(lambda asked: told(*_logs(*top), chosen=top[0][0])) as server:
        assert answerer_of(server).answer([GREY], [("How many?", right)]).tolist() == [pytest.approx(value)]


@pytest.mark.parametrize("reply", [chat("Yes"), told(), error(401), error(500), Reply(dropped=True), Reply(body={})])
def test_a_server_that_is_of_no_use_is_refused_in_one_sentence(reply: Reply) -> None:
    with Loopback(lambda asked: reply) as server, pytest.raises(EndpointError) as refused:
        answerer_of(server).answer([GREY], [("Is there a cat?", "yes")])
    assert not isinstance(refused.value, RefusedRequestError), "no question has an answer from it"
    assert "\n" not in str(refused.value)
    if reply.body and reply.status == 200 and "choices" in reply.body:
        assert "tells no probabilities of tokens (logprobs and top_logprobs), which a model that answers atoms" in str(
            refused.value
        )


def test_a_server_that_is_too_busy_at_first_is_asked_again() -> None:
    def busy(asked: Asked) -> Reply:
        return error(429) if asked.time < 2 else told(("Yes", -1.0))

    with Loopback(busy) as server:
        assert answerer_of(server, retries=2).answer([GREY], [("A?", "yes")]).tolist() == [pytest.approx(math.exp(-1))]
        assert len(server.asked) == 3


def _picky(asked: Asked) -> Reply:
    if "bad" in _text(asked):
        return error(422, "too many pixels")
    return told(*_logs(("<think>", 0.9))) if "odd" in _text(asked) else told(("Yes", -1.0))


def test_a_question_without_an_answer_leaves_the_others_alone() -> None:
    asked = [("A?", "yes"), ("Is it bad?", "yes"), ("Is it odd?", "yes"), ("B?", "yes")]
    with Loopback(_picky) as server, pytest.raises(PartlyRefusedError) as refused:
        answerer_of(server).answer([GREY] * 4, asked)
    first, bad, odd, last = refused.value.outcomes
    assert first == last == pytest.approx(math.exp(-1))
    assert "too many pixels" in str(bad)
    assert "does not tell how probable 'yes' is as the answer to 'Is it odd?': its answer begins with '<think>'" in str(
        odd
    )


def test_an_image_of_which_one_question_has_no_answer_has_no_score() -> None:
    atoms = {
        content_id(prompt): [Atom("", "object", question) for question in questions]
        for prompt, questions in (("a cat", ["A?", "B?"]), ("a dog", ["C?", "Is it bad?"]))
    }
    with Loopback(_picky) as server, pytest.raises(PartlyRefusedError) as refused:
        AtomScorer(answerer_of(server), atoms, "arithmetic").score([GREY] * 2, ["a cat", "a dog"])
    cat, dog = refused.value.outcomes
    assert cat == (pytest.approx(math.exp(-1)), False)
    assert isinstance(dog, RefusedRequestError)


def test_every_question_needs_an_image() -> None:
    with Loopback(models=("vlm",)) as server:
        answerer = answerer_of(server, model_name=None)
        assert answerer.asker.model == "vlm"
        with pytest.raises(ModelError, match="got 1 images and 2 questions"):
            answerer.answer([GREY], [("A?", "yes"), ("B?", "yes")])
