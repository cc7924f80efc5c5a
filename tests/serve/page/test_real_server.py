"""The page of the command itself, with real models."""

from __future__ import annotations

import pytest

from tests.serve.page.browser import Browser, verify_rewrites


@pytest.mark.slow
def test_the_page_shows_what_real_models_write(browser: Browser, real_server: str) -> None:
    page = browser.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(real_server)
    page.locator("#serving:not(:empty)").wait_for()
    records = verify_rewrites(page, "a (red:1.2) ball in the desert")
    assert len(records) == 3
    assert len({record["rewrite"] for record in records}) > 1
    page.get_by_role("button", name="Draw before and after").first.click()
    page.locator("img").nth(1).wait_for(timeout=60_000)
    page.close()
    assert problems == []
