"""Whether everybody can use the page: keyboard, screen readers, small screens, dark mode, less motion."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.serve.page.browser import PROMPT, Page, Watched, ask, expect, options, violations
from tests.serve.page.stub import Stub, error

Open = Callable[..., Watched]
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 360, "height": 740}


def _empty(page: Page, stub: Stub) -> None:
    options(page, length="own")


def _results(page: Page, stub: Stub) -> None:
    options(page, keep="ball", length="short", max_drift="0.12")
    page.locator("#draw").check()
    ask(page)
    expect(page.locator(".kept")).to_have_count(2)
    expect(page.locator("figure img").nth(3)).to_be_visible()
    page.locator("#history > summary").click()


def _error(page: Page, stub: Stub) -> None:
    stub.scripted.extend([error(429, "too many", Retry_After="7")] * 6)
    ask(page, done=False)
    expect(page.get_by_role("alert").locator("p")).to_be_visible()


def _waiting(page: Page, stub: Stub) -> None:
    stub.hold(PROMPT, 1)
    ask(page, done=False)
    expect(page.locator(".text").first).to_be_visible()


def _token(page: Page, stub: Stub) -> None:
    stub.token = "x"
    page.reload()
    expect(page.get_by_role("dialog")).to_be_visible()


STATES = {"empty": _empty, "results": _results, "error": _error, "waiting": _waiting, "token": _token}


@pytest.mark.slow
@pytest.mark.parametrize("reach", STATES.values(), ids=STATES)
def test_axe_finds_nothing(open_page: Open, stub: Stub, reach: Callable[[Page, Stub], None]) -> None:
    stub.renderer, stub.models = "tiny:sd", {"sem_dpo": 0.3, "dpo": 0.3}
    page = open_page(fails=True).page
    reach(page, stub)
    for size in (PHONE, DESKTOP) if reach in (_empty, _results, _error) else (DESKTOP,):
        page.set_viewport_size(size)
        page.emulate_media(color_scheme="light", reduced_motion="reduce")
        assert violations(page) == []
        page.emulate_media(color_scheme="dark", reduced_motion="reduce")
        assert violations(page, "color-contrast") == []  # nothing but the colours has changed


def test_axe_would_find_something(page: Page) -> None:
    page.evaluate("document.querySelector('h1').style.color = '#eee'")
    assert any(each.startswith("color-contrast:") for each in violations(page))


LONG = {
    "long prompt": "a sweeping view of a mountain valley at dawn, " * 40,
    "long word": "donau" + "dampfschifffahrts" * 20 + " https://example.org/" + "x" * 300,
    "emoji": "🦊👩‍👩‍👧‍👦🌈" * 60,
    "right to left": "كرة حمراء صغيرة في الصحراء عند الظهر (red:1.2) " * 6,
    "no blanks": "砂漠の中の小さな赤いボール、正午" * 20,
}


def test_nothing_is_wider_than_a_phone(open_page: Open, stub: Stub) -> None:
    stub.renderer, stub.models = "tiny:sd", {"sem_dpo": 0.3, "a-model-with-a-name-" * 9: 0.3}
    page = open_page(viewport=PHONE).page
    options(page, variants="1")
    page.locator("#draw").check()
    outside = """all => all.filter((each) => each.getBoundingClientRect().right > innerWidth + 1
      && !each.closest(".spoken")).map((each) => each.outerHTML.slice(0, 80))"""
    for name, prompt in LONG.items():
        ask(page, prompt)
        expect(page.locator("figure img")).to_have_count(4)
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"], name
        assert page.locator("body *").evaluate_all(outside) == [], name
    page.locator("#history > summary").click()
    assert page.locator("body *").evaluate_all(outside) == []


def test_one_column_on_a_phone_and_two_where_there_is_room(page: Page) -> None:
    def columns() -> int:
        return len(page.locator("main").evaluate("node => getComputedStyle(node).gridTemplateColumns").split())

    assert columns() == 2
    page.set_viewport_size(PHONE)
    assert columns() == 1


def test_on_a_phone_the_rewrites_come_into_view(open_page: Open) -> None:
    page = open_page(viewport=PHONE).page
    ask(page)
    expect(page.locator("#results-title")).to_be_in_viewport()


def test_dark_mode_is_dark(page: Page) -> None:
    def brightness() -> float:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(float, colour.removeprefix("rgb(").removesuffix(")").split(","))) / 3

    assert brightness() > 200
    page.emulate_media(color_scheme="dark")
    assert brightness() < 50


def test_less_motion(open_page: Open, stub: Stub) -> None:
    stub.hold(PROMPT)
    page = open_page(reduced_motion="no-preference").page
    ask(page, done=False)
    expect(page.locator(".waiting")).to_have_count(3)
    assert page.evaluate("document.getAnimations().length") > 0
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate("document.getAnimations().length") == 0


def test_the_whole_page_works_by_keyboard(open_page: Open, stub: Stub) -> None:
    stub.renderer = "tiny:sd"
    page = open_page(permissions=["clipboard-read", "clipboard-write"]).page
    press = page.keyboard.press
    press("Tab")
    expect(page.get_by_role("link", name="Skip to the rewrites")).to_be_focused()
    press("Tab")
    expect(page.locator("#prompt")).to_be_focused()
    page.keyboard.type(PROMPT)
    press("Control+Enter")
    expect(page.locator("#status")).to_have_text("3 rewrites.")
    reached = _tab_through(page)
    for name in (
        "Rewrite",
        "Options",
        "Earlier prompts 1",
        "Copy variant 1",
        "Copy variant 3",
        "Draw before and after",
    ):
        assert name in reached, reached
    page.get_by_role("button", name="Copy variant 2").focus()
    press("Enter")
    expect(page.get_by_role("button", name="Copied variant 2")).to_be_visible()
    page.locator("#options > summary").focus()
    press("Enter")
    inside = _tab_through(page)
    for name in ("variants", "seed", "length", "max-drift", "keep", "banned", "draw"):
        assert f"#{name}" in inside, inside


def _tab_through(page: Page) -> list[str]:
    """Presses Tab through the rest of the page; each element that has the focus must show it."""
    describe = """() => { const node = document.activeElement, style = getComputedStyle(node);
      const name = node.matches("input, select") ? "#" + node.id : node.innerText.trim().replace(/\\s+/g, " ");
      return [node === document.body, name, style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2]; }"""
    names = []
    for _ in range(60):
        page.keyboard.press("Tab")
        is_end, name, is_seen = page.evaluate(describe)
        if is_end:
            return names
        assert is_seen, name
        names.append(name)
    raise AssertionError(f"the focus never leaves the page: {names}")


def test_meta_enter_works_too_and_enter_alone_makes_a_line(open_page: Open) -> None:
    watched = open_page()
    page = watched.page
    page.locator("#prompt").focus()
    page.keyboard.type("a ball")
    page.keyboard.press("Enter")
    page.keyboard.type("in snow")
    assert watched.asked == []
    page.keyboard.press("Meta+Enter")
    expect(page.locator("#status")).to_have_text("3 rewrites.")
    assert {body["prompt"] for body in watched.asked} == {"a ball\nin snow"}


def test_changes_are_announced(page: Page, stub: Stub) -> None:
    expect(page.locator("#status")).to_have_attribute("role", "status")
    expect(page.locator("#error")).to_have_attribute("role", "alert")
    page.evaluate("""() => { window.heard = [];
      new MutationObserver(() => window.heard.push(document.querySelector("#status").textContent))
        .observe(document.querySelector("#status"), { childList: true, characterData: true, subtree: true }); }""")
    ask(page)
    heard = page.evaluate("window.heard")
    assert heard[0] == "Writing: 0 of 3 rewrites here."
    assert heard[-1] == "3 rewrites."
    assert len(set(heard)) >= 4
