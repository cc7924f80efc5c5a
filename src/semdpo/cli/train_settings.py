"""The settings of ``semdpo train``: from its options, from the file of --config, or else the defaults.

The file's keys are the options' names with ``_`` for ``-``. Options on the command line take precedence over the file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import create_model

from semdpo.cli.given import Given, Setting
from semdpo.cli.objective import objective_of
from semdpo.errors import ConfigError
from semdpo.recipe.base import TEMPLATE, Positive, Settings, Text
from semdpo.recipe.load import Key, Source, assignments, options, read_yaml, validate
from semdpo.recipe.schema import TrainConfig
from semdpo.texts import given_twice
from semdpo.training.to_folder import Training

SEPARATE = {"methods", "lora"}  # a recipe's settings that the command has as --objective and --lora-rank
EXAMPLE = "write settings such as `beta: 0.1`, one a line"


def collect(values: Mapping[str, Any], typed: Collection[str], assigned: Sequence[str], file: Path | None) -> Given:
    """Combines the options with the file. A file without ``model`` or ``out`` leaves these to the options.

    Args:
        values: The values of all options but --set, by name.
        typed: The names of the options that the user typed.
        assigned: The texts of all --set options.
        file: The file of --config, if any.

    Raises:
        ConfigError: The file cannot be read, or has an unknown key or a bad value; or a --set cannot be read or is
            given twice.
    """
    source = Source("", {}, {}) if file is None else _read(file)
    from_file = {k: Setting(v, source.place((k,))) for k, v in source.values.items() if v is not None and k != "set"}
    written = from_file | {name: Setting(values[name], f"--{name.replace('_', '-')}") for name in typed}
    own = _assigned(assigned)
    # One setting may have two names, such as --beta and `set: {beta: …}`: the command line hides the file's value.
    of_file = {
        key: Setting(value, source.place(("set", key)))
        for key, value in (source.values.get("set") or {}).items()
        if key not in {*own, *typed}
    }
    for name in own.keys() & from_file.keys() - set(typed):
        del written[name]
    used = {name: written[name].value if name in written else values[name] for name in values}
    return Given(used, written, of_file | own)


def training_of(given: Given) -> Training:
    """The training that the settings describe.

    Raises:
        ConfigError: A value is out of range, a setting has no effect, or the model or the output is missing.
    """
    values = given.values
    for name in ("model", "out"):
        if values[name] is None:
            raise ConfigError(f"Missing option '--{name}'; give it, or write `{name}` into the file of --config")
    objective = objective_of(given)
    own_template = values["template"] is None and values["system"] is None
    settings = {name: values[name] for name in TrainConfig.model_fields.keys() - SEPARATE}
    settings |= {"methods": {"trained": objective.model_dump()}, "report_to": values["report_to"] or []}
    settings["template"] = TEMPLATE if values["template"] is None else values["template"]
    settings["lora"] = None if values["lora_rank"] is None else {"rank": values["lora_rank"]}
    places: dict[Key, str] = {(name,): setting.place for name, setting in given.written.items()}
    places[("lora", "rank")] = places.get(("lora_rank",), "--lora-rank")
    config = options(TrainConfig, places, **settings)
    cache = values["cache"]
    return Training(
        model=values["model"],
        out=Path(values["out"]),
        objective=objective,
        config=config,
        own_template=own_template,
        held_out=values["eval"],
        cache=None if cache is None else Path(cache),
    )


def _assigned(texts: Sequence[str]) -> dict[str, Setting]:
    """The settings that --set gives, by name."""
    if twice := given_twice(text.partition("=")[0].strip() for text in texts):
        raise ConfigError(f"--set {twice} is given twice; remove one")
    return {key: Setting(value, f"--set {text}") for text in texts for key, value in assignments([text]).items()}


def _read(file: Path) -> Source:
    try:
        exists = file.exists()
    except OSError as error:
        raise ConfigError(f"--config {file} cannot be read ({error.strerror}); check its name") from error
    if not exists:
        raise ConfigError(f"--config {file}: there is no such file; check the path")
    source = read_yaml(file, "a file of settings", EXAMPLE)
    validate(source, _settings())
    return source


@cache
def _settings() -> type[Settings]:
    """The settings that the file may have: every option, with the same limits as in recipes."""
    shared = {name: (field.annotation, field) for name, field in TrainConfig.model_fields.items()}
    texts = dict.fromkeys(("model", "out", "objective", "template", "system", "eval", "cache"), (Text | None, None))
    own = {"alpha": (Any, None), "set": (dict[str, Any] | None, None), "lora_rank": (Positive | None, None)}
    fields: dict[str, Any] = {name: field for name, field in shared.items() if name not in SEPARATE} | texts | own
    return create_model("TrainingFile", __base__=Settings, **fields)
