"""The page of `semdpo serve` in a real browser: what a user sees of rewrites, and what is asked of the server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.serve.page.browser import PROMPT, Page, Watched, ask, expect, options, plain, verify_rewrites
from tests.serve.page.stub import STATIC, Stub

Open = Callable[..., Watched]


def test_every_rewrite_is_shown_with_its_drift(page: Page) -> None:
    assert len(verify_rewrites(page)) == 3
    for meter in page.get_by_role("meter").all():
        assert (meter.get_attribute("aria-valuetext") or "").endswith("; limit 0.30")
    first = page.get_by_role("article", name="Variant 1")
    expect(first.locator(".drift p")).to_have_text("drift 0.08 – means almost the same")
    expect(page.locator("#status")).to_have_text("3 rewrites.")


def test_the_meter_is_drawn_to_scale(page: Page) -> None:
    ask(page)
    meter = page.get_by_role("meter").first
    bar, fill, limit = (box.bounding_box() for box in (meter, meter.locator(".fill"), meter.locator(".limit")))
    assert bar is not None
    assert fill is not None
    assert limit is not None
    assert fill["width"] / bar["width"] == pytest.approx(0.08 / 0.5, abs=0.01)
    assert (limit["x"] + 1 - bar["x"]) / bar["width"] == pytest.approx(0.3 / 0.5, abs=0.01)


def test_changed_words_are_marked_not_by_colour_alone(page: Page) -> None:
    ask(page)
    text = page.get_by_role("article", name="Variant 1").locator(".text")
    added, lost, protected = (text.locator(mark) for mark in ("ins", "del", ".protected"))
    expect(added).to_have_text("added: oil painting, golden light;")
    expect(lost).to_have_text("lost: very;")
    expect(protected).to_have_text("protected: (red:1.2)")
    expect(added).to_have_css("text-decoration-line", "underline")
    expect(lost).to_have_css("text-decoration-line", "line-through")
    assert protected.evaluate("node => getComputedStyle(node).boxShadow") != "none"
    expect(page.locator(".counts").first).to_have_text("4 words added · 1 lost · 7 kept")


def test_each_variant_is_a_request_with_its_own_seed(open_page: Open) -> None:
    watched = open_page()
    options(watched.page, variants="4", seed="7")
    ask(watched.page)
    # The first variant of any seed is the most probable rewrite, so the others ask for a second one.
    assert {body["seed"]: body["n"] for body in watched.asked} == {7: 1, 8: 2, 9: 2, 10: 2}


def test_options_reach_the_server(open_page: Open) -> None:
    watched = open_page()
    page = watched.page
    options(
        page, variants="1", seed="5", length="own", tokens="12", keep="ball, in the desert,ball", banned="8k , sunset"
    )
    options(page, max_drift="0.25")
    ask(page)
    expected = {"prompt": PROMPT, "keep": ["ball", "in the desert"], "length": 12, "max_drift": 0.25}
    assert watched.asked == [{**expected, "banned": ["8k", "sunset"], "n": 1, "seed": 5, "model": "sem_dpo"}]
    options(page, length="short", max_drift="", keep="", banned="")
    ask(page)
    expected = {"prompt": PROMPT, "keep": [], "length": "short", "max_drift": None}
    assert watched.asked[1:] == [{**expected, "banned": [], "n": 1, "seed": 5, "model": "sem_dpo"}]
    expect(page.locator(".notice")).to_contain_text("ends at the length limit")


def test_another_seed(page: Page) -> None:
    options(page, seed="3")
    page.locator("#reseed").click()
    assert page.locator("#seed").input_value() != "3"


def test_a_kept_prompt_says_why_and_what_to_do(page: Page) -> None:
    options(page, variants="1", max_drift="0.05")
    ask(page)
    card = page.get_by_role("article")
    expect(card.locator(".kept")).to_have_text(
        "Your prompt was kept. No rewrite was near enough. Raise the largest drift, or try another seed."
    )
    assert plain(card) == PROMPT
    expect(card.locator(".drift p")).to_have_text("drift 0.00 – unchanged")
    expect(page.locator("#status")).to_have_text("1 rewrite, 1 of them your prompt as it was.")


def test_the_limit_of_drift_is_explained(page: Page) -> None:
    hint = page.locator("#drift-hint")
    options(page)
    expect(hint).to_contain_text("A rewrite there stays close to the meaning.")
    options(page, max_drift="0.5")
    expect(hint).to_contain_text("A rewrite there changes some of the meaning.")
    options(page, max_drift="0.05")
    expect(hint).to_contain_text("A rewrite there means almost the same.")


def test_the_same_text_is_not_shown_twice(page: Page, stub: Stub) -> None:
    first = stub.hold(PROMPT, 0)
    options(page, variants="4")
    page.locator("#prompt").fill(PROMPT)
    page.locator("#rewrite").click()
    expect(page.locator(".text")).to_have_count(3)
    first.set()
    expect(page.get_by_role("article", name="Variant 1").locator(".text")).to_be_visible()
    expect(page.get_by_role("article", name="Variant 4")).to_contain_text("The same text as variant 1.")


@pytest.mark.parametrize("has_clipboard", [True, False], ids=["clipboard", "plain HTTP"])
def test_copy_takes_the_rewrite_without_its_marks(open_page: Open, has_clipboard: bool) -> None:
    script = "" if has_clipboard else "Object.defineProperty(navigator, 'clipboard', { value: undefined });"
    page = open_page(permissions=["clipboard-read", "clipboard-write"], script=script).page
    ask(page)
    card = page.get_by_role("article", name="Variant 2")
    rewrite = plain(card)
    card.get_by_role("button", name="Copy variant 2").click()
    expect(card.get_by_role("status")).to_have_text("Variant 2 is copied.")
    expect(card.get_by_role("button").first).to_contain_text("Copied")
    page.locator("#prompt").fill("")
    page.locator("#prompt").press("Control+V")
    expect(page.locator("#prompt")).to_have_value(rewrite)


def test_a_selected_rewrite_is_copied_without_its_marks(open_page: Open) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"]).page
    ask(page)
    text = page.get_by_role("article", name="Variant 1").locator(".text")
    text.evaluate("node => getSelection().selectAllChildren(node)")
    page.keyboard.press("Control+C")
    assert (
        page.evaluate("navigator.clipboard.readText()")
        == "a small (red:1.2) ball in the desert, oil painting, golden light"
    )


def test_models_stand_side_by_side(open_page: Open, stub: Stub) -> None:
    stub.models = {"sem_dpo": 0.3, "dpo": 0.6}
    watched = open_page()
    page = watched.page
    options(page, variants="2")
    ask(page)
    boxes = [page.get_by_role("region", name=name, exact=True).bounding_box() for name in ("sem_dpo", "dpo")]
    left, right = (box or {} for box in boxes)
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]
    limits = page.locator(".limit-text")
    assert limits.all_text_contents() == ["limit 0.30", "limit 0.30", "limit 0.60", "limit 0.60"]
    assert {(body["model"], body["seed"]) for body in watched.asked} == {
        ("sem_dpo", 0), ("sem_dpo", 1), ("dpo", 0), ("dpo", 1)
    }  # fmt: skip
    page.get_by_role("checkbox", name="dpo", exact=True).uncheck()
    ask(page)
    expect(page.locator(".column")).to_have_count(1)
    page.get_by_role("checkbox", name="sem_dpo", exact=True).uncheck()
    page.locator("#rewrite").click()
    expect(page.get_by_role("alert")).to_have_text("No model is chosen; tick one under your prompt.")


def test_images_before_and_after_have_the_same_seed(open_page: Open, stub: Stub) -> None:
    stub.renderer = "tiny:sd"
    watched = open_page()
    page = watched.page
    options(page, variants="1", seed="4")
    ask(page)
    rewrite = plain(page.get_by_role("article"))
    page.get_by_role("button", name="Draw before and after").click()
    expect(page.get_by_role("img", name=f"Image drawn from your prompt: {PROMPT}")).to_be_visible()
    expect(page.get_by_role("img", name=f"Image drawn from the rewrite: {rewrite}")).to_be_visible()
    assert page.locator("figure img").evaluate_all("all => all.map((each) => each.naturalWidth)") == [96, 96]
    assert watched.asked[1:] == [
        {"prompt": PROMPT, "original": None, "seed": 4, "model": "sem_dpo"},
        {"prompt": rewrite, "original": PROMPT, "seed": 4, "model": "sem_dpo"},
    ]
    with page.expect_download() as download:
        page.get_by_role("link", name="Save the image of the rewrite").click()
    assert download.value.suggested_filename == "semdpo-seed-4-rewrite.png"


def test_an_image_of_a_truncated_prompt_says_so(open_page: Open, stub: Stub) -> None:
    stub.renderer = "tiny:sd"
    page = open_page().page
    options(page, variants="1")
    ask(page, "a red ball " + "on very fine sand, " * 16)  # the rewrite leaves out the word very
    page.get_by_role("button", name="Draw before and after").click()
    expect(page.locator("figure img")).to_have_count(2)
    notes = page.locator("figure .notice")
    expect(notes).to_have_text(["Its end is not in the image: the renderer reads less."])
    expect(page.locator("figure").first.locator(".notice")).to_be_visible()


def test_images_without_being_asked(open_page: Open, stub: Stub) -> None:
    stub.renderer, stub.models = "tiny:sd", {"sem_dpo": 0.3, "dpo": 0.3}
    page = open_page().page
    options(page, variants="1")
    page.locator("#draw").check()
    ask(page)
    expect(page.locator("figure img")).to_have_count(4)
    drawn = [body["prompt"] for path, body in stub.asked if path == "/v1/render"]
    assert drawn.count(PROMPT) == 1  # both models show the same image of it
    assert len(drawn) == 3


def test_a_server_without_a_renderer_offers_no_images(page: Page) -> None:
    ask(page)
    expect(page.get_by_role("button", name="Draw before and after")).to_have_count(0)
    expect(page.locator("#draw-field")).to_be_hidden()


HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "\"><svg onload='alert(1)'> ${alert(1)} {{alert(1)}} javascript:alert(1)",
)


def test_markup_is_shown_as_text(open_page: Open, stub: Stub) -> None:
    page = open_page().page
    page.on("dialog", lambda dialog: pytest.fail(f"{dialog.message} ran"))
    options(page, variants="1")
    for text in HOSTILE:
        stub.models, stub.renderer = {text: 0.3, "dpo": 0.3}, text
        page.reload()
        expect(page.locator("#model-list")).to_contain_text(text)
        options(page, keep=text.replace(",", ""))
        ask(page, text)
        assert plain(page.get_by_role("article").first).startswith(text)
        expect(page.locator("#history-list")).to_contain_text(text)
        assert page.locator("main :is(script, img, iframe, object, svg)").count() == 0


def test_the_files_load_nothing_from_elsewhere_and_hold_no_inline_code() -> None:
    markup = (STATIC / "index.html").read_text(encoding="utf-8")
    for forbidden in ("<style", " style=", " onclick", " onload", "<script>", "javascript:", "//cdn", "@import"):
        assert forbidden not in markup
    for file in STATIC.iterdir():
        text = file.read_text(encoding="utf-8").replace("xmlns='http://www.w3.org/2000/svg'", "")
        for forbidden in (
            "http:",
            "https:",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "url(",
        ):
            assert forbidden not in text, file.name
