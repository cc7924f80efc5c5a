"""What the page keeps in the browser: the history, the draft and the token; and browsers that keep nothing."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.serve.page.browser import PROMPT, Page, Watched, ask, expect, options, plain
from tests.serve.page.stub import Stub

Open = Callable[..., Watched]


def test_the_history_shows_earlier_rewrites_and_asks_nothing(open_page: Open) -> None:
    watched = open_page()
    page = watched.page
    options(page, variants="2", keep="ball")
    ask(page)
    rewrites = [plain(card) for card in page.get_by_role("article").all()]
    options(page, keep="", variants="1")
    ask(page, "a blue cube")
    page.reload()
    expect(page.locator("#history-count")).to_have_text("2")
    asked = len(watched.asked)
    page.locator("#history > summary").click()
    page.get_by_role("button", name=PROMPT).click()
    assert [plain(card) for card in page.get_by_role("article").all()] == rewrites
    expect(page.locator("#results")).to_be_focused()
    expect(page.locator("#prompt")).to_have_value(PROMPT)
    expect(page.locator("#keep")).to_have_value("ball")
    assert len(watched.asked) == asked


def test_the_history_can_be_cleared(page: Page) -> None:
    ask(page)
    page.locator("#history > summary").click()
    page.get_by_role("button", name="Clear the history").click()
    expect(page.locator("#history")).to_be_hidden()
    expect(page.locator("#status")).to_have_text("The history is cleared.")
    assert page.evaluate("Object.keys(localStorage)") == []


def test_the_same_prompt_stands_in_the_history_once(page: Page) -> None:
    for prompt in (PROMPT, "a blue cube", PROMPT):
        ask(page, prompt)
    expect(page.locator(".past span")).to_have_text([PROMPT, "a blue cube"])


REFUSING = {
    "full": "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); };",
    "forbidden": "for (const name of ['localStorage', 'sessionStorage']) "
    "Object.defineProperty(window, name, { get() { throw new DOMException('no', 'SecurityError'); } });",
}


@pytest.mark.parametrize("script", REFUSING.values(), ids=REFUSING)
def test_a_browser_that_keeps_nothing(open_page: Open, script: str) -> None:
    page = open_page(script=script).page
    ask(page)
    ask(page, "a blue cube")
    expect(page.locator("#history-count")).to_have_text("2")
    page.locator("#history > summary").click()
    expect(page.locator("#history-hint")).to_have_text("This browser keeps no more; the list ends with this tab.")
    page.get_by_role("button", name=PROMPT).click()
    expect(page.locator("#prompt")).to_have_value(PROMPT)
    page.get_by_role("button", name="Clear the history").click()
    expect(page.locator("#history")).to_be_hidden()


BROKEN = (
    "{",
    "3",
    "null",
    '[{"prompt": 3}]',
    '[{"prompt": "x", "when": 1, "options": {}, "slots": [{"rewrite": {}}]}]',
)


def test_a_history_that_cannot_be_read_is_begun_anew(page: Page) -> None:
    for text in BROKEN:
        page.evaluate("text => { localStorage['semdpo.history'] = sessionStorage['semdpo.draft'] = text; }", text)
        page.reload()
        expect(page.locator("#serving")).not_to_be_empty()
        expect(page.locator("#history")).to_be_hidden()
    ask(page)
    page.reload()
    expect(page.locator("#history-count")).to_have_text("1")


def test_a_full_storage_keeps_the_newest(page: Page) -> None:
    """In the browser's own storage, which holds five million characters."""
    for name in "abc":
        ask(page, name + "x " * 4000)
    page.evaluate(
        "localStorage.setItem('other', 'y'.repeat(5 * 2 ** 20 - 45_000 - localStorage['semdpo.history'].length))"
    )
    for name in "de":
        ask(page, name + "x " * 4000)
    kept = [entry["prompt"][0] for entry in json.loads(page.evaluate("localStorage['semdpo.history']"))]
    assert kept[0] == "e"
    assert len(kept) < 5


def test_the_draft_survives_a_reload(page: Page) -> None:
    page.locator("#prompt").fill("half a thought")
    options(page, seed="9", length="own", tokens="33")
    page.reload()
    expect(page.locator("#prompt")).to_have_value("half a thought")
    expect(page.locator("#seed")).to_have_value("9")
    options(page)
    expect(page.locator("#tokens")).to_have_value("33")
    expect(page.locator("#tokens")).to_be_visible()


def test_the_token_is_asked_for_and_stays_in_this_tab(open_page: Open, stub: Stub) -> None:
    stub.token = "a secret"
    watched = open_page(fails=True)
    page = watched.page
    dialog = page.get_by_role("dialog", name="This server asks for a token")
    expect(page.locator("#token")).to_be_focused()
    dialog.get_by_label("Token").fill("wrong")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="The server did not accept this token")
    dialog.get_by_label("Token").fill(" a secret ")
    dialog.get_by_role("button", name="Continue").click()
    expect(page.locator("#serving")).to_have_text("sem_dpo")
    ask(page)
    expect(page.locator("#status")).to_have_text("3 rewrites.")
    page.reload()
    expect(page.locator("#serving")).to_have_text("sem_dpo")
    assert "a secret" not in page.evaluate("JSON.stringify(localStorage) + location + document.cookie")
    assert all("a secret" not in json.dumps(body) for body in watched.asked)
    other = page.context.new_page()
    other.goto(stub.url)
    expect(other.get_by_role("dialog")).to_be_visible()


def test_a_token_that_expires_is_asked_for_once_and_the_rewrites_come(open_page: Open, stub: Stub) -> None:
    page = open_page(fails=True).page
    stub.token = "new"
    ask(page, done=False)
    expect(page.get_by_role("dialog")).to_be_visible()
    page.locator("#token").fill("new")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("3 rewrites.")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_without_a_token_the_text_stays(open_page: Open, stub: Stub) -> None:
    page = open_page(fails=True).page
    stub.token = "new"
    ask(page, done=False)
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("alert").locator("p")).to_have_text("The server asks for a token; try again and enter it.")
    expect(page.locator("#prompt")).to_have_value(PROMPT)
