"""A rater's page in a folder, opened from the disk in a real browser: its answers come back as a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from semdpo.study.blinding import rater_id, study_id, trials_of
from semdpo.study.collect import collect
from semdpo.study.page import write_pages
from semdpo.study.plan import Study
from semdpo.study.votes import read_votes
from tests.serve.page.browser import Axe, Page, expect

Open = Callable[..., Page]


def _answer(page: Page, *keys: str, first: int = 1) -> None:
    for number, key in enumerate(keys, first):
        expect(page.locator("#count")).to_have_text(f"{number} of 4")
        expect(page.locator("#trial[aria-busy=false]")).to_be_visible()
        page.keyboard.press(key)


def _save(page: Page, path: Path) -> Path:
    with page.expect_download() as download:
        page.get_by_role("button", name="Save my answers").click()
    assert download.value.suggested_filename.startswith("votes-")
    download.value.save_as(path)
    return path


def test_answers_of_a_folder_are_collected(study: Study, tmp_path: Path, open_page: Open) -> None:
    (index,) = write_pages(study, [1], tmp_path / "pages").values()
    page = open_page(index.as_uri())
    expect(page.locator("#consent")).to_contain_text("of your own will")
    page.get_by_role("button", name="I agree, begin").click()
    _answer(page, "1", "2", "3")
    early = _save(page, tmp_path / "early.json")
    expect(page.locator("#count")).to_have_text("4 of 4")
    page.reload()  # as if the browser had been closed
    expect(page.locator("#welcome")).to_be_hidden()
    _answer(page, "ArrowRight", first=4)
    expect(page.locator("#done-title")).to_be_visible()
    late = _save(page, tmp_path / "late.json")
    assert collect(study, [late, early]) == {late: (1, 4, 4), early: (1, 3, 0)}
    votes = {vote.trial: vote for vote in read_votes(study.folder, study_id(study))}
    wanted = trials_of(study, 1)
    assert [votes[trial.name].choice for trial in wanted] == ["left", "right", "tie", "right"]
    assert [(votes[trial.name].left, votes[trial.name].right) for trial in wanted] == [
        (trial.left, trial.right) for trial in wanted
    ]


def _violations(page: Page) -> list[str]:
    """What axe-core finds; it loads no files again, which the page does not allow."""
    found = Axe().run(page, options={"preload": False, "resultTypes": ["violations"]}).response["violations"]
    return [each["id"] for each in found]


@pytest.mark.slow
def test_the_page_of_a_folder_can_be_used_by_everybody(study: Study, tmp_path: Path, open_page: Open) -> None:
    for rater, index in write_pages(study, range(3), tmp_path / "pages").items():
        assert index == tmp_path / "pages" / rater_id(study, rater) / "index.html"
        page = open_page(index.as_uri(), viewport={"width": 390, "height": 844})
        expect(page.locator("#welcome")).to_be_visible()
        assert _violations(page) == []
        page.get_by_role("button", name="I agree, begin").click()
        expect(page.locator("#right-frame img")).to_be_visible()
        assert _violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_browser_that_keeps_nothing_says_so(study: Study, tmp_path: Path, open_page: Open) -> None:
    (index,) = write_pages(study, [0], tmp_path / "pages").values()
    broken = "Storage.prototype.setItem = () => { throw new DOMException('full'); };"
    page = open_page(index.as_uri(), script=broken)
    expect(page.get_by_role("alert")).to_contain_text("This browser keeps no answers for this page")
