"""What only the script of AUTOMATIC1111's web UI and Forge does."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integrations.host_programs import ROOT, Processing, a1111_script
from tests.integrations.stub_server import ADDED, StubServer, failure

PROMPT = "a red ball"


@pytest.fixture
def script() -> Any:
    return a1111_script(ROOT / "a1111/semdpo_rewrite.py")


def test_the_controls_are_the_arguments(script: Any, server: StubServer) -> None:
    controls = script.ui(is_img2img=False)
    values = [control.value for control in controls]
    assert values == [False, "http://127.0.0.1:7331", "", "auto", -1, 0, "", "SEMDPO_TOKEN"]
    assert len({control.elem_id for control in controls}) == len(controls)
    values[:2] = [True, server.url]
    p = Processing(PROMPT)
    script.before_process(p, *values)
    assert p.prompt == PROMPT + ADDED


def test_a_null_of_the_api_is_an_unset_value(script: Any, server: StubServer) -> None:
    p = Processing(PROMPT)
    script.before_process(p, True, server.url, None, None, None, None, None, None)
    assert p.prompt == PROMPT + ADDED


def test_nothing_happens_unless_it_is_switched_on(script: Any, server: StubServer) -> None:
    p = Processing(PROMPT)
    script.before_process(p)
    script.before_process(p, False, server.url)
    assert (p.prompt, p.extra_generation_params, p.comments, server.asked) == (PROMPT, {}, {}, [])


def test_the_users_prompt_is_written_into_the_image(script: Any, server: StubServer) -> None:
    p = Processing(PROMPT)
    script.before_process(p, True, server.url)
    assert p.infotext(0) == {"semdpo original": PROMPT, "semdpo drift": "0.125"}
    assert p.comments == {}


def test_a_rewrite_is_not_rewritten(script: Any, server: StubServer) -> None:
    """Loopback processes the same images again and again, with the prompt that they have by then."""
    p = Processing(PROMPT)
    for _ in range(3):
        script.before_process(p, True, server.url)
    assert (p.prompt, len(server.asked)) == (PROMPT + ADDED, 1)
    p.prompt = "a cat"
    script.before_process(p, True, server.url)
    assert p.prompt == "a cat" + ADDED


def test_one_prompt_an_image(script: Any, server: StubServer) -> None:
    prompts = [PROMPT, "a cat", PROMPT]
    p = Processing(prompts)
    script.before_process(p, True, server.url)
    assert p.prompt == [prompt + ADDED for prompt in prompts]
    assert prompts == [PROMPT, "a cat", PROMPT]
    assert [asked.body["prompt"] for asked in server.asked] == [PROMPT, "a cat"]
    assert [p.infotext(image)["semdpo original"] for image in range(3)] == prompts


def test_of_several_prompts_one_may_fail(script: Any, server: StubServer) -> None:
    answer = server.answer
    server.answer = lambda asked: failure(400, "no cats") if "cat" in asked.body["prompt"] else answer(asked)
    p = Processing([PROMPT, "a cat"])
    script.before_process(p, True, server.url)
    assert p.prompt == [PROMPT + ADDED, "a cat"]
    assert p.infotext(0)["semdpo original"] == PROMPT
    assert p.infotext(1) == {}
    assert len(p.comments) == 1
    assert next(iter(p.comments)).endswith("answers 400: no cats")


def test_an_image_that_is_read_back_switches_it_off(script: Any) -> None:
    """Its prompt is the rewrite, so that the same image is made again."""
    enabled = script.ui(is_img2img=True)[0]
    ((component, value),) = script.infotext_fields
    assert component is enabled
    assert value({"Prompt": "x", "semdpo original": "y"}) is False
    assert value({"Prompt": "x"}) is None


@pytest.mark.parametrize("prompt", ["", " "])
def test_an_empty_prompt_stays(script: Any, server: StubServer, prompt: str) -> None:
    p = Processing(prompt)
    script.before_process(p, True, server.url)
    assert (p.prompt, server.asked) == (prompt, [])
