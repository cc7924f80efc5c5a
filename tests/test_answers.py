"""What a chat model answers is read as a rewrite, or refused with a reason; rewrites are not changed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semdpo import answers
from semdpo.answers import read
from semdpo.protocols import Answer
from semdpo.texts import is_visible

REWRITE = "a red ball in the desert, oil painting, soft light"

WRAPPED = [
    "{}",
    "  {}\n",
    "\ufeff{}\u200b",
    '"{}"',
    "“{}”",
    "'{}'",
    "‘{}’",
    "«{}»",
    "„{}“",
    "「{}」",
    "`{}`",
    "**{}**",
    "```\n{}\n```",
    "```text\n{}\n```",
    "```{}```",
    "```\n\n{}```",
    "<prompt>{}</prompt>",
    "<think>They want a ball.\n\nSo: oil.</think>\n\n{}",
    "<think>\n\n</think>{}",
    "<THINK>a</THINK> {}",
    "<think>one</think>\n<think>two</think>\n{}",
    "the template opened this thought</think>\n{}",
    "<thinking>x</thinking>{}",
    "[THINK]x[/THINK]{}",
    "Prompt: {}",
    "Rewritten prompt: {}",
    "rewritten prompt: {}",
    "**Rewritten Prompt:** {}",
    "**Rewritten prompt**: {}",
    "### Rewritten prompt:\n{}",
    "The rewritten prompt: {}",
    "Revised: {}",
    "Improved version: {}",
    "Optimised text-to-image prompt: {}",
    "Final prompt: {}",
    "Rewritten prompt (short): {}",
    "Output: {}",
    "Here is the rewritten prompt: {}",
    "Here's an improved version of your prompt:\n\n{}",
    "Here’s the prompt:\n{}",
    "Here is the prompt, rewritten in one line: {}",
    "Sure! Here is the rewritten prompt:\n\n{}",
    "Certainly! Here's an enhanced prompt: {}",
    "Sure!\n\n{}",
    "Of course.\n{}",
    "Here you go:\n\n{}",
    "Sure, here you go:\n{}",
    'Here is the rewritten prompt:\n\n"{}"',
    "Here is the rewritten prompt:\n```\n{}\n```",
    '<think>x</think>\n**Prompt:**\n\n"{}"\n',
]

# Each of these is a prompt that somebody might want as it is.
HONEST = [
    '"OPEN" sign above a shop, neon',
    'a shop between the signs "OPEN" and "CLOSED"',
    '"OPEN" above "CLOSED"',
    "“OPEN” above “CLOSED”",
    "'90s kids, 'retro'",
    'a sign that says "I can\'t help you"',
    "portrait: a woman in red: oil, soft light",
    "New York skyline: neon",
    "Final boss: a dragon of glass",
    "Here is the final boss: a dragon",
    "Style: oil painting; subject: a cat",
    "Title: the prompt of doom, poster",
    "Negative space: a lone tree",
    "a {red|blue} car",
    "{red|blue} car",
    "{2$$cat|dog|owl}",
    "[cat|dog] on a sofa",
    "[cat:dog:0.5]",
    "(masterpiece:1.2), a cat",
    "((red)) ball",
    "<lora:oil:0.8> a cat",
    "a portrait of <my-cat>",
    "__animals/pets__ in the rain",
    "1.5::red:: ball",
    "1girl, solo, looking at you",
    "a cat --ar 16:9 --no dog",
    "I am the night, poster of a masked man",
    "I cannot sleep, a girl awake in bed",
    "I'm afraid of the dark, children's book",
    "sorry sign in neon",
    "as an AI robot, chrome, studio light",
    "What do you see? surreal eye, oil",
    "you and me? typography poster",
    "can you feel it, disco poster",
    "please do not disturb, door hanger",
    "sure shot, basketball poster",
    "okay hand gesture, line art",
    "this is fine, a dog in a burning room",
    "the prompt side of a terminal, green on black",
    "answering machine, 1980s",
    "note to self, handwriting",
    "1. FC Köln stadium at night",
    "- minus sign, minimalism",
    "3",
    "*",
    "猫, 水彩",
    "кот в шляпе, масло",
    "a cat 🐈‍⬛ at night",
    "שלום, כרזה",
    "null",
    "true north, map",
    "a `code` sticker on a laptop",
    "a cat (not a dog), 35mm, f/1.8",
    "think different, an apple",
    "thoughtful robot; brass: polished; 50% grey",
    "as if i were there, an assistant at a desk",
]

REFUSED = {
    answers.EMPTY: ["", " ", "\n\n", "\u200b", "\u3164", '""', "Rewritten prompt:", "<think>x</think>", "```\n```"],
    answers.THINKING: ["<think>They want", "<think>", "<thinking>a", "[THINK]a", "a cat <think>or", "</think><think>a"],
    answers.JSON: [
        '{"prompt": "a cat"}',
        '{"prompt": "a c',
        "{'rewrite': 'a cat'}",
        '```json\n{"prompt": "a cat"}\n```',
        '[{"prompt": "a cat"}]',
        '["a cat", "a dog"]',
        "{}",
    ],
    answers.CODE: ["a cat\n```\nprint()\n```\nbye", "```a``` and ```b```"],
    answers.PARAGRAPHS: ["a cat\n\nin oil", "a cat\n \nThis keeps your cat.", "one\n\ntwo\n\nthree"],
    answers.LIST: [
        "1. a cat\n2. a dog",
        "- a cat\n- a dog",
        "Here are three prompts:\n\n1) a\n\n2) b\n\n3) c",
        "* a\n* b",
    ],
    answers.EXPLAINED: [
        "a cat\nNote: the light is new.",
        "a cat, oil\nThis rewrite adds a medium.",
        "a cat, oil\nI added a medium.",
        "a cat\nI've kept your cat.",
        "a cat\n(Explanation: light)",
        "a cat\nLet me know!",
    ],
    answers.CONTROL: ["a \x00 cat", "\x1b[31ma cat", "a cat\x7f", "a \ud83d cat", "a \x9b31m"],
    answers.REFUSED: [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, I can’t assist with this request.",
        "I am sorry",
        "Sorry, I can't do that.",
        "Sorry but I cannot.",
        "I cannot create images of real people.",
        "I can't assist with that request.\n\nPlease try another.",
        "I won't rewrite this prompt.",
        "I'm unable to help with that.",
        "I am not able to generate this.",
        "I'm afraid I can't do that.",
        "I must decline.",
        "Unfortunately, I cannot fulfill this request.",
        "As an AI language model, I do not draw.",
        "As a large language model, I can't.",
        "My apologies, but no.",
        "I apologize, this is not possible.",
        "This request violates the policy.",
        "\"I'm sorry, but I can't help with that.\"",
        "<think>Hm.</think>I'm sorry, but no.",
    ],
    answers.ASKED: [
        "Could you clarify which ball you mean?",
        "What style would you like?",
        "Could you please provide the prompt? I will rewrite it.",
        "Please provide the prompt.",
        "Which colours do you prefer?",
        "Sure! Please share the prompt you want.",
        "I'd be happy to help! What is the prompt?",
        "How can I help you today?",
        "I need more details.",
        "Do you want a photo or a painting of your ball?",
    ],
}


@pytest.mark.parametrize("wrapping", WRAPPED)
def test_what_surrounds_a_rewrite_is_removed(wrapping: str) -> None:
    assert read(wrapping.format(REWRITE)) == Answer(REWRITE)


@pytest.mark.parametrize("text", HONEST)
def test_a_rewrite_is_not_changed(text: str) -> None:
    assert read(text) == Answer(text)
    assert read(f"Rewritten prompt: {text}") == Answer(text), "nor within what surrounds it"


@pytest.mark.parametrize(("reason", "raw"), [(reason, raw) for reason, rows in REFUSED.items() for raw in rows])
def test_what_is_no_rewrite_is_refused_with_the_reason(reason: str, raw: str) -> None:
    answer = read(raw)
    assert answer.text == ""
    assert answer.reason.partition(":")[0] == reason


@pytest.mark.parametrize(
    ("prompt", "raw"),
    [
        ("I can't help falling in love, poster", "I can't help falling in love, film poster, neon"),
        (" I’m sorry, Dave, HAL 9000", "I'm sorry, Dave, HAL 9000, red light"),
        ("What have you done with your hair?", "What have you done with your hair?"),
    ],
)
def test_a_prompt_that_begins_like_a_refusal_has_rewrites_that_do(prompt: str, raw: str) -> None:
    assert read(raw, prompt=prompt) == Answer(raw)
    assert read(raw, prompt="a red ball").reason.startswith((answers.REFUSED, answers.ASKED))


def test_a_refusal_is_shown_in_part() -> None:
    assert read("I'm sorry, " + "no " * 500).reason == f"""the model refused: "I'm sorry, {("no " * 500)[:48]}…"""


