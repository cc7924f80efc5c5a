"""The page's pure functions, called in the browser: the word diff, the words for drift and errors, the history."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.serve.page.browser import Browser, Page
from tests.serve.page.stub import Stub


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """One page for all: nothing here changes it."""
    stub = Stub()
    page = browser.new_page()
    page.goto(stub.url)
    yield page
    page.close()
    stub.stop()


def _call(page: Page, module: str, function: str, *calls: tuple[Any, ...]) -> list[Any]:
    """The results of calls of a function of a module."""
    run = """async ([module, name, calls]) => {
      const functions = await import(new URL(`static/${module}.js`, document.baseURI));
      return calls.map((each) => functions[name](...each)); }"""
    results: list[Any] = page.evaluate(run, [module, function, calls])
    return results


def _marked(diff: dict[str, Any]) -> str:
    """A diff as a text: +added+, -lost-, [protected]."""
    marks = {"kept": "", "added": "+", "lost": "-"}
    pieces = []
    for part in diff["parts"]:
        text, mark = part["text"].strip(), marks[part["kind"]]
        pieces.append(f"{mark}[{text}]{mark}" if part["span"] else f"{mark}{text}{mark}")
    return " ".join(pieces)


DIFFS = (
    ("a red ball", "a red ball", (), "a red ball"),
    ("a red ball", "a blue ball", (), "a -red- +blue+ ball"),
    ("A red Ball.", "a red ball, in snow", (), "a red ball, +in snow+"),
    ("a red ball", "in snow, a red ball", (), "+in snow,+ a red ball"),
    ("a red ball in snow", "a red ball", (), "a red ball -in snow-"),
    ("red ball, blue cube", "blue cube, red ball", (), "blue cube, red ball"),  # moved words are kept
    ("a ball and a cube", "a ball", (), "a ball -and a cube-"),
    ("two cats", "two cats, cats", (), "two cats, +cats+"),
    ("a (red:1.2) ball", "a shiny (red:1.2) ball", ("(red:1.2)",), "a +shiny+ [(red:1.2)] ball"),
    ("three cats", "three threefold cats", ("three",), "[three] +threefold+ cats"),
    ("the old red ball", "the red ball", ("red ball",), "the -old- [red ball]"),
    ("a ball -", "a ball - oil - paint", (), "a ball - +oil - paint+"),
    ("a ball", "", (), "-a ball-"),
    ("赤いボール", "赤い大きなボール", (), "赤い +大きな+ ボール"),
    ("a ball 🦊", "a ball 🌈", (), "a ball -🦊- +🌈+"),
    ("c++ code", "c code", (), "-c++- +c+ code"),
)


def test_word_diffs(page: Page) -> None:
    found = _call(page, "diff", "diff", *((prompt, rewrite, list(spans)) for prompt, rewrite, spans, _ in DIFFS))
    assert [_marked(each) for each in found] == [expected for *_, expected in DIFFS]


def test_a_diff_holds_the_whole_rewrite_and_counts_right(page: Page) -> None:
    dice = random.Random(0)

    words, blanks = ["a", "ball", "Ball,", "(red:1.2)", "雪", "-", "🦊"], [" ", "  ", "\n"]

    def text() -> str:
        return "".join(dice.choice(words) + dice.choice(blanks) for _ in range(dice.randrange(9)))

    pairs = [(text(), text(), ["(red:1.2)"]) for _ in range(300)]
    for (prompt, rewrite, _), diff in zip(pairs, _call(page, "diff", "diff", *pairs), strict=True):
        assert "".join(part["text"] for part in diff["parts"] if part["kind"] != "lost") == rewrite
        assert diff["kept"] + diff["lost"] == len([word for word in prompt.split() if word != "-"])
        assert diff["kept"] + diff["added"] == len([word for word in rewrite.split() if word != "-"])


def test_the_longest_prompts_are_compared(page: Page) -> None:
    words = [f"w{k}" for k in range(2400)]
    (diff,) = _call(page, "diff", "diff", (" ".join(words), " ".join([*words[1:], "new"]), []))
    assert (diff["added"], diff["lost"], diff["kept"]) == (1, 1, 2399)


def test_drift_in_words(page: Page) -> None:
    drifts = (0, 0.004, 0.08, 0.2, 0.3, 0.5, 1, 2)
    words = [
        "means the same", "means the same", "means almost the same", "stays close to the meaning",
        "stays close to the meaning", "changes some of the meaning", "changes much of the meaning",
        "means something else",
    ]  # fmt: skip
    assert _call(page, "words", "driftWords", *((drift,) for drift in drifts)) == words
    # What it means depends on the limit, which is measured with the same encoder.
    assert _call(page, "words", "driftWords", *((drift / 6, 0.05) for drift in drifts)) == words
    assert _call(page, "words", "driftNumber", (0.0837,), (-1e-9,)) == ["0.08", "0.00"]


def test_the_scale_holds_drift_and_limit(page: Page) -> None:
    assert _call(page, "words", "scaleEnd", (0.1, 0.3), (0.1, 0.5), (0.6, None), (0.2, 2), (0.04, 0.05)) == [
        0.5,
        1,
        1,
        2,
        0.1,
    ]


@pytest.mark.parametrize(
    ("reason", "why", "cure"),
    [
        ("the prompt is kept: no rewrite was near enough", "No rewrite was near enough.", "Raise the largest drift"),
        ("the prompt is kept: no rewrite kept 'OPEN'", "No rewrite kept 'OPEN'.", "Try another seed"),
        ("the prompt is kept: no rewrite kept 'OPEN' and was near enough", "No rewrite kept", "Try another seed"),
        ("the prompt is kept: the encoder does not know 40% of its words", "The encoder does not", "Use words"),
        ("the prompt is kept: it has no words to rewrite", "It has no words to rewrite.", "Add words"),
        ("every rewrite has the banned word '8k'", "Every rewrite has the banned word '8k'.", "Allow that word"),
        ("a reason of tomorrow!", "A reason of tomorrow!", ""),
    ],
)
def test_reasons_in_words(page: Page, reason: str, why: str, cure: str) -> None:
    (words,) = _call(page, "words", "reasonWords", (reason,))
    assert words["why"].startswith(why)
    assert words["cure"].startswith(cure)
    assert bool(words["cure"]) == bool(cure)


def test_phrases_have_commas_between_them(page: Page) -> None:
    assert _call(page, "options", "phrases", ("red ball, snow ,,red ball",), ("雪、赤，猫، قطة",), (" ",)) == [
        ["red ball", "snow"], ["雪", "赤", "猫", "قطة"], []
    ]  # fmt: skip


def test_the_history_drops_the_oldest_where_the_storage_is_full(page: Page) -> None:
    run = """async (room) => {
      const { openHistory } = await import(new URL("static/history.js", document.baseURI));
      const items = {};
      const storage = { getItem: (key) => items[key] ?? null, removeItem: (key) => delete items[key],
        setItem(key, text) { if (text.length > room) throw new Error("full"); items[key] = text; } };
      const history = openHistory(() => storage);
      for (let k = 0; k < 60; k++) history.add({ prompt: `prompt ${k}`, options: {}, when: k, slots: [] });
      return [history.list().map(({ when }) => when), history.lasts()]; }"""
    assert page.evaluate(run, 10**6) == [list(range(59, 9, -1)), True]
    kept, lasts = page.evaluate(run, 500)
    assert lasts
    assert kept == list(range(59, 59 - len(kept), -1))
    assert 1 < len(kept) < 10
    assert page.evaluate(run, 10) == [list(range(59, 9, -1)), False]
