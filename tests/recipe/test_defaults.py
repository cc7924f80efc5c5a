"""One default for each setting: of recipes, of the command line, and of Python."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest
from pydantic import BaseModel

from semdpo.analysis.audit import audit
from semdpo.analysis.drift import measure, weigh
from semdpo.cli.audit import audit as audit_command
from semdpo.cli.report import report as report_command
from semdpo.cli.train import train as train_command
from semdpo.cli.weigh import weigh as weigh_command
from semdpo.cli.weigh import weigh_file
from semdpo.models.renderer import load_renderer
from semdpo.models.rewriter import Decoding
from semdpo.models.scorers.registry import load_scorer
from semdpo.models.text_encoder import load_text_encoder
from semdpo.prompt_optimizer import DEFAULT_ENCODER, PromptOptimizer
from semdpo.recipe import defaults, trackers
from semdpo.recipe.label import LabelConfig
from semdpo.recipe.models import DecodingConfig, LoRAConfig, RendererConfig, ScoringConfig
from semdpo.recipe.objectives import SemDPOSettings
from semdpo.recipe.pairs import DriftConfig
from semdpo.recipe.report import ReportConfig
from semdpo.recipe.schema import SFTConfig, TrainConfig
from semdpo.training.trainer import ExampleTrainer

ABSENT = inspect.Parameter.empty


def _of_function(function: Any) -> dict[str, Any]:
    known = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in known if each.default is not ABSENT}


def _of_settings(model: type[BaseModel]) -> dict[str, Any]:
    return {name: each.default for name, each in model.model_fields.items() if not each.is_required()}


@pytest.mark.parametrize(
    ("settings", "function"),
    [
        (TrainConfig, train_command),
        (TrainConfig, ExampleTrainer.__init__),
        (SemDPOSettings, weigh_command),
        (SemDPOSettings, audit_command),
        (DriftConfig, weigh_command),
        (DriftConfig, measure),
        (DriftConfig, weigh),
        (DriftConfig, load_text_encoder),
        (ReportConfig, report_command),
        (RendererConfig, load_renderer),
        (ScoringConfig, load_scorer),
        (LabelConfig, load_renderer),
    ],
)
def test_options_and_settings_of_one_name_have_one_default(settings: type[BaseModel], function: Any) -> None:
    written, given = _of_settings(settings), _of_function(function)
    shared = written.keys() & given.keys()
    # What a command takes as None, or a run's own lists, stands for "not given".
    differ = {name: (written[name], given[name]) for name in shared if given[name] not in (written[name], None)}
    assert not differ
    assert shared


def test_decoding_is_the_same_in_recipes_and_in_python() -> None:
    of_python = {each.name: each.default for each in dataclasses.fields(Decoding)}
    assert of_python == {name: _of_settings(DecodingConfig)[name] for name in of_python}


def test_every_option_of_train_has_a_setting_of_its_name() -> None:
    """So that the comparison above leaves none out."""
    own = {"context", "pairs", "model", "out", "config", "eval_", "objective", "alpha", "set_", "lora_rank", "cache"}
    assert inspect.signature(train_command).parameters.keys() - own == TrainConfig.model_fields.keys() - {
        "methods",
        "lora",
    }


def test_the_others() -> None:
    assert _of_function(weigh_command)["encoder"] == _of_function(audit_command)["encoder"] == DEFAULT_ENCODER
    assert _of_function(train_command)["objective"] == defaults.OBJECTIVE
    assert _of_function(PromptOptimizer.from_pretrained)["candidates"] == _of_function(PromptOptimizer)["candidates"]
    assert LoRAConfig(rank=3).alpha == LoRAConfig().alpha == 32, "--lora-rank gives a rank and nothing else"
    assert (SFTConfig.model_fields["seed"].default, SFTConfig.model_fields["template"].default) == (
        TrainConfig.model_fields["seed"].default,
        TrainConfig.model_fields["template"].default,
    )
    assert "alpha" not in _of_function(audit), "which has no default of its own"
    assert "alpha" not in _of_function(weigh_file)


def test_trackers_are_those_of_the_trainer() -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    assert trackers.TRACKERS.keys() == INTEGRATION_TO_CALLBACK.keys()
