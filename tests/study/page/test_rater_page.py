"""A rater's page in a real browser: what is shown, by which keys it is answered, and what happens when things fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from semdpo.study.blinding import rater_id, trials_of
from semdpo.study.plan import Study
from semdpo.study.votes import VoteStore
from tests.serve.page.browser import Page, expect, violations
from tests.study.studies import THREE, Served, make, served

Open = Callable[..., Page]
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
# Records, in every frame, how many of the two images are shown.
FRAMES = """window.frames_seen = []; const look = () => {
  const shown = ["left", "right"].map((side) => document.querySelector(`#${side}-frame img`))
    .map((image) => Boolean(image?.complete && image.naturalWidth && image.getClientRects().length));
  const key = ["left", "right"].map((side) => document.querySelector(`#${side}-frame img`)?.src ?? "").join(" ");
  window.frames_seen.push([...shown, key]); requestAnimationFrame(look); }; requestAnimationFrame(look);"""


def _begin(page: Page) -> None:
    page.get_by_role("button", name="I agree, begin").click()
    expect(page.locator("#question")).to_be_visible()


def _answered(store: VoteStore, rater: int) -> int:
    return len([vote for vote in store.votes() if vote.rater == rater])


def _at(page: Page, number: int, of: int = 4) -> None:
    expect(page.locator("#count")).to_have_text(f"{number} of {of}")
    expect(page.locator("#trial[aria-busy=false]")).to_be_visible()


def test_the_whole_study_by_keyboard(server: Served, open_page: Open) -> None:
    page = open_page(server.url + server.link(0))
    assert page.title() == server.study.plan.title
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(page.locator("#consent")).to_contain_text("We store your answers, and no name.")
    assert server.store.progress(1)[0].consented is None
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    for number, key in enumerate(["ArrowLeft", "2", "3"]):
        _at(page, number + 1)
        trial = trials_of(server.study, 0)[number]
        expect(page.locator("#prompt")).to_have_text(server.study.plan.prompts[trial.prompt_id])
        page.keyboard.press(key)
    _at(page, 4)
    page.keyboard.press("Tab")  # from the question to the first image
    expect(page.get_by_role("button", name="Image 1")).to_be_focused()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "the focus is visible"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#done-title")).to_be_visible()
    votes = {vote.trial: vote for vote in server.store.votes()}
    wanted = trials_of(server.study, 0)
    assert [votes[trial.name].choice for trial in wanted] == ["left", "right", "tie", "right"]
    assert all((votes[trial.name].left, votes[trial.name].right) == (trial.left, trial.right) for trial in wanted)
    assert all(0 < vote.seconds < 60 for vote in votes.values())
    assert server.store.progress(1)[0].consented is not None


def test_a_rater_closes_the_browser_and_goes_on(server: Served, open_page: Open) -> None:
    first = open_page(server.url + server.link(1))
    _begin(first)
    for number in (1, 2):
        _at(first, number)
        first.keyboard.press("1")
    _at(first, 3)
    assert first.evaluate("Object.keys(localStorage).length") == 0, "the server knows how far the rater is"
    second = open_page(server.url + server.link(1), viewport=PHONE, has_touch=True, is_mobile=True)
    _at(second, 3)
    expect(second.locator("#welcome")).to_be_hidden()
    second.locator("#right").tap()
    _at(second, 4)
    assert _answered(server.store, 1) == 3
    other = open_page(server.url + server.link(0))
    expect(other.locator("#welcome")).to_be_visible()


def test_both_images_appear_at_once_and_at_one_size(server: Served, open_page: Open) -> None:
    page = open_page(server.url + server.link(2), script=FRAMES)
    page.route("**/*.png", lambda route: (page.wait_for_timeout(30), route.continue_()))
    _begin(page)
    for number in range(1, 5):
        _at(page, number)
        boxes = [page.locator(f"#{side}-frame img").bounding_box() for side in ("left", "right")]
        assert boxes[0] is not None
        assert boxes[1] is not None
        assert (boxes[0]["width"], boxes[0]["height"]) == (boxes[1]["width"], boxes[1]["height"])
        page.keyboard.press("1")
    expect(page.locator("#done-title")).to_be_visible()
    seen = page.evaluate("window.frames_seen")
    assert any(left and right for left, right, _ in seen)
    assert all(left == right for left, right, _ in seen), "no frame has one image alone"
    pairs = list(dict.fromkeys(key for _, _, key in seen if key.strip()))
    assert len(pairs) == 4, "no frame mixes the images of two trials"


@pytest.mark.slow
def test_an_answer_that_fails_is_sent_again_and_stored_once(server: Served, open_page: Open) -> None:
    page = open_page(server.url + server.link(0), fails=True)
    _begin(page)
    sent: list[str] = []

    def lose_the_answer(route: object) -> None:
        """The server stores the vote, and the page never hears of it."""
        sent.append(route.request.post_data_json["answer"])  # type: ignore[attr-defined]
        if len(sent) == 1:
            route.fetch()  # type: ignore[attr-defined]
        if len(sent) < 3:
            route.abort()  # type: ignore[attr-defined]
        else:
            route.continue_()  # type: ignore[attr-defined]

    page.route("**/votes", lose_the_answer)
    _at(page, 1)
    page.keyboard.press("2")
    expect(page.get_by_role("status").filter(has_text="Your answer is not saved yet")).to_be_visible()
    page.keyboard.press("1")  # another answer is not taken meanwhile
    page.get_by_role("button", name="Try now").click()
    _at(page, 2)
    assert len(sent) == 3
    assert len(set(sent)) == 1
    assert [vote.choice for vote in server.store.votes()] == ["right"]
    expect(page.locator("#saving")).to_be_empty()


def test_a_double_click_is_one_answer(tmp_path_factory: pytest.TempPathFactory, open_page: Open) -> None:
    """Its second click comes when the next question is there, which nobody has read yet."""
    study = make(tmp_path_factory.mktemp("double"), questions=THREE)
    with served(study) as server:
        page = open_page(server.url + server.link(0))
        _begin(page)
        _at(page, 1)
        for number in (1, 2):
            page.locator("#left").dblclick(delay=100)
            expect(page.locator("#question")).to_have_text(list(THREE.values())[number])
            expect(page.locator("#trial[aria-busy=false]")).to_be_visible()
            assert _answered(server.store, 0) == number


def test_a_refused_answer_and_a_closed_study(server: Served, open_page: Open) -> None:
    page = open_page(server.url + server.link(0), fails=True)
    _begin(page)
    _at(page, 1)
    server.store.close_study()
    page.keyboard.press("1")
    expect(page.get_by_role("alert")).to_contain_text("This study is closed, and no more answers are stored.")
    assert server.store.votes() == []
    missing = open_page(server.url + "/r/none", fails=True)
    assert "there is no such address" in missing.content()


def test_an_image_that_does_not_load(server: Served, open_page: Open) -> None:
    page = open_page(server.url + server.link(0), fails=True)
    page.route("**/*.png", lambda route: route.abort())
    page.reload()
    page.get_by_role("button", name="I agree, begin").click()
    expect(page.get_by_role("alert")).to_contain_text("An image did not load.")
    page.unroute("**/*.png")
    page.get_by_role("button", name="Load the page again").click()
    _at(page, 1)


def test_three_questions_and_no_tie(tmp_path_factory: pytest.TempPathFactory, open_page: Open) -> None:
    study = make(tmp_path_factory.mktemp("three"), questions=THREE, tie=None, simulated=True)
    with served(study) as server:
        page = open_page(server.url + server.link(0))
        expect(page.locator("#simulated")).to_be_visible()
        _begin(page)
        expect(page.locator("#tie")).to_be_hidden()
        _at(page, 1)
        page.keyboard.press("3")
        for words in THREE.values():
            expect(page.locator("#question")).to_have_text(words)
            expect(page.locator("#trial[aria-busy=false]")).to_be_visible()
            page.keyboard.press("1")
        _at(page, 2)
        assert _answered(server.store, 0) == 3


def test_nothing_of_a_text_is_markup(server: Served, open_page: Open) -> None:
    page = open_page(server.url + server.link(0))
    _begin(page)
    shown = set()
    for number in range(1, 5):
        _at(page, number)
        shown.add(page.locator("#prompt").inner_text())
        assert page.locator("#prompt *").count() == 0
        page.keyboard.press("1")
    assert 'two cats <b>asleep</b> & "quiet"' in shown


@pytest.mark.slow
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_axe_finds_nothing_and_everything_fits(size: dict[str, int], server: Served, open_page: Open) -> None:
    page = open_page(server.url + server.link(0), viewport=size, fails=True)

    def verify() -> None:
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
            assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

    expect(page.locator("#welcome")).to_be_visible()
    verify()
    _begin(page)
    _at(page, 1)
    verify()
    assert page.evaluate("document.documentElement.scrollHeight <= window.innerHeight"), "no rater must scroll"
    page.route("**/votes", lambda route: route.abort())
    page.keyboard.press("1")
    expect(page.get_by_role("button", name="Try now")).to_be_visible()
    verify()
    page.unroute("**/votes")
    page.get_by_role("button", name="Try now").click()
    for number in range(2, 5):
        _at(page, number)
        page.keyboard.press("2")
    expect(page.locator("#done-title")).to_be_visible()
    verify()


@pytest.mark.slow
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_the_organisers_page(size: dict[str, int], server: Served, study: Study, open_page: Open) -> None:
    page = open_page(server.url + server.organiser, viewport=size)
    expect(page.locator("#rows tr")).to_have_count(3)
    expect(page.locator("#summary")).to_have_text("0 of 3 raters have finished; 0 of 12 answers are stored.")
    assert violations(page) == []
    assert "dpo" not in page.content()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy the link of rater 1").click()
    expect(page.get_by_text("Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == f"{server.url}/r/{rater_id(study, 1)}"
    expect(page.locator("#votes")).to_be_hidden()
    page.get_by_role("button", name="Close the study…").click()
    assert violations(page) == []
    page.get_by_role("button", name="Keep it open").click()
    assert server.store.closed_at is None
    page.get_by_role("button", name="Close the study…").click()
    page.get_by_role("button", name="Close it").click()
    expect(page.locator("#state")).to_contain_text("Closed on")
    assert server.store.closed_at is not None
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the votes").click()
    assert download.value.suggested_filename == "votes.csv"
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
