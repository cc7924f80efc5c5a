"""Whether anything that a rater can fetch tells which method made an image.

What can be constant must be: sizes, formats, headers and times of change are the same for all images. What must vary is
tested: no order of names, side, position or time of an answer may go with a method. All tests are two-sided, at a level
that one clean study in a thousand or fewer fails.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy import stats

from semdpo.study import crawl, page
from semdpo.study.blinding import LENGTH, SIDES, sheet, trials_of
from semdpo.study.crawl import Crawl, Fetched, FetchedImage, RaterPages
from semdpo.study.design import Trial
from semdpo.study.image_form import PLAIN, pixels
from semdpo.study.plan import Study

LEVEL = 1e-4  # of one test; a check does a handful
_NAME = re.compile(rf"[A-Za-z0-9_-]{{{LENGTH}}}")
_OF_SERVER = {"answered", "consented"}  # what a server adds to a sheet: what the rater has done


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found.

    Attributes:
        leaks: one sentence each.
        raters: raters whose pages were looked at.
        images: images that were looked at.
        files: other files.
    """

    leaks: tuple[str, ...]
    raters: int
    images: int
    files: int


@dataclass(frozen=True, slots=True)
class _Shown:
    """An image as one rater sees it, and what is behind it."""

    name: str
    image: FetchedImage
    method: str
    trial: Trial
    side: str
    rater: int


def check(place: str, study: Study) -> Checked:
    """Fetches all that raters can fetch, and looks for what tells methods apart.

    Args:
        place: a folder of pages, or the address of a server.
        study: the study.

    Returns:
        The leaks, which are none for a study that is well blinded.

    Raises:
        DataError: the folder has no pages of this study.
        EndpointError: the server cannot be reached.
    """
    found = crawl.crawl(place, study)
    shown = [each for pages in found.pages for each in _shown(pages, study)]
    leaks = [
        *(f"{name} can be fetched and should not be" for name in found.exposed),
        *(leak for pages in found.pages for leak in _texts(pages, study)),
        *(leak for pages in found.pages for leak in _files(pages, study)),
        *_pixels(shown, study),
        *_constants(shown),
        *_names(shown),
        *_balance(shown, study),
        *_times(shown, found),
    ]
    images = sum(len(pages.images) for pages in found.pages)
    others = sum(len(pages.files) for pages in found.pages)
    return Checked(tuple(dict.fromkeys(leaks)), len(found.pages), images, others)


def _shown(pages: RaterPages, study: Study) -> Iterator[_Shown]:
    methods = {image.name: image.method for image in study.plan.images}
    for row, trial in zip(pages.sheet["trials"], trials_of(study, pages.rater), strict=False):
        for side, name in zip(SIDES, (trial.left, trial.right), strict=True):
            yield _Shown(row[side], pages.images[row[side]], methods[name], trial, side, pages.rater)


# -------------------------------------------------------------------------------------------------------- texts


def _texts(pages: RaterPages, study: Study) -> Iterator[str]:
    """A sheet has what ``blinding.sheet`` gives and nothing else: above all, no text that a rewriter wrote."""
    wanted = sheet(study, pages.rater)
    for key in sorted(pages.sheet.keys() - wanted.keys() - _OF_SERVER):
        yield f"rater {pages.rater}'s sheet has the field '{key}', which is not meant for raters"
    for key in ("title", "consent", "questions", "tie", "simulated"):
        if pages.sheet.get(key) != wanted[key]:
            yield f"rater {pages.rater}'s sheet has another {key} than the plan"
    if len(pages.sheet["trials"]) != len(wanted["trials"]):
        counts = f"{len(pages.sheet['trials'])} trials, and the plan {len(wanted['trials'])}"
        yield f"rater {pages.rater}'s sheet has {counts}"
    for number, (row, right) in enumerate(zip(pages.sheet["trials"], wanted["trials"], strict=False)):
        if row.get("prompt") != right["prompt"]:
            yield f"rater {pages.rater}'s trial {number} shows a text that is not the user's prompt"
        for key in sorted(row.keys() - right.keys()):
            yield f"rater {pages.rater}'s trial {number} has the field '{key}', which is not meant for raters"
    said = " ".join([study.plan.title, study.plan.consent, study.plan.tie or "", *study.plan.questions.values()])
    for method in study.plan.methods:
        if _method(method).search(said):
            yield f"the title, the consent, a question or the third answer names the method {method}"


