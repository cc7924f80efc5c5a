"""The browser that the page is tested in. Importing this skips a file of tests where the browser is missing."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass, field
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in BROWSERS if (path := shutil.which(name))), None)
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
NO_BROWSER = (
    "the page of `semdpo serve` was not tested: it needs Chromium (apt-get install chromium) and two packages "
    "(pip install playwright axe-playwright-python)"
)
PACKAGES = ("playwright", "axe_playwright_python")

if CHROMIUM is None or not all(map(importlib.util.find_spec, PACKAGES)):
    if os.environ.get("CI"):
        raise RuntimeError(NO_BROWSER)
    pytest.skip(NO_BROWSER, allow_module_level=True)

from axe_playwright_python.sync_playwright import Axe  # noqa: E402
from playwright.sync_api import Browser, Locator, Page, Request, Response, expect  # noqa: E402

expect.set_options(timeout=20_000)  # how long a test waits for what must come; a quiet machine needs a second

PROMPT = "a very small (red:1.2) ball in the desert"
# Everything of a card's text but what is spoken or shown beside the rewrite itself.
PLAIN = """node => { const copy = node.cloneNode(true);
  for (const each of copy.querySelectorAll("del, .gap, .spoken")) each.remove(); return copy.textContent; }"""
WATCH = """window.violations = [];
  document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));"""


@dataclass
class Watched:
    """A page, and what happened in it that must not: errors, messages of the console, requests elsewhere."""

    page: Page
    address: str
    fails: bool = False
    problems: list[str] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("console", lambda message: self._hear(message.type, message.text))
        self.page.on("request", lambda request: self._see(request.url, request.post_data_json))

    def _hear(self, kind: str, text: str) -> None:
        if not (self.fails and text.startswith("Failed to load resource")):  # the browser reports each refused request
            self.problems.append(f"{kind}: {text}")

    def _see(self, url: str, body: dict[str, Any] | None) -> None:
        if not url.startswith((self.address, "blob:" + self.address, "data:")):
            self.problems.append(f"request of {url}")
        if body is not None:
            self.asked.append(body)

    def verify(self) -> None:
        """Nothing happened that must not."""
        assert self.problems + self.page.evaluate("window.violations") == []


def ask(page: Page, prompt: str = PROMPT, *, done: bool = True) -> None:
    """Types a prompt and presses the button; waits for the rewrites."""
    page.locator("#prompt").fill(prompt)
    page.locator("#rewrite").click()
    if done:
        expect(page.locator(".card").first).to_be_visible()
        expect(page.locator("#cancel")).to_be_hidden()


def verify_rewrites(page: Page, prompt: str = PROMPT) -> list[dict[str, Any]]:
    """Asks, compares what is shown with what the server answered, whichever server it is, and returns its records."""
    records: list[dict[str, Any]] = []

    def keep(response: Response | None) -> None:
        if response is not None and response.url.endswith("/v1/optimize") and response.ok:
            records.append(response.json()["results"][-1])  # the one that is shown

    def hear(request: Request) -> None:
        keep(request.response())

    page.on("requestfinished", hear)
    ask(page, prompt)
    page.remove_listener("requestfinished", hear)
    first = int(page.locator("#seed").input_value())
    for record in records:
        column = page.get_by_role("region", name=record["model"], exact=True)
        card = column.get_by_role("article", name=f"Variant {record['seed'] - first + 1}", exact=True)
        if "The same text as" in card.inner_text():
            continue
        assert plain(card) == record["rewrite"]
        expect(card.locator(".drift p")).to_contain_text(f"drift {record['drift']:.2f} – ")
        meter = card.get_by_role("meter", name="Drift")
        assert abs(float(meter.get_attribute("aria-valuenow") or "nan") - record["drift"]) < 1e-6
        assert card.locator(".kept").count() == bool(record["reason"])
        assert all(span in card.locator(".text").inner_text() for span in record["spans"])
    return records


def options(page: Page, **values: str) -> None:
    """Fills fields of the options; underscores stand for hyphens."""
    if not page.locator("#options").evaluate("node => node.open"):
        page.locator("#options > summary").click()
    for name, value in values.items():
        field = page.locator(f"#{name.replace('_', '-')}")
        if name == "length":
            field.select_option(value)
        else:
            field.fill(value)


def plain(card: Locator) -> str:
    """The rewrite that a card shows, without its marks and lost words."""
    return str(card.locator(".text").evaluate(PLAIN))


def violations(page: Page, *rules: str) -> list[str]:
    """What axe-core finds wrong with the page, by all its rules or by some."""
    settings = {"resultTypes": ["violations"], **({"runOnly": list(rules)} if rules else {})}
    found = Axe().run(page, options=settings).response["violations"]
    return [f"{each['id']}: {node['html']}" for each in found for node in each["nodes"]]


def launch(playwright: Any) -> Browser:
    return playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