def test_white_space_becomes_single_spaces() -> None:
    assert read("a  cat,\nwatercolor,\n\tsoft\u2028light ").text == "a cat, watercolor, soft light"


def test_an_answer_that_the_budget_truncated_is_flagged() -> None:
    assert read("a red ball in the", truncated=True) == Answer("a red ball in the", truncated=True)
    assert read("", truncated=True) == Answer("", True, answers.NO_ROOM)
    assert read("<think>They want", truncated=True) == Answer("", True, answers.THINKING)


WORDS = st.sampled_from(
    [
        *("a", "an", "the", "red", "old", "cat", "prompt", "rewritten", "version", "here", "is", "sure", "sorry", "I"),
        *("can't", "help", "answer", "as", "AI", "you", "think", "what", "new", "final", "note", "JSON", "don't"),
        *('"OPEN"', "(oil:1.2)", "{cat|dog}", "[a|b]", "<lora:x:1>", "35mm", "f/1.8", "16:9", "é", "猫", "🐈"),
        *("--", ",", ":", ";", "-", "~"),
    ]
)
OTHER = st.text(st.characters(categories=["L", "N", "M", "Sm", "Sc"]), min_size=1, max_size=8)
# No phrase of a refusal, heading or question begins with these words.
PLAIN = st.builds(lambda rest: " ".join(["some tree", *rest]), st.lists(WORDS | OTHER, max_size=12))