def _method(name: str) -> re.Pattern[str]:
    """A method's name as a word, however its parts are joined: sem_dpo, Sem-DPO, semdpo."""
    joined = r"[\W_]*".join(re.escape(part) for part in re.split(r"[\W_]+", name) if part)
    return re.compile(rf"(?<![A-Za-z0-9]){joined}(?![A-Za-z0-9])", re.IGNORECASE)


def _files(pages: RaterPages, study: Study) -> Iterator[str]:
    """No file's name, content or header has a private name; a file that semdpo ships has none by itself."""
    plan = study.plan
    private = {f"the method {method}": _method(method) for method in plan.methods}
    for words, names in {
        "an image's name in the plan": [image.name for image in plan.images],
        "a trial's name in the plan": [trial.name for trial in plan.trials],
        "a prompt's id": list(plan.prompts),
        "the hash of a file": [image.sha256 for image in plan.images],
        "a rewrite": _rewrites(study),
        "a private folder": [str(study.folder.resolve())],
    }.items():
        if names:
            private[words] = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, sorted(set(names))))})(?!\w)")
    shipped = {page.online_page(), page.offline_page(), *(path.read_bytes() for path in page.STATIC.iterdir())}
    texts = {file.name: file.data.decode("utf-8", "replace") for file in pages.files if file.data not in shipped}
    everything: list[Fetched | FetchedImage] = [*pages.files, *pages.images.values()]
    for file in everything:
        around = " ".join([_relative(file.name), *(f"{key}: {value}" for key, value in file.facts.items())])
        said = f"{_without_ids(around, pages)} {_without_words(_without_ids(texts.get(file.name, ''), pages), study)}"
        for words, pattern in private.items():
            if pattern.search(said):
                yield f"{file.name} names {words}"
    for file in pages.files:
        if "changed" in file.facts and Path(file.name).name not in crawl.EXPECTED:
            yield f"{file.name} is no part of a rater's page"


def _relative(name: str) -> str:
    """The part of a name that raters may see: the last folders of a file, or a path of the server."""
    return name if name.startswith("/r") or name.startswith("/i/") else "/".join(Path(name).parts[-3:])


def _rewrites(study: Study) -> list[str]:
    """The texts that images were rendered from, other than the users' own prompts."""
    texts = {image.rewrite for image in study.plan.images}
    return [text for text in texts if text and text not in set(study.plan.prompts.values())]


def _without_ids(text: str, pages: RaterPages) -> str:
    """A text without the rater's public names: letters drawn at random spell a short word now and then."""
    rows = pages.sheet["trials"]
    known = {pages.sheet.get("study"), pages.sheet.get("rater"), *(row[key] for row in rows for key in ("id", *SIDES))}
    return _NAME.sub(lambda found: "" if found[0] in known else found[0], text)


def _without_words(text: str, study: Study) -> str:
    """A text without the users' prompts and the study's words, which ``_texts`` compares with the plan."""
    plan = study.plan
    known = [*plan.prompts.values(), plan.title, plan.consent, plan.tie or "", *plan.questions.values()]
    for words in sorted(filter(None, known), key=len, reverse=True):
        for form in (json.dumps(words)[1:-1], json.dumps(words, ensure_ascii=False)[1:-1]):
            text = text.replace(f'"{form}"', '""')
    return text


# ------------------------------------------------------------------------------------------------------- images


def _pixels(shown: Sequence[_Shown], study: Study) -> Iterator[str]:
    """A rater sees the image that the plan has at this place."""
    images = {image.name: image for image in study.plan.images}
    known: dict[str, str | None] = {}
    for each in shown:
        wanted = images[each.trial.left if each.side == "left" else each.trial.right].sha256
        if wanted not in known:
            known[wanted] = pixels((study.folder / "images" / f"{wanted}.png").read_bytes())
        if each.image.pixels != known[wanted]:
            yield f"{each.image.name} is not the image that the plan has on the {each.side} of trial {each.trial.name}"


