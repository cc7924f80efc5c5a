"""The rewrite is taken out of a chat model's answer; what is no rewrite is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semdpo.chat_answers import MOST_ADDED, NoRewriteError, lost, one_line, rewrite_in

PROMPT = "a red ball"
REWRITE = "a red ball on sand, soft light"


@pytest.mark.parametrize(
    "answer",
    [
        REWRITE,
        f"  {REWRITE}\n",
        f'"{REWRITE}"',
        f"'{REWRITE}'",
        f"“{REWRITE}”",
        f"«{REWRITE}»",
        f"„{REWRITE}“",
        f"»{REWRITE}«",
        f"『{REWRITE}』",
        f"`{REWRITE}`",
        f"**{REWRITE}**",
        f"```\n{REWRITE}\n```",
        f"```text\n{REWRITE}\n```",
        f"Rewritten prompt: {REWRITE}",
        f"**Rewritten Prompt:** {REWRITE}",
        f"**Prompt**: {REWRITE}",
        f'Prompt: "{REWRITE}"',
        f"Optimised version:\n{REWRITE}",
        f"Here is the improved prompt:\n\n{REWRITE}",
        f"Sure! Here's the final text-to-image prompt: {REWRITE}",
        f"Here’s your enhanced image prompt:\n```\n{REWRITE}\n```",
        f"<think>\nThe user wants a ball. A red one.\n</think>\n\n{REWRITE}",
        f"<THINKING>hm</THINKING>Rewrite: “{REWRITE}”",
        f"The template opened the thought already.\n</think>\n{REWRITE}",
        f"<think>one</think><think>two</think>{REWRITE}",
    ],
)
def test_what_stands_around_a_rewrite_is_taken_off(answer: str) -> None:
    assert rewrite_in(answer, PROMPT) == REWRITE


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ('""', "is empty"),
        ("Rewritten prompt:", "is empty"),
        ("<think>so</think>", "is empty"),
        ("<think>I will write a red ball", "did not finish its thoughts"),
        ("<think>a</think>a red ball <think>but", "did not finish its thoughts"),
        ("<|channel|>analysis<|message|>a red ball", "did not finish its thoughts"),
        ("I'm sorry, but I can't help with that.", "refused: I'm sorry"),
        ("I’m really sorry, no.", "refused"),
        ("Sorry, no.", "refused"),
        ("I cannot do this.", "refused"),
        ("I can’t.", "refused"),
        ("I won't.", "refused"),
        ("I am unable to.", "refused"),
        ("As an AI, I have no eyes.", "refused"),
        ("Unfortunately, I may not.", "refused"),
        ("My apologies, no.", "refused"),
        ('Rewritten prompt: "I must decline."', "refused"),
        (f"{REWRITE}\n\nI added light and sand.", "several lines"),
        (f"1. {REWRITE}\n2. {REWRITE}", "several lines"),
        (f"{REWRITE}\nNegative prompt: blurry", "several lines"),
        ('{"prompt": "a red ball"}', "is JSON"),
        ('["a red ball"]', "is JSON"),
        ("```json\n{}\n```", "is JSON"),
        ("a red ball " * 1000, "longer than"),
    ],
)
def test_what_is_no_rewrite_is_refused(answer: str, why: str) -> None:
    with pytest.raises(NoRewriteError, match=why):
        rewrite_in(answer, PROMPT)


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ('"hello"', '"hello"'),  # quotation marks of the prompt
        ('a sign "OPEN"', '"OPEN" on a sign beside "OPEN"'),  # around parts, not the whole
        ("sorry is the hardest word, cover", "Sorry is the hardest word, cover, film grain"),
        ("prompt: a cat", "prompt: a cat, oil"),
        ("a cat\n\na dog", "a cat, oil\n\na dog, oil"),
        ("a city", "Cyberpunk version: a city"),  # the label would take words of the rewrite with it
        ("a cat", "A poster: a cat and the word prompt: bold"),
        ("a family 👨\u200d👩\u200d👧", "a family 👨\u200d👩\u200d👧, photo"),
        ("[1]", "[1] painted"),
    ],
)
def test_what_belongs_to_the_rewrite_stays(prompt: str, answer: str) -> None:
    assert rewrite_in(answer, prompt) == answer


@pytest.mark.parametrize(
    ("prompt", "span"),
    [
        ("a cat <lora:oil:0.8>", "<lora:oil:0.8>"),
        ("a (red:1.2) cat", "(red:1.2)"),
        ("a ((red cat:1.1), blue) hat", "((red cat:1.1), blue)"),
        ("a \\(animal\\)", "(animal\\)"),
        ("__animals/pet__ in snow", "__animals/pet__"),
        ("a cat BREAK a dog", "BREAK"),
        ("a cat AND a dog", "AND"),
        ("a [cat|dog]", "[cat|dog]"),
        ("a [cat:dog:0.5]", "[cat:dog:0.5]"),
        ("a {cat|dog}", "{cat|dog}"),
        ("embedding:my-cat in snow", "embedding:my-cat"),
        ('a sign "OPEN"', '"OPEN"'),
        ("a sign 'OPEN'", "'OPEN'"),
        ("a sign “OPEN”", "“OPEN”"),
        ("a sign 「OPEN」", "「OPEN」"),
        ("ein Schild „OFFEN“", "„OFFEN“"),
        ("ein Schild ‚OFFEN‘", "‚OFFEN‘"),
        ("et skilt »ÅBEN«", "»ÅBEN«"),
        ("skylt ”ÖPPET” här", "”ÖPPET”"),
        ("une enseigne ‹ouvert›", "‹ouvert›"),
        ("看板『開店』", "『開店』"),
        ("书《红楼梦》", "《红楼梦》"),
    ],
)
def test_syntax_that_was_lost_is_named(prompt: str, span: str) -> None:
    assert lost(prompt, prompt.replace(span, "")) == [span]
    assert lost(prompt, f"{prompt}, oil") == []
    with pytest.raises(NoRewriteError, match="lost"):
        rewrite_in("x " + prompt.replace(span, "nothing"), prompt)


def test_syntax_is_counted() -> None:
    assert lost("(red) BREAK (red) BREAK", "(red) BREAK BREAK") == ["(red)"]
    assert lost("an open ( and ] and it's the dog's", "nothing of it") == []


def test_kept_words_must_be_there_as_words() -> None:
    assert lost(PROMPT, "A Red  Ball", ["red ball", "blue"]) == []  # blue is not in the prompt
    assert lost("a cat", "a category", ["cat"]) == ["cat"]
    assert lost("红球在沙漠", "沙漠里的红球", ["红球"]) == []
    assert lost("红球在沙漠", "沙漠里的球", ["红球"]) == ["红球"]
    assert lost(PROMPT, "x", ["", "  "]) == []


@given(st.text(alphabet="ab ()[]{}<>\"'_:|.,\n", max_size=30))
def test_a_prompt_loses_nothing_to_itself(prompt: str) -> None:
    assert lost(prompt, prompt) == []


@given(answer=st.text(max_size=60), prompt=st.text(alphabet='ab (:)"<>1', min_size=1, max_size=20))
def test_every_answer_is_a_rewrite_or_refused(answer: str, prompt: str) -> None:
    try:
        rewrite = rewrite_in(answer, prompt)
    except NoRewriteError as error:
        refusal = str(error)
    else:
        assert rewrite.strip() == rewrite != ""
        assert rewrite in answer
        assert lost(prompt, rewrite) == []
        assert len(rewrite) <= len(prompt) + MOST_ADDED
        return
    assert len(refusal.splitlines()) == 1


def test_one_line() -> None:
    assert one_line(" a\n\x1b[31mb\u202e\tc ") == "a [31mb c"
    assert len(one_line("x" * 1000)) == 301
