"""A rewriter behind a URL: what becomes of an answer."""

from __future__ import annotations

import pytest

from semdpo import answers
from semdpo.errors import RefusedRequestError
from semdpo.models.endpoint import WITHHELD
from semdpo.protocols import Answer, AnsweringRewriter, FlaggingRewriter, Rewriter
from semdpo.protocols import answers as answers_of
from tests.loopback import Asked, Loopback, Reply, chat, error
from tests.models.endpoint.asking import rewriter_of


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
        rewriter = rewriter_of(server)
        assert rewriter.answers(["a cat"], 1, 0) == [[answer]]
        assert rewriter.rewrite_flagged(["a cat"], 1, 0) == [[(answer.text, answer.truncated)]]
        assert rewriter.rewrite(["a cat"], 1, 0) == [[answer.text]]


def test_a_prompt_that_the_server_refuses_leaves_the_others_alone() -> None:
    def picky(asked: Asked) -> Reply:
        return error(400, "too long") if asked.prompt == "long" else chat("a cat")

    with Loopback(picky) as server:
        rewriter = rewriter_of(server)
        one, refused, other = rewriter.answers(["one", "long", "other"], 1, 0)
        assert one == other == [Answer("a cat")]
        assert "refuses the request (too long)" in refused[0].reason
        with pytest.raises(RefusedRequestError, match="too long"):
            rewriter.answers(["long"], 3, 0)


def test_the_log_says_how_many_answers_are_none_and_why(caplog: pytest.LogCaptureFixture) -> None:
    said = {"a": "I'm sorry, but I can't help with a.", "b": "", "c": "a cat", "d": "I'm sorry, but no."}
    with Loopback(lambda asked: chat(said[asked.prompt])) as server:
        rewriter_of(server).rewrite(list(said), 2, 0)
        assert caplog.messages[-1] == (
            "6 of 8 answers of 'm' are no rewrites and count as empty: the model refused (4); the answer is empty (2)"
        )
        caplog.clear()
        rewriter_of(server).rewrite(["c"], 2, 0)
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
        rewriter = rewriter_of(server)
        for protocol in (Rewriter, FlaggingRewriter, AnsweringRewriter):
            assert isinstance(rewriter, protocol)
        assert answers_of(rewriter, ["a"], 1, 0) == [[Answer("", False, answers.EMPTY)]]
