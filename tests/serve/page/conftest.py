"""The server and the browser of the page's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.serve.page.stub import Stub

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.serve.page.browser import Watched


@pytest.fixture(scope="module")  # its event loop must not be running while another module uses asyncio
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    from tests.serve.page.browser import launch

    with sync_playwright() as playwright:
        launched = launch(playwright)
        yield launched
        launched.close()


@pytest.fixture
def stub() -> Iterator[Stub]:
    """A server of the test's own, which it may script before it opens a page."""
    server = Stub()
    yield server
    server.stop()


@pytest.fixture
def base_url(stub: Stub) -> str:
    """The address of the server that the pages are opened on; ends with a slash."""
    return stub.url


@pytest.fixture
def open_page(browser: Browser, base_url: str) -> Iterator[Callable[..., Watched]]:
    """Opens pages, and checks in the end that nothing happened in them that must not.

    A page is opened with ``fails=True`` where requests are refused, ``script`` runs before those of the page, and other
    keywords are a browser context's.
    """
    from tests.serve.page.browser import WATCH, Watched

    opened: list[Watched] = []

    def open_one(*, fails: bool = False, script: str = "", **context: Any) -> Watched:
        settings = {"viewport": {"width": 1280, "height": 860}, "reduced_motion": "reduce", **context}
        page = browser.new_context(**settings).new_page()
        page.add_init_script(WATCH + script)
        opened.append(Watched(page, base_url, fails))
        opened[-1].watch()
        page.goto(base_url)
        page.locator("#serving:not(:empty), dialog[open], #error:not(:empty)").first.wait_for()
        return opened[-1]

    yield open_one
    for each in opened:
        each.verify()
        each.page.context.close()


@pytest.fixture
def page(open_page: Callable[..., Watched]) -> Page:
    """A page on a desktop, in which all goes well."""
    return open_page().page