@settings(max_examples=200, derandomize=True, deadline=None)
@given(PLAIN)
def test_any_plain_prompt_comes_back_unchanged(text: str) -> None:
    assert read(text) == Answer(text)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(PLAIN, st.sampled_from([each for each in WRAPPED if each[0] not in "'`“‘\"*"]))
def test_any_plain_prompt_is_found_in_what_surrounds_it(text: str, wrapping: str) -> None:
    assert read(wrapping.format(text)) == Answer(text)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    st.text(max_size=60)
    | st.lists(WORDS | st.sampled_from(['"', "\n", "\n\n", "```", "**", "<think>", "{"])).map(" ".join)
)
def test_any_answer_is_a_rewrite_on_one_line_or_has_a_reason(raw: str) -> None:
    answer = read(raw)
    assert is_visible(answer.text) != bool(answer.reason)
    assert answer.text == " ".join(answer.text.split())
    answer.text.encode()
    if answer.text:
        assert read(answer.text) == answer, "a rewrite is read as itself"


HOSTILE = [
    *(
        "```" * 30_000,
        "<think>" * 20_000,
        '"' * 50_000,
        "[" * 100_000,
        "**a" * 30_000,
        "\n " * 50_000,
        "sure " * 20_000,
    ),
    *("Prompt: " * 20_000, "sure!\n" * 20_000, "here is " * 20_000, "<prompt>" * 5_000 + "</prompt>" * 5_000),
    *("I'm " + "sorry " * 20_000, "what " * 20_000 + "your", "as an ai " * 10_000, "\n- a" * 30_000, '{"a": ' * 50_000),
]


@pytest.mark.parametrize("raw", HOSTILE, ids=lambda raw: raw[:12])
def test_a_hostile_answer_is_read_to_its_end(raw: str) -> None:
    read(raw)
