"""Reads a recipe file, applies ``--set`` overrides and validates the recipe before any work starts."""

from __future__ import annotations

import datetime
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ValidationError

from semdpo import disk
from semdpo.errors import ConfigError, did_you_mean
from semdpo.recipe import yaml_values
from semdpo.recipe.base import NO_NUMBER
from semdpo.recipe.schema import Recipe
from semdpo.texts import printable, shown

RECIPES = Path(__file__).parent / "shipped"
SHOWN = 120  # characters of a setting that a message shows
LARGEST = 1_000_000  # bytes of a recipe; the parser would need a minute for ten million
NAMES = "of small letters, digits, '_', '-' and '.', with at most 100 characters"
START = "write one to start from with `semdpo init > mine.yaml`"
COMMAND_LINE = "the command line"
Key = tuple[str, ...]
Validated = TypeVar("Validated", bound=BaseModel)


@dataclass(frozen=True)
class Source:
    """Settings, and where each of them was written, for error messages.

    Attributes:
        file: the file's name, or ``COMMAND_LINE``.
        values: the settings, as nested mappings.
        places: key → where it was written, such as ``mine.yaml, line 7``.
    """

    file: str
    values: dict[str, Any]
    places: Mapping[Key, str]

    def place(self, key: Key) -> str:
        """Where a key, or else the mapping around it, was written: ``file, line 7`` or ``--set a.b=c``."""
        for end in range(len(key), -1, -1):
            if key[:end] in self.places:
                return self.places[key[:end]]
        return self.file


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Reads and validates a recipe.

    Args:
        name: the name of a shipped recipe (``tiny``), or the path of a YAML file.
        overrides: settings as ``a.b=value``, with the value in YAML; a later one wins.

    Returns:
        The recipe, with defaults for the settings that it leaves out.

    Raises:
        ConfigError: there is no such recipe, it is not YAML, or it has unknown keys or bad values; the message lists
            all of them, each with its line, its key and what is allowed.

    Example:
        >>> import semdpo
        >>> semdpo.load_recipe("tiny", ["train.methods.sem_dpo.alpha=2"]).train.methods["sem_dpo"].alpha
        2.0
    """
    path = find_recipe(name)
    return validate(override(read_yaml(path), overrides), Recipe)


def find_recipe(name: str) -> Path:
    """The file of a recipe: a path of a YAML file, or the name of a shipped recipe.

    Raises:
        ConfigError: there is no such file or recipe, or the file cannot be read.
    """
    path = Path(name)
    if path.suffix.lower() in {".yaml", ".yml"}:
        try:
            if path.exists():
                return path
        except OSError as error:
            raise ConfigError(
                f"{shown(name)} cannot be read ({error.strerror}); check its name and its permissions"
            ) from error
        if (elsewhere := disk.address(name)) is not None:
            raise ConfigError(f"{elsewhere} {disk.COPY_FIRST}")
        raise ConfigError(f"there is no recipe file {path}; check the path")
    try:
        return shipped_recipe(name)
    except ConfigError as error:
        raise ConfigError(f"{error} (or give the path of a .yaml file)") from None


def shipped_recipe(name: str) -> Path:
    """The file of a shipped recipe.

    Raises:
        ConfigError: there is no shipped recipe of that name.
    """
    recipes = {path.relative_to(RECIPES).with_suffix("").as_posix(): path for path in RECIPES.rglob("*.yaml")}
    if name in recipes:
        return recipes[name]
    raise ConfigError(f"unknown recipe {shown(name)}{did_you_mean(name, recipes)}")


def read_yaml(path: Path, what: str = "a recipe", cure: str = START) -> Source:
    """Reads a YAML file of settings, with the line of every key.

    Args:
        path: the file.
        what: what the file should be, for messages.
        cure: what to do if the file is something else, for messages.

    Raises:
        ConfigError: the file is not UTF-8, not YAML, not a mapping, or repeats a key; see ``yaml_values.read``.
    """
    try:
        data = disk.read(path, LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); check its name and its permissions") from error
    if len(data) > LARGEST:
        raise ConfigError(f"{path} is not {what}, because it has more than {LARGEST:,} bytes; {cure}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    content = yaml_values.read(text, str(path))
    if not isinstance(content.value, dict):
        raise ConfigError(f"{path} is not {what}: it must be a mapping of names to values; {cure}")
    return Source(str(path), content.value, {key: f"{path}, line {line}" for key, line in content.lines.items()})


def override(source: Source, overrides: Sequence[str]) -> Source:
    """Applies ``a.b=value`` overrides to settings.

    Args:
        source: the settings, which are not changed.
        overrides: the overrides; a later one wins.

    Raises:
        ConfigError: an override has no ``=``, its value is not YAML, or it sets a key in something other than a
            mapping.
    """
    values: dict[str, Any] = _copied(source.values)
    places = dict(source.places)
    for text in overrides:
        dotted, equals, written = text.partition("=")
        key = tuple(dotted.strip().split("."))
        text = printable(text) if len(text) <= SHOWN else f"{printable(text[:SHOWN])}…"
        if not equals or not all(key):
            raise ConfigError(f"--set {text} must look like stage.key=value")
        value = yaml_values.read_setting(written, f"--set {text}")
        inner = values
        for depth, part in enumerate(key[:-1], start=1):
            if inner.get(part) is None:  # a section that the file leaves out, or sets to null
                inner[part] = {}
            inner = inner[part]
            if not isinstance(inner, dict):
                raise ConfigError(
                    f"--set {text}: '{'.'.join(key[:depth])}' is one value and has no keys; set the whole value"
                )
        inner[key[-1]] = value
        places = {k: v for k, v in places.items() if k[: len(key)] != key} | {key: f"--set {text}"}
    return Source(source.file, values, places)


def assignments(texts: Sequence[str]) -> dict[str, Any]:
    """Reads ``key=value`` settings as a mapping.

    Raises:
        ConfigError: a setting has no ``=``, or its value is not YAML.
    """
    return override(Source(COMMAND_LINE, {}, {}), texts).values


def _copied(value: Any) -> Any:
    return {k: _copied(v) for k, v in value.items()} if isinstance(value, dict) else value


def validate(source: Source, model: type[Validated]) -> Validated:
    """Validates settings.

    Args:
        source: the settings, and where they were written.
        model: the class of the settings: ``Recipe``, or the settings of one stage.

    Raises:
        ConfigError: there are unknown keys or bad values; the message has one line for each.
    """
    try:
        return model.model_validate(source.values)
    except ValidationError as error:
        lines = [_sentence(dict(fault), source, model) for fault in error.errors(include_url=False)]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from error


def options(model: type[Validated], places: Mapping[Key, str] | None = None, **values: Any) -> Validated:
    """Validates the options of a command; messages name ``learning_rate`` as ``--learning-rate``.

    Args:
        model: the class of the settings.
        places: where settings were written that are not options of that name.
        values: the settings.

    Raises:
        ConfigError: there are bad values; the message has one line for each.
    """
    usual: dict[Key, str] = {(name,): f"--{name.replace('_', '-')}" for name in values}
    return validate(Source(COMMAND_LINE, values, {**usual, **(places or {})}), model)


def _sentence(error: dict[str, Any], source: Source, model: type[BaseModel]) -> str:
    """One of pydantic's errors as a sentence with the place, the key, the value and what is allowed."""
    kind = error["type"]
    parts = _untagged([str(part) for part in error["loc"]], model)
    about_key = parts[-1:] == ["[key]"]
    key = tuple(parts[:-1] if about_key else parts)
    dotted, place = printable(".".join(key)), source.place(key)
    if kind == "extra_forbidden":
        return f"{place}: unknown key '{dotted}'{_hint(key, source, model)}"
    if kind == "union_tag_not_found":
        return f"{place}: '{dotted}.name' is missing; it must be one of {', '.join(_tags(_annotation(key, model)))}"
    if kind == "union_tag_invalid":
        tags, tag = _tags(_annotation(key, model)), str(error["ctx"]["tag"])
        place = source.place((*key, "name"))
        hint = did_you_mean(tag, tags)
        return f"{place}: '{dotted}.name' is {tag!r}{hint or '; it must be one of ' + ', '.join(tags)}"
    if kind == NO_NUMBER:
        key = (*key, error["ctx"]["name"])
        return f"{source.place(key)}: '{'.'.join(key)}' is {str(error['ctx']['value']).lower()}; {error['msg']}"
    if kind == "missing":
        return f"{place}: '{dotted}' is missing; add it"
    if kind == "value_error" and not dotted and place == COMMAND_LINE:
        text = str(error["ctx"]["error"])
        return re.sub(r"\b(micro_)?batch_size\b", lambda name: f"--{name[0].replace('_', '-')}", text)
    if kind == "value_error":
        return f"{place}: {repr(dotted) + ': ' if dotted else ''}{error['ctx']['error']}"
    if about_key:
        return f"{place}: '{key[-1]}' cannot be a name; it must be {NAMES}"
    return f"{place}: '{dotted}' is {_shown(error['input'])}; {_rule(kind, error['msg'])}"


