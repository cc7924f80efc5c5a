"""Small studies with random images, and servers for them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from starlette.types import ASGIApp

from semdpo.study import server
from semdpo.study.app import build, organiser_id
from semdpo.study.blinding import rater_id, sheet, study_id
from semdpo.study.design import Analysis, Exclusion, Plan, StudyImage, Trial
from semdpo.study.plan import Study, read_study, write_study
from semdpo.study.votes import VoteStore
from semdpo.web.listening import listen, url

PATIENCE = 120  # seconds; what takes longer hangs
METHODS = ("sem_dpo", "dpo")
QUESTIONS = {"match": "Which image shows better what was asked for?"}
THREE = {
    **QUESTIONS,
    "prefer": "Which image do you like more?",
    "artefacts": "Which image has fewer visible errors?",
}
CONSENT = "You take part of your own will.\n\nWe store your answers, and no name."
PROMPTS = ("a red ball on a table", 'two cats <b>asleep</b> & "quiet"', "a very small house", "a blue boat at dawn")


def png(seed: int, size: tuple[int, int] = (48, 48)) -> bytes:
    """A random image: smooth for even seeds, noise for odd ones, so that PNGs compress differently."""
    generator = np.random.default_rng(seed)
    pixels = (
        generator.integers(0, 256, (size[1], size[0], 3), np.uint8) // (1 if seed % 2 else 64) * (1 if seed % 2 else 64)
    )
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def make(
    folder: Path,
    *,
    raters: int = 3,
    prompts: int = 4,
    questions: dict[str, str] | None = None,
    tie: str | None = "Cannot tell",
    left: float = 0.5,
    **more: Any,
) -> Study:
    """A study of two methods in a folder; each rater sees each prompt once, in an order of their own.

    Args:
        left: the share of trials with the first method on the left; 0.5 balances each rater and prompt.
    """
    texts = {
        f"p{index:04d}": PROMPTS[index % len(PROMPTS)] + (f" {index}" if index >= 4 else "") for index in range(prompts)
    }
    images, files = [], {}
    for index, prompt in enumerate(texts):
        for number, method in enumerate(METHODS):
            data = png(2 * index + number)
            sha = hashlib.sha256(data).hexdigest()
            files[sha] = data
            images.append(
                StudyImage(
                    f"i{2 * index + number:04d}",
                    method,
                    prompt,
                    image_seed=7,
                    rewrite=f"{texts[prompt]}, style {number}",
                    sha256=sha,
                )
            )
    trials = []
    for rater in range(raters):
        order = list(range(prompts))
        random.Random(rater).shuffle(order)
        for position, index in enumerate(order):
            sides = [f"i{2 * index:04d}", f"i{2 * index + 1:04d}"]
            balanced = (index + rater) % 2 == 0
            if not (balanced if left == 0.5 else random.Random(100 * rater + index).random() < left):
                sides.reverse()
            trials.append(
                Trial(f"t{len(trials):05d}", rater, position, "comparison", f"p{index:04d}", sides[0], sides[1])
            )
    plan = Plan(
        title="Comparing images", seed=1, methods=METHODS, questions=QUESTIONS if questions is None else questions,
        tie=tie, prompts=texts, images=tuple(images), trials=tuple(trials), raters=raters, exclusion=Exclusion(),
        analysis=Analysis(), inputs={}, size=(48, 48), consent=CONSENT, **more,
    )  # fmt: skip
    write_study(folder, plan, files)
    return read_study(folder)


@dataclass(frozen=True)
class Served:
    """A study that a server in a thread serves."""

    url: str
    study: Study
    store: VoteStore

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return httpx.request(method, self.url + path, timeout=PATIENCE, trust_env=False, **more)

    def link(self, rater: int) -> str:
        return f"/r/{rater_id(self.study, rater)}"

    @property
    def organiser(self) -> str:
        return f"/o/{organiser_id(self.study)}"

    def consent(self, rater: int) -> httpx.Response:
        return self.ask("POST", f"{self.link(rater)}/consent", json={"agreed": True})

    def vote(self, rater: int, body: dict[str, Any]) -> httpx.Response:
        return self.ask("POST", f"{self.link(rater)}/votes", json=body)


def body(study: Study, rater: int, trial: int = 0, choice: str = "left", **more: Any) -> dict[str, Any]:
    """What a page sends for one of a rater's trials."""
    shown = sheet(study, rater)["trials"][trial]
    answer = f"answer-{rater:04d}-{trial:04d}-{more.get('question', 'match')}"
    sides = {side: shown[side] for side in ("left", "right")}
    return {
        "answer": answer,
        "trial": shown["id"],
        "question": "match",
        "choice": choice,
        **sides,
        "seconds": 2.5,
        **more,
    }


@contextlib.contextmanager
def running(application: ASGIApp) -> Iterator[str]:
    """The address of a real server of an application."""
    with listen("127.0.0.1", 0) as listening:
        started = server.server(application)
        thread = threading.Thread(target=started.run, kwargs={"sockets": [listening]})
        thread.start()
        end = time.monotonic() + PATIENCE
        while not started.started:
            assert time.monotonic() < end
            time.sleep(0.01)
        try:
            yield url(listening)
        finally:
            started.should_exit = True
            thread.join(PATIENCE)
    assert not thread.is_alive()


@contextlib.contextmanager
def served(study: Study, around: Callable[[ASGIApp], ASGIApp] = lambda app: app) -> Iterator[Served]:
    """A real server of a study; what is put around its application may spoil its answers."""
    store = VoteStore(study.folder, study_id(study))
    try:
        with running(around(build(study, store))) as address:
            yield Served(address, study, store)
    finally:
        store.close()
