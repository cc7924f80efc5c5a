"""What the page does when requests are slow, cancelled, overtaken or refused: nothing the user typed is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.serve.page.browser import PROMPT, Page, Watched, ask, expect, options, plain
from tests.serve.page.stub import Stub, error

if TYPE_CHECKING:
    from playwright.sync_api import Route

Open = Callable[..., Watched]

SENTENCES = (
    (error(429, "too many", "rate_limit_error", Retry_After="7"),
     "The server has too much to do; try again in 7 seconds."),
    (error(429, "too many", "rate_limit_error", Retry_After="1"),
     "The server has too much to do; try again in 1 second."),
    (error(429, "too many", "rate_limit_error"), "The server has too much to do; try again in a moment."),
    (error(503, "starting", "server_error"), "The server cannot do this now; try again in a moment."),
    (error(504, "too long", "server_error"),
     "The rewrite took too long; choose a shorter length or fewer variants, then try again."),
    (error(500, "a bug", "server_error"),
     "The server failed; look at what it printed where it was started, then try again."),
    (error(400, "keep names 'cat', which is not in the prompt; copy it from there"),
     "Keep names 'cat', which is not in the prompt; copy it from there."),
    (error(413, "the body has more than 64 KiB; send less"), "The body has more than 64 KiB; send less."),
)  # fmt: skip


def test_an_error_is_one_sentence_with_its_cure(open_page: Open, stub: Stub) -> None:
    page = open_page(fails=True).page
    options(page, variants="1")
    for answer, sentence in SENTENCES:
        stub.scripted.append(answer)
        ask(page, done=False)
        expect(page.get_by_role("alert").locator("p")).to_have_text(sentence)
        expect(page.locator("#prompt")).to_have_value(PROMPT)
        expect(page.locator("#empty")).to_be_visible()
        page.get_by_role("button", name="Try again").click()
        expect(page.locator(".text")).to_have_count(1)
        expect(page.get_by_role("alert")).to_be_empty()


def test_what_has_come_stays_and_only_the_rest_is_asked_again(open_page: Open, stub: Stub) -> None:
    page = open_page(fails=True).page
    options(page, variants="5")
    stub.scripted.append(error(504, "too long", "server_error"))
    event = stub.hold(PROMPT, 0, 1, 2)  # one of them gets the error; all are under way before it comes
    ask(page, done=False)
    while len(stub.asked) < 3:
        page.wait_for_timeout(10)
    event.set()
    expect(page.get_by_role("alert")).to_contain_text("took too long")
    expect(page.locator("#cancel")).to_be_hidden()
    said = page.locator("#status").inner_text()  # texts are fewer where two are the same
    came = int(said.split()[0])
    assert 2 <= came < 5
    assert said == f"{came} of 5 rewrites here."
    stub.asked.clear()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#status")).to_have_text("5 rewrites.")
    assert len(stub.asked) == 5 - came


def test_rewrites_come_one_by_one(page: Page, stub: Stub) -> None:
    second = stub.hold(PROMPT, 1)
    ask(page, done=False)
    expect(page.get_by_role("status").first).to_have_text("Writing: 2 of 3 rewrites here.")
    expect(page.locator("#columns")).to_have_attribute("aria-busy", "true")
    expect(page.get_by_role("article", name="Variant 2")).to_contain_text("is being written")
    expect(page.get_by_role("article", name="Variant 3").locator(".text")).to_be_visible()
    second.set()
    expect(page.locator("#status")).to_have_text("3 rewrites.")
    expect(page.locator("#columns")).to_have_attribute("aria-busy", "false")


@pytest.mark.parametrize("how", ["Escape", "button"])
def test_cancel_keeps_what_has_come(page: Page, stub: Stub, how: str) -> None:
    stub.hold(PROMPT, 1, 2)
    ended: list[str] = []
    page.on("requestfailed", lambda request: ended.append(request.failure or ""))
    ask(page, done=False)
    expect(page.locator(".text")).to_have_count(1)
    if how == "Escape":
        page.keyboard.press("Escape")
    else:
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#prompt")).to_be_focused()
    expect(page.locator("#status")).to_have_text("Cancelled: 1 of 3 rewrites here.")
    expect(page.locator("#cancel")).to_be_hidden()
    expect(page.locator(".text")).to_have_count(1)
    expect(page.locator("#prompt")).to_have_value(PROMPT)
    expect(page.get_by_role("alert")).to_be_empty()
    assert ended == ["net::ERR_ABORTED"] * 2  # the server is told too


def test_a_newer_request_cancels_the_older_one(page: Page, stub: Stub) -> None:
    old = stub.hold("an old prompt")
    ended: list[str] = []
    page.on("requestfailed", lambda request: ended.append(request.post_data_json["prompt"]))
    ask(page, "an old prompt", done=False)
    expect(page.locator(".waiting")).to_have_count(3)
    ask(page, "a new prompt")
    old.set()
    ask(page, "a new prompt")  # time enough for old answers to come
    assert ended == ["an old prompt"] * 3
    assert all(plain(card).startswith("a new prompt") for card in page.get_by_role("article").all())
    expect(page.locator("#history-list li")).to_have_count(1)


def test_an_answer_that_cannot_be_cancelled_does_not_show_late(open_page: Open) -> None:
    """Here the browser ignores the cancelling, as a slow network can."""
    ignore = "const send = fetch; window.fetch = (path, { signal, ...init }) => send(path, init);"
    page = open_page(script=ignore).page
    waiting: list[Route] = []
    finished: list[str] = []
    page.route("**/v1/optimize", lambda route: waiting.append(route) if len(waiting) < 3 else route.continue_())
    ask(page, "an old prompt", done=False)
    expect(page.locator(".waiting")).to_have_count(3)
    page.on("requestfinished", lambda request: finished.append(request.url))
    options(page, variants="2")
    ask(page, "a new prompt")
    for route in waiting:
        route.continue_()
    while len(finished) < 5:
        page.wait_for_timeout(10)
    page.evaluate("new Promise((done) => setTimeout(done, 50))")  # the page reads the last answer
    assert page.locator("#status").inner_text() == "2 rewrites."
    assert [plain(card)[:12] for card in page.get_by_role("article").all()] == ["a new prompt"] * 2


def test_a_server_that_is_down_and_comes_back(open_page: Open, stub: Stub) -> None:
    page = open_page(fails=True).page
    stub.stop()
    ask(page, done=False)
    expect(page.get_by_role("alert").locator("p")).to_have_text(
        "The server does not answer; start it with “semdpo serve”, then try again."
    )
    expect(page.locator("#prompt")).to_have_value(PROMPT)
    again = Stub(stub.server_address[1])
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#status")).to_have_text("3 rewrites.")
    again.stop()


def test_a_server_that_is_down_when_the_page_loads(open_page: Open, stub: Stub) -> None:
    watched = open_page(fails=True)
    page = watched.page
    page.route("**/v1/models", lambda route: route.abort())
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    ask(page, done=False)
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    page.unroute("**/v1/models")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#status")).to_have_text("3 rewrites.")


def test_another_server_at_this_address(page: Page) -> None:
    bodies = ["<!doctype html>", "{}", "[]", '{"data": 3}']
    page.route("**/v1/models", lambda route: route.fulfill(body=bodies.pop()))
    while bodies:
        page.reload()
        expect(page.get_by_role("alert")).to_contain_text("not as semdpo does; check the address.")


def test_an_empty_prompt_asks_nothing(open_page: Open) -> None:
    watched = open_page()
    for prompt in ("", "   \n"):
        watched.page.locator("#prompt").fill(prompt)
        watched.page.locator("#rewrite").click()
        message = watched.page.locator("#prompt").evaluate("node => node.validationMessage")
        assert message == "Type a prompt first: what should the image show?"
    assert watched.asked == []


def test_a_wrong_option_is_pointed_at(open_page: Open) -> None:
    watched = open_page()
    page = watched.page
    options(page, variants="17")
    page.locator("#options > summary").click()
    page.locator("#prompt").fill(PROMPT)
    page.locator("#rewrite").click()
    expect(page.locator("#variants")).to_be_focused()
    assert watched.asked == []
    options(page, variants="1", length="own", tokens="0")
    page.locator("#rewrite").click()
    expect(page.locator("#tokens")).to_be_focused()
    options(page, length="short")
    ask(page)  # a field that is not shown stops nothing


def test_images_that_fail_say_why(open_page: Open, stub: Stub) -> None:
    stub.renderer = "tiny:sd"
    page = open_page(fails=True).page
    options(page, variants="1")
    ask(page)
    stub.scripted.append(error(503, "busy", "server_error", Retry_After="3"))
    page.get_by_role("button", name="Draw before and after").click()
    expect(page.get_by_role("article")).to_contain_text("The server cannot do this now; try again in 3 seconds.")
    page.get_by_role("button", name="Draw before and after").click()
    expect(page.locator("figure img")).to_have_count(2)


def test_cancel_ends_the_drawing(open_page: Open, stub: Stub) -> None:
    stub.renderer = "tiny:sd"
    page = open_page().page
    options(page, variants="1")
    ask(page)
    stub.hold(PROMPT, 0)
    stub.asked.clear()
    with page.expect_request("**/v1/render"):
        page.get_by_role("button", name="Draw before and after").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Draw before and after")).to_be_visible()
    assert len(stub.asked) <= 1  # the second image was not begun