def _constants(shown: Sequence[_Shown]) -> Iterator[str]:
    """What must be the same for all images: one value that differs may tell a method, or point at one image."""
    attributes: Mapping[str, Callable[[FetchedImage], str]] = {
        "length in bytes": lambda image: str(image.length),
        "kind of file": lambda image: image.form,
        "headers or time of change": lambda image: str(sorted(image.facts.items())),
    }
    for words, value in attributes.items():
        values = Counter(value(each.image) for each in shown)
        if len(values) > 1:
            by_method = {
                method: len({value(each.image) for each in shown if each.method == method})
                for method in sorted({each.method for each in shown})
            }
            counts = ", ".join(f"{method} {count}" for method, count in by_method.items())
            yield f"the images' {words} differs: {len(values)} values (by method: {counts})"
    for each in shown:
        if not each.image.form.startswith(PLAIN):
            yield f"{each.image.name} is no plain PNG ({each.image.form}): metadata may tell its method"


# -------------------------------------------------------------------------------------------------- statistics


def _names(shown: Sequence[_Shown]) -> Iterator[str]:
    """Names of images: random in form, used once, and in no order that goes with methods."""
    for each in shown:
        if not _NAME.fullmatch(each.name):
            yield f"{each.name} is no random name of an image"
    if twice := [name for name, count in Counter(each.name for each in shown).items() if count > 1]:
        yield f"{len(twice)} names of images are used more than once, so that raters can tell that images are the same"
    for words, value in {
        "alphabetical order": _ranks([each.name for each in shown]),
        "first letters": [float(ord(each.name[0])) for each in shown],
        "last letters": [float(ord(each.name[-1])) for each in shown],
    }.items():
        p = _groups([each.method for each in shown], value)
        if p < LEVEL:
            yield f"the {words} of the images' names goes with their methods (p = {p:.1g})"


def _balance(shown: Sequence[_Shown], study: Study) -> Iterator[str]:
    """Sides and positions: no method is more often on one side, or earlier."""
    compared = [each for each in shown if each.trial.kind == "comparison"]
    lefts = [each for each in compared if each.side == "left"]
    other = {(each.rater, each.trial.name): each.method for each in compared if each.side == "right"}
    sides: dict[tuple[str, str], list[bool]] = {}
    per_prompt: dict[str, list[bool]] = {}
    per_rater: dict[str, list[bool]] = {}
    for each in lefts:
        pair = sorted((each.method, other[each.rater, each.trial.name]))
        first = each.method == pair[0]
        sides.setdefault((pair[0], pair[1]), []).append(first)
        per_prompt.setdefault(f"{each.trial.prompt_id} of {' and '.join(pair)}", []).append(first)
        per_rater.setdefault(f"rater {each.rater} of {' and '.join(pair)}", []).append(first)
    for (one, two), values in sides.items():
        if (p := _coin(values)) < LEVEL:
            yield f"{one} is on the left in {sum(values)} of {len(values)} comparisons with {two} (p = {p:.1g})"
    for groups, words in ((per_prompt, "the prompt"), (per_rater, "")):
        for name, values in groups.items():
            if (p := _coin(values)) < LEVEL / len(groups):
                shown_as = f"{words} {name}".strip()
                yield f"for {shown_as}, the first is on the left in {sum(values)} of {len(values)} (p = {p:.1g})"
    if len(study.plan.methods) > 2:
        p = _groups([each.method for each in compared], [float(each.trial.position) for each in compared])
        if p < LEVEL:
            yield f"the position in a rater's order goes with the methods (p = {p:.1g})"


def _times(shown: Sequence[_Shown], found: Crawl) -> Iterator[str]:
    timed = [each for each in shown if each.name in found.seconds]
    p = _groups([each.method for each in timed], [found.seconds[each.name] for each in timed])
    if p < LEVEL:
        yield f"the time until an image is sent goes with its method (p = {p:.1g})"


def _ranks(names: Sequence[str]) -> list[float]:
    order = {name: float(place) for place, name in enumerate(sorted(names))}
    return [order[name] for name in names]


def _groups(methods: Sequence[str], values: Sequence[float]) -> float:
    """p of the Kruskal–Wallis test that a value has one distribution for all methods; 1 where nothing varies."""
    groups = [[value for each, value in zip(methods, values, strict=True) if each == method] for method in set(methods)]
    if len(groups) < 2 or len(set(values)) < 2:
        return 1.0
    return float(stats.kruskal(*groups).pvalue)


def _coin(values: Sequence[bool]) -> float:
    """p of the exact binomial test that both outcomes are as likely."""
    return float(stats.binomtest(sum(values), len(values)).pvalue)
