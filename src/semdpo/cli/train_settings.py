"""What ``semdpo train`` was given: by its options, by the file of --config, and else the defaults.

The file's keys are the options' names with ``_`` for ``-``; an option of the command line wins over the file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import create_model

from semdpo.cli.objective import objective_of
from semdpo.errors import ConfigError
from semdpo.recipe.base import TEMPLATE, Positive, Settings, Text
from semdpo.recipe.load import Key, Source, assignments, options, read_yaml, validate
from semdpo.recipe.schema import TrainConfig
from semdpo.training.to_folder import Training

SEPARATE = {"methods", "lora"}  # settings of a recipe, of which the command has --objective and --lora-rank
EXAMPLE = "write settings such as `beta: 0.1`, one a line"


@dataclass(frozen=True)
class Setting:
    """A value, and how an error names the place where it was written: ``--beta`` or ``mine.yaml, line 3``."""

    value: Any
    place: str

    def named(self, name: str) -> str:
        """How a sentence begins that is about the setting."""
        return self.place if self.place.startswith("--") else f"{self.place}: '{name}'"


@dataclass(frozen=True)
class Given:
    """The settings of a training.

    Attributes:
        values: every setting, by its option's name with ``_`` for ``-``.
        written: those of them that the user gave, by option or in the file.
        own: the objective's other settings, of --set or of ``set`` in the file.
    """

    values: Mapping[str, Any]
    written: Mapping[str, Setting]
    own: Mapping[str, Setting]


def given(values: Mapping[str, Any], typed: Collection[str], assigned: Sequence[str], file: Path | None) -> Given:
    """Puts options and file together.

    Args:
        values: of all options but --set, by their names.
        typed: which of them the user gave.
        assigned: each --set.
        file: of --config.

    Raises:
        ConfigError: the file cannot be read, has an unknown key or a bad value; or a --set cannot be read or is given
            twice. A file without ``model`` or ``out`` leaves these to the options.
    """
    source = Source("", {}, {}) if file is None else _read(file)
    from_file = {k: Setting(v, source.place((k,))) for k, v in source.values.items() if v is not None and k != "set"}
    written = from_file | {name: Setting(values[name], f"--{name.replace('_', '-')}") for name in typed}
    own = _assigned(assigned)
    # One setting may have two names, such as --beta and `set: {beta: …}`: what was typed hides what the file says.
    of_file = {
        key: Setting(value, source.place(("set", key)))
        for key, value in (source.values.get("set") or {}).items()
        if key not in {*own, *typed}
    }
    for name in own.keys() & from_file.keys() - set(typed):
        del written[name]
    used = {name: written[name].value if name in written else values[name] for name in values}
    return Given(used, written, of_file | own)


def training(found: Given) -> Training:
    """The training that the settings describe.

    Raises:
        ConfigError: a value is out of range, a setting has no effect, or there is no model or output.
    """
    values = found.values
    for name in ("model", "out"):
        if values[name] is None:
            raise ConfigError(f"Missing option '--{name}'; give it, or write `{name}` into the file of --config")
    objective = objective_of(found)
    own_template = values["template"] is None
    settings = {name: values[name] for name in TrainConfig.model_fields.keys() - SEPARATE}
    settings |= {"methods": {"trained": objective.model_dump()}, "report_to": values["report_to"] or []}
    settings["template"] = TEMPLATE if own_template else values["template"]
    settings["lora"] = None if values["lora_rank"] is None else {"rank": values["lora_rank"]}
    places: dict[Key, str] = {(name,): setting.place for name, setting in found.written.items()}
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
    """Each --set, by the setting's name."""
    names = [text.partition("=")[0].strip() for text in texts]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"--set {twice[0]} is given twice; remove one")
    return {key: Setting(value, f"--set {text}") for text in texts for key, value in assignments([text]).items()}


def _read(file: Path) -> Source:
    try:
        there = file.is_file()
    except OSError as error:
        raise ConfigError(f"--config {file} cannot be read ({error.strerror}); check its name") from error
    if not there:
        raise ConfigError(f"--config {file}: there is no such file; check the path")
    source = read_yaml(file, "a file of settings", EXAMPLE)
    validate(source, _settings())
    return source


@cache
def _settings() -> type[Settings]:
    """What the file may say: every option, with the limits that recipes have for it."""
    shared = {name: (field.annotation, field) for name, field in TrainConfig.model_fields.items()}
    texts = dict.fromkeys(("model", "out", "objective", "template", "eval", "cache"), (Text | None, None))
    own = {"alpha": (Any, None), "set": (dict[str, Any] | None, None), "lora_rank": (Positive | None, None)}
    fields: dict[str, Any] = {name: each for name, each in shared.items() if name not in SEPARATE} | texts | own
    return create_model("TrainingFile", __base__=Settings, **fields)