def _rule(kind: str, message: str) -> str:
    """What a value must be, in pydantic's words where they are not about Python's types."""
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return "it must be a mapping"
    if kind == "string_pattern_mismatch":
        return f"it must be {NAMES}"
    if kind in ("int_parsing", "int_parsing_size"):
        return "it must be a valid integer"
    subject, must, rule = message.partition(" should ")
    return f"it must {rule.split(', unable to')[0].split(' after validation')[0]}" if must else subject


def _shown(value: Any) -> str:
    if isinstance(value, datetime.date):
        return value.isoformat()
    return "empty" if value is None else shown(value, 200)


def _untagged(parts: list[str], model: type[BaseModel]) -> list[str]:
    """A key without the parts that pydantic adds to name a member of a union."""
    for depth in range(len(parts)):
        try:
            members = _members(_annotation(tuple(parts[:depth]), model))
        except (KeyError, IndexError):
            return parts
        if members and parts[depth] in members:
            return _untagged([*parts[:depth], *parts[depth + 1 :]], model)
    return parts


def _members(annotation: Any) -> dict[str, type[BaseModel]]:
    """The members of a union of settings, by their ``name``; empty for any other type."""
    bare = _without_none(annotation)
    if typing.get_origin(bare) not in (typing.Union, types.UnionType):
        return {}
    models = [kind for kind in typing.get_args(bare) if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return {typing.get_args(kind.model_fields["name"].annotation)[0]: kind for kind in models}


def _tags(annotation: Any) -> list[str]:
    return list(_members(annotation))


def _hint(key: Key, source: Source, model: type[BaseModel]) -> str:
    """A hint about an unknown key: a similar key, or the objective that has it."""
    inner, value = _without_none(_annotation(key[:-1], model)), source.values
    if members := _members(inner):
        for part in key[:-1]:
            value = value[part]
        if owners := [name for name, kind in members.items() if key[-1] in kind.model_fields]:
            return f"; {key[-1]} belongs to {' and '.join(owners)}, not to {value['name']}"
        inner = members[value["name"]]
    names = list(inner.model_fields) if isinstance(inner, type) and issubclass(inner, BaseModel) else []
    return did_you_mean(key[-1], names)


def _annotation(key: Key, model: type[BaseModel]) -> Any:
    """The annotated type of a key."""
    current: Any = model
    for part in key:
        bare = _without_none(current)
        if members := _members(current):  # of any member that has the key
            bare = next(kind for kind in members.values() if part in kind.model_fields)
        if isinstance(bare, type) and issubclass(bare, BaseModel):
            current = bare.model_fields[part].annotation
        else:  # dict[str, X] or list[X]
            current = typing.get_args(bare)[-1]
    return current


def _without_none(annotation: Any) -> Any:
    if typing.get_origin(annotation) is Annotated:
        return _without_none(annotation.__origin__)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        others = [a for a in typing.get_args(annotation) if a is not type(None)]
        return _without_none(others[0]) if len(others) == 1 else annotation
    return annotation
