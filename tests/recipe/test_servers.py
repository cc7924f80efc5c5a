"""Renderers and scorers behind a URL in a recipe: what is accepted, what is refused early, what results depend on."""

from __future__ import annotations

import pytest

from semdpo.errors import ConfigError
from semdpo.recipe.load import load_recipe
from semdpo.recipe.schema import Recipe

URL = "http://localhost:8000/v1"
NAMED = f"label.renderer={{model: '{URL}', endpoint: {{model_name: m}}}}"
SCORED = [f"label.scorer={URL}/", f"scoring.endpoints={{'{URL}': {{model_name: v}}}}"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (f"label.renderer={{model: '{URL}'}}", f"'{URL}' is a server; say which of its models to use with endpoint:"),
        (f"label.renderer={{model: '{URL}', endpoint: {{}}}}", "say which of its models to use with endpoint:"),
        ("label.renderer.endpoint={model_name: m}", "endpoint is for a model behind a URL, and 'tiny:sd' is none"),
        ("label.renderer={model: 'http://me:pw@host/v1', endpoint: {model_name: m}}", "'http://host/v1' is written"),
        ("label.renderer={model: 'http://host/v1?key=pw', endpoint: {model_name: m}}", "'http://host/v1' is written"),
        (f"label.renderer={{model: '{URL}/images/generations'}}", "ends with /images/generations, which is added"),
        ("label.scorer=http://host/v1", "label.scorer is the server http://host/v1; say which of its models to use"),
        ("label.scorer=http://pw@host/v1", "'http://host/v1' is written with more than host, port and path"),
        ("label.fidelity=http://host/v1", "label.fidelity is the server http://host/v1"),
        ("evaluate.metrics.clip=http://host/v1", "evaluate.metrics.clip is the server http://host/v1"),
        ("atoms={maker: rules, model: http://host/v1}", "atoms.model is the server http://host/v1; say which of its"),
        ("scoring.endpoints={a: {model_name: m}}", "endpoints has 'a', which is no URL"),
        (f"scoring.endpoints={{'{URL}': {{}}}}", f"'{URL}' is a server; say which of its models to use"),
        (f"scoring.endpoints={{'{URL}': {{model_name: m, key_env: sk-pw}}}}", "it must be the name of an environment"),
    ],
)
def test_what_is_refused(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_recipe("tiny", [override])
    assert said in str(refused.value)
    assert "pw" not in str(refused.value).removeprefix(f"--set {override}")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("precision: float16", "a renderer behind a URL takes no precision; remove it, or put what your server calls"),
        ("safety_checker: true", "takes no safety_checker"),
        ("scheduler: euler", "takes no scheduler"),
        ("tiny_vae: a/b", "takes no tiny_vae"),
        ("channels_last: true", "takes no channels_last"),
        ("compiled: true", "takes no compiled"),
        ("height: 512", "takes height and width together; give both, or none of them"),
    ],
)
def test_what_no_server_takes(setting: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_recipe("tiny", [f"evaluate.renderer={{model: '{URL}', endpoint: {{model_name: m}}, {setting}}}"])
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{prompt: a}", "it has prompt, which every request already has"),
        ("{n: 2}", "it has n, which every request already has"),
        ("{size: 512x512}", "it has size, which would not be checked; set the renderer's height and width"),
    ],
)
def test_fields_that_a_body_may_not_have(body: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_recipe("tiny", [NAMED, f"label.renderer.endpoint.body={body}"])
    assert said in str(refused.value)
    load_recipe("tiny", [NAMED, "label.renderer.endpoint.body={size: null, aspect_ratio: '1:1'}"])


def test_images_take_longer_than_texts_and_are_asked_for_one_at_a_time() -> None:
    recipe = load_recipe("tiny", [NAMED, *SCORED])
    asked = recipe.servers
    assert [(key, each.settings.timeout, each.settings.concurrency, each.draws) for key, each in asked.items()] == [
        ("label.renderer", 600, 1, True),
        ("label.scorer", 120, 8, False),
    ]
    assert recipe.label.scorer == URL, "without the slash at its end, as its settings are named"


def test_a_recipe_with_servers_survives_its_file_and_one_without_has_nothing_of_them() -> None:
    recipe = load_recipe("tiny", [NAMED, *SCORED, "label.renderer.endpoint.timeout=9"])
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
    plain = load_recipe("tiny").model_dump(mode="json")
    assert "endpoint" not in plain["label"]["renderer"]
    assert "endpoints" not in plain["scoring"]


def test_results_depend_on_what_a_server_is_asked() -> None:
    recipe = load_recipe("tiny", [NAMED, *SCORED, "label.renderer.endpoint.body={a: 1}"])
    assert recipe.label.of_results()["renderer"]["endpoint"] == {"model_name": "m", "body": {"a": 1}}
    assert recipe.label.renderer.models("label.renderer") == {}
    assert recipe.scoring.of_results("tiny:clip") == {"precision": "float32"}
    assert recipe.scoring.of_results("tiny:clip", URL) == {
        "precision": "float32",
        "endpoints": {URL: {"model_name": "v", "body": {}}},
    }
