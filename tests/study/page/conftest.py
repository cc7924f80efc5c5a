"""The browser of the page's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")  # its event loop must not be running while another module uses asyncio
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    from tests.serve.page.browser import launch

    with sync_playwright() as playwright:
        launched = launch(playwright)
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens pages, and checks in the end that nothing failed in them; ``fails=True`` where requests are refused."""
    from tests.serve.page.browser import WATCH

    opened: list[tuple[Page, list[str]]] = []

    def open_one(address: str, *, fails: bool = False, script: str = "", **context: Any) -> Page:
        settings = {"viewport": {"width": 1280, "height": 860}, "reduced_motion": "reduce", **context}
        page = browser.new_context(**settings).new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console",
            lambda said: None if fails and said.text.startswith("Failed to load") else problems.append(said.text),
        )
        page.add_init_script(WATCH + script)
        opened.append((page, problems))
        page.goto(address)
        return page

    yield open_one
    for page, problems in opened:
        assert problems + page.evaluate("window.violations") == []
        page.context.close()
