"""Recipes: what is accepted, and what an error says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from semdpo.errors import ConfigError
from semdpo.recipe.discovery import OneObjective
from semdpo.recipe.load import RECIPES, find_recipe, load_recipe, options, read_yaml
from semdpo.recipe.objectives import SemDPOSettings
from semdpo.recipe.schema import Recipe, TrainConfig
from semdpo.recipe.variants import variants


def test_the_packaged_recipe_is_valid_and_says_every_setting() -> None:
    recipe = load_recipe("tiny")
    assert recipe.folder == Path("runs/tiny")
    assert recipe.train.methods["sem_dpo"] == SemDPOSettings(name="sem_dpo", alpha=16.0)
    written = read_yaml(RECIPES / "tiny.yaml").values
    for stage in ("sft", "candidates", "pairs", "drift", "report", "prompts"):
        unsaid = set(getattr(recipe, stage).model_dump()) - set(written[stage])
        assert unsaid <= {"test_share", "system"}, f"{stage} leaves {unsaid} to defaults"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("candidates.temprature=2", "unknown key 'candidates.temprature'; did you mean 'temperature'?"),
        ("tran={}", "unknown key 'tran'; did you mean 'train'?"),
        ("sft.steps=0", "'sft.steps' is 0; it must be greater than or equal to 1"),
        ("candidates.top_p=1.5", "'candidates.top_p' is 1.5; it must be less than or equal to 1"),
        ("label.renderer.precision=half", "it must be 'auto', 'float32', 'bfloat16' or 'float16'"),
        ("label.renderer.height=9", "it must be a multiple of 8"),
        ("train.learning_rate=.nan", "'train.learning_rate' is nan; it must be a finite number"),
        ("sft.template=hello", "'sft.template': it must contain {prompt} exactly once"),
        ("train.methods.dpo.alpha=1", "unknown key 'train.methods.dpo.alpha'; alpha belongs to sem_dpo, not to dpo"),
        ("train.methods.sem_dpo.alfa=1", "unknown key 'train.methods.sem_dpo.alfa'; did you mean 'alpha'?"),
        ("train.methods.sem_dpo.alpha=-1", "'train.methods.sem_dpo.alpha': it must be a number ≥ 0, or auto, not -1"),
        ("train.methods.dpo.normalize=sum", "'train.methods.dpo.normalize' is 'sum'; it must be 'pairs' or 'mean'"),
        ("train.methods.dpo.name=dop", "'train.methods.dpo.name' is 'dop'; did you mean 'dpo'?"),
        ("train.methods.dpo={alpha: 1}", "'train.methods.dpo.name' is missing; it must be one of sft, dpo, sem_dpo"),
        ("train.methods.kto={name: kto, share: 1}", "share belongs to beta_dpo, not to kto"),
        ("train={methods: {k: {name: kto}}, batch_size: 1}", "kto compares the pairs of a batch; set batch_size"),
        ("train.lora={rank: 0}", "'train.lora.rank' is 0; it must be greater than or equal to 1"),
        ("train.methods.human={name: dpo}", "the names ['human'] mean"),
        ("train.methods.A b={name: dpo}", "'A b' cannot be a name"),
        ("evaluate.also={A b: {}}", "'A b' cannot be a name"),
        ("evaluate.also.cold.temprature=0", "unknown key 'evaluate.also.cold.temprature'; did you mean 'temperature'?"),
        ("evaluate.also.cold.num_beams=4", "beam search does not sample; set temperature to 0"),
        (
            "train.methods.dpo_sampled={name: dpo}",
            "evaluate.also.sampled makes a method 'dpo_sampled', which already exists; rename one of them",
        ),
        (
            "evaluate.rewriters={sft_sampled: {model: 'tiny:gpt2'}}",
            "evaluate.rewriters has ['sft_sampled'], which evaluate.also makes; choose other names",
        ),
        ("evaluate.metrics.distance=tiny:clip", "the names ['distance'] are other columns"),
        ("evaluate.metrics.more=tiny:clip", "must name each of evaluate.metrics"),
        ("evaluate.image_seeds=[1, 1]", "every image seed may appear only once"),
        ("evaluate.image_seeds=[0, x]", "'evaluate.image_seeds.1' is 'x'; it must be a valid integer"),
        ("prompts.file=''", "it must have at least 1 character"),
        ("label=null", "'label' is empty; it must be a mapping"),
        ("report.facts=earth", "'report.facts' is 'earth'; it must be 'tiny'"),
    ],
)
def test_a_wrong_value_is_refused_in_words(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("tiny", [override])
    assert said in str(caught.value)


def test_all_errors_are_listed_each_with_file_and_line(tmp_path: Path) -> None:
    text = (RECIPES / "tiny.yaml").read_text()
    text = re.sub(r"\n  steps: \d+\n", "\n  stepps: 200\n", text).replace("\n  top_p: 0.95\n", "\n  top_p: 7\n")
    text = text.replace("[0, 1] ", "[0, -1] ").replace("  scorer: tiny:image-reward\n", "")
    path = tmp_path / "my.yaml"
    path.write_text(text)
    lines = text.splitlines()
    with pytest.raises(ConfigError) as caught:
        load_recipe(str(path))
    said = str(caught.value).splitlines()
    number = {
        key: next(i for i, line in enumerate(lines, 1) if key in line) for key in ("stepps", "top_p: 7", "[0, -1]")
    }
    assert f"{path}, line {number['stepps']}: unknown key 'sft.stepps'; did you mean 'steps'?" in said
    assert any(f"line {number['top_p: 7']}: 'candidates.top_p' is 7" in line for line in said)
    assert any(f"line {number['[0, -1]']}: 'evaluate.image_seeds.1' is -1" in line for line in said)
    assert any("'label.scorer' is missing; add it" in line for line in said)
    assert len(said) == 4


def test_overrides_are_yaml_and_the_last_wins() -> None:
    recipe = load_recipe("tiny", ["train.learning_rate=1e-5", "prompts.limit=null", "sft.steps=3", "sft.steps=4"])
    assert recipe.train.learning_rate == 1e-5
    assert recipe.prompts.limit is None
    assert recipe.sft.steps == 4
    assert load_recipe("tiny", ["train.methods.sem_dpo.alpha=0"]).train.methods["sem_dpo"].alpha == 0
    assert load_recipe("tiny", ["train.methods.sem_dpo.alpha=auto"]).train.methods["sem_dpo"].alpha == "auto"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("steps", "must look like stage.key=value"),
        ("sft..steps=1", "must look like stage.key=value"),
        ("sft.steps.more=1", "'sft.steps' is one value and has no keys"),
        ("sft.steps=[1", "is not a YAML value"),
    ],
)
def test_a_malformed_override_is_refused(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("[", r"\[")):
        load_recipe("tiny", [override])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name: a\nname: b\n", "line 2: 'name' is given twice"),
        (b"name: a\n  b: [1\n", "this is not YAML"),
        (b"- 1\n", "it must be a mapping of names to values"),
        (b"", "it must be a mapping of names to values"),
        (b"name: \xff\n", r"is not UTF-8 \(byte 6\)"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        load_recipe(str(path))


def test_recipes_are_found_by_name_or_path() -> None:
    assert find_recipe("tiny") == RECIPES / "tiny.yaml"
    with pytest.raises(ConfigError, match="did you mean 'tiny'"):
        find_recipe("tinny")
    with pytest.raises(ConfigError, match=r"no recipe file absent\.yaml"):
        find_recipe("absent.yaml")


def test_the_report_names_methods_of_the_recipe() -> None:
    assert load_recipe("tiny", ["report.images=[human, sem_dpo]"]).report.images == ["human", "sem_dpo"]
    compared = "dpo, dpo_liked, human, sem_dpo, sft"
    shown = "dpo, dpo_liked, dpo_liked_sampled, dpo_sampled, human, sem_dpo, sem_dpo_sampled, sft, sft_sampled"
    for key, value, names in (
        ("images", "[human, kto]", shown),
        ("subject", "kto", compared),
        ("baseline", "kto", compared),
    ):
        with pytest.raises(ConfigError, match=rf"report\.{key} names 'kto', .* choose one of {names}$"):
            load_recipe("tiny", [f"report.{key}={value}"])


@pytest.mark.parametrize("name", ["drifted", "repetition", "cliches", "consistency", "facts_wrong", "popular_added"])
def test_a_column_of_every_report_is_no_metric(name: str) -> None:
    with pytest.raises(ConfigError, match="are other columns of the results"):
        load_recipe("tiny", [f"evaluate.metrics.{name}=tiny:clip"])


def test_further_decodings_add_methods_in_the_order_of_the_tables() -> None:
    recipe = load_recipe("tiny", ["evaluate.also.hot={temperature: 2}", "report.images=[human, sem_dpo, sem_dpo_hot]"])
    assert list(recipe.variants) == [
        *("sft_sampled", "dpo_sampled", "dpo_liked_sampled", "sem_dpo_sampled"),
        *("sft_hot", "dpo_hot", "dpo_liked_hot", "sem_dpo_hot"),
    ]
    added = recipe.variants["sem_dpo_hot"]
    assert (added.method, added.name) == ("sem_dpo", "hot")
    assert (added.decoding.temperature, added.decoding.max_new_tokens) == (2, 40), "other settings are the defaults"
    assert recipe.variants["dpo_sampled"].decoding == recipe.evaluate.also["sampled"]
    assert load_recipe("tiny", ["evaluate.also={}"]).variants == {}
    for key in ("subject", "baseline"):
        with pytest.raises(
            ConfigError, match=rf"report\.{key} names 'dpo_sampled', which is a method of evaluate\.also"
        ):
            load_recipe("tiny", [f"report.{key}=dpo_sampled"])
    with pytest.raises(ValueError, match=r"evaluate\.also\.c makes a method 'a_b_c', which already exists"):
        variants(["a", "a_b"], {"b_c": None, "c": None})


def test_greedy_decoding_needs_no_other_setting() -> None:
    """top_p has a default, which greedy decoding does not use."""
    assert load_recipe("tiny").evaluate.rewrite.temperature == 0
    assert load_recipe("tiny", ["evaluate.rewrite={temperature: 0}"]).evaluate.rewrite.top_p == 0.95


def test_trust_and_memory_are_no_part_of_what_a_score_depends_on() -> None:
    before, after = (
        load_recipe("tiny", [*changed]).scoring.of_results()
        for changed in ([], ["scoring.batch_size=2", "scoring.allow_remote_code=[jina-embeddings-v4]"])
    )
    assert before == after == {"precision": "float32"}
    assert load_recipe("tiny", ["scoring.precision=auto"]).scoring.of_results() != before


def test_a_set_of_prompts_is_not_called_all() -> None:
    with pytest.raises(ConfigError, match="a set called 'all'"):
        load_recipe("tiny", ["prompts.test_file=null", "prompts.test_sets={all: {file: 'tiny:tuning.jsonl'}}"])


def test_recipes_cannot_be_changed() -> None:
    recipe = load_recipe("tiny")
    with pytest.raises(ValueError, match="frozen"):
        recipe.name = "other"
    assert Recipe.model_validate(recipe.model_dump()) == recipe


def test_options_of_a_command_are_named_as_they_are_written() -> None:
    with pytest.raises(ConfigError, match=r"--batch-size: 'batch_size' is 0; it must be greater than or equal to 1"):
        options(TrainConfig, methods={"dpo": {"name": "dpo"}}, batch_size=0)
    with pytest.raises(ConfigError, match=r"--objective: 'objective.alpha': it must be a number ≥ 0, or auto, not -1"):
        options(OneObjective, objective={"name": "sem_dpo", "alpha": -1})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a [x]\nb: [*a, *a]", r"missing; add it"),
        (
            "a0: &a0 [x, x]\n" + "".join(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 40)),
            "more than 20,000 values",
        ),
        ("name: &x [*x]", "line 1: this is nested more than 32 levels deep; make it flat"),
        ("name: " + "[" * 20_000, "line 1: this is nested more than 32 levels deep"),
        ("name: x\n2024: y", "line 2: a key must be text, not '2024'; write it in quotes"),
        (
            "name: x\nsft: {steps: 2024-13-45}",
            "line 2: '2024-13-45' is not a valid timestamp; correct it, or write it in quotes",
        ),
        ("sft: {steps: 1" + "0" * 5000 + "}", "line 1: '1000.*… is not a valid int"),
        ("name: \x07", r"is not YAML \(character 6 is U\+0007\); remove it"),
    ],
)
def test_yaml_that_no_recipe_needs(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_recipe(str(tmp_path / "r.yaml"))


def test_anchors_may_be_used(tmp_path: Path) -> None:
    text = (RECIPES / "tiny.yaml").read_text("utf-8").replace("name: tiny ", "name: &word tiny ")
    (tmp_path / "r.yaml").write_text(text.replace("file: tiny:rewrites.jsonl", "file: *word"))
    assert load_recipe(str(tmp_path / "r.yaml")).sft.file == "tiny"


@pytest.mark.parametrize("setting", ["sft.steps=true", "train.beta=yes", "train.methods.sem_dpo.alpha=on"])
def test_true_is_no_number(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"is true; it must be a number, not true or false|must be a number ≥ 0"):
        load_recipe("tiny", [setting])
    assert load_recipe("tiny", ["prompts.skip_empty=yes"]).prompts.skip_empty is True
