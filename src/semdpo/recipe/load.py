"""Reads a recipe file, applies ``--set`` overrides and validates the whole before any work starts."""

from __future__ import annotations

import datetime
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ValidationError

from semdpo.errors import ConfigError, did_you_mean
from semdpo.recipe import yaml_values
from semdpo.recipe.base import NO_NUMBER
from semdpo.recipe.schema import Recipe
from semdpo.texts import printable, shown

RECIPES = Path(__file__).parent / "shipped"
SHOWN = 120  # characters of a setting in a message
LARGEST = 1_000_000  # bytes of a recipe; the parser needs a minute for ten million
START = "write one to start from with `semdpo init > mine.yaml`"
COMMAND_LINE = "the command line"
Key = tuple[str, ...]
Described = TypeVar("Described", bound=BaseModel)


@dataclass(frozen=True)
class Source:
    """Described and where each of them was written, for errors that point at the place."""

    file: str
    values: dict[str, Any]
    places: Mapping[Key, str]

    def place(self, key: Key) -> str:
        """``file, line 7`` or ``--set a.b=c``: where ``key``, or else what encloses it, was written."""
        for end in range(len(key), -1, -1):
            if key[:end] in self.places:
                return self.places[key[:end]]
        return self.file


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """A validated recipe.

    Args:
        name: a recipe of the package (``tiny``) or a path of a YAML file.
        overrides: ``a.b=value`` each, the value in YAML; a later one wins.

    Returns:
        The recipe, with defaults where it says nothing.

    Raises:
        ConfigError: no such recipe, not YAML, or any unknown key or bad value; all are listed, each with its
            line, its key and what is allowed.

    Example:
        >>> import semdpo
        >>> semdpo.load_recipe("tiny", ["train.methods.sem_dpo.alpha=2"]).train.methods["sem_dpo"].alpha
        2.0
    """
    path = find_recipe(name)
    return validate(override(read_yaml(path), overrides), Recipe)


def find_recipe(name: str) -> Path:
    """The file of a recipe: a path as it is, a bare name from the package's recipes.

    Raises:
        ConfigError: neither exists, or the file cannot be looked at.
    """
    path = Path(name)
    if path.suffix.lower() in {".yaml", ".yml"}:
        try:
            if path.is_file():
                return path
        except OSError as error:
            raise ConfigError(
                f"{shown(name)} cannot be read ({error.strerror}); check its name and its permissions"
            ) from error
        raise ConfigError(f"there is no recipe file {path}; check the path")
    try:
        return shipped_recipe(name)
    except ConfigError as error:
        raise ConfigError(f"{error} (or give the path of a .yaml file)") from None


def shipped_recipe(name: str) -> Path:
    """The file of a recipe of the package, by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    known = {path.relative_to(RECIPES).with_suffix("").as_posix(): path for path in RECIPES.rglob("*.yaml")}
    if name in known:
        return known[name]
    raise ConfigError(f"unknown recipe {shown(name)}{did_you_mean(name, known)}")


def read_yaml(path: Path, what: str = "a recipe", cure: str = START) -> Source:
    """Parses a file of settings and remembers the line of every key.

    Args:
        path: of the file.
        what: it should be, for errors.
        cure: what to do where it is none.

    Raises:
        ConfigError: not UTF-8, not YAML, not a mapping, or a key given twice; see ``yaml_values.read``.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    if len(data) > LARGEST:
        raise ConfigError(f"{path} is not {what}, for it has more than {LARGEST:,} bytes; {cure}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    found = yaml_values.read(text, str(path))
    if not isinstance(found.value, dict):
        raise ConfigError(f"{path} is not {what}: it must be a mapping of names to values; {cure}")
    return Source(str(path), found.value, {key: f"{path}, line {line}" for key, line in found.lines.items()})


def override(source: Source, overrides: Sequence[str]) -> Source:
    """Applies ``a.b=value`` overrides.

    Raises:
        ConfigError: an override without ``=``, not YAML, or one that reaches into something that is no mapping.
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
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {text}: '{'.'.join(key[:depth])}' is one value and has no keys; set it whole")
        inner[key[-1]] = value
        places = {k: v for k, v in places.items() if k[: len(key)] != key} | {key: f"--set {text}"}
    return Source(source.file, values, places)


def assignments(texts: Sequence[str]) -> dict[str, Any]:
    """``key=value`` settings as a mapping.

    Raises:
        ConfigError: one without ``=``, or not YAML.
    """
    return override(Source(COMMAND_LINE, {}, {}), texts).values


def _copied(value: Any) -> Any:
    return {k: _copied(v) for k, v in value.items()} if isinstance(value, dict) else value


def validate(source: Source, model: type[Described]) -> Described:
    """The settings that a source describes.

    Args:
        source: values, and where they were written.
        model: what they must fit: ``Recipe`` or one stage's configuration.

    Raises:
        ConfigError: one line for every unknown key and bad value.
    """
    try:
        found = model.model_validate(source.values)
    except ValidationError as error:
        lines = [_sentence(dict(each), source, model) for each in error.errors(include_url=False)]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from error
    _refuse_truths_for_numbers(source, model)
    return found


def _refuse_truths_for_numbers(source: Source, model: type[BaseModel]) -> None:
    """``steps: yes`` is not one step, as pydantic would have it."""
    for key, value in _leaves(source.values, ()):
        if isinstance(value, bool):
            annotation = _annotation(key, model)
            kinds = set(_kinds(annotation))
            if kinds & {int, float} and bool not in kinds:
                raise ConfigError(
                    f"{source.place(key)}: '{'.'.join(key)}' is {str(value).lower()}; it must be {_allowed(annotation)}"
                )


def _leaves(value: Any, key: Key) -> Iterator[tuple[Key, Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inner is None:
        yield key, value
    else:
        for name, each in inner:
            yield from _leaves(each, (*key, str(name)))


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types that a type is made of."""
    yield annotation
    for each in typing.get_args(annotation):
        yield from _kinds(each)


def options(model: type[Described], places: Mapping[Key, str] | None = None, **values: Any) -> Described:
    """Described from a command's options: ``learning_rate`` was written as ``--learning-rate``.

    Args:
        model: what they must fit.
        places: how those were written that were written in another way.
        values: the settings.

    Raises:
        ConfigError: one line for every bad value.
    """
    usual: dict[Key, str] = {(name,): f"--{name.replace('_', '-')}" for name in values}
    return validate(Source(COMMAND_LINE, values, {**usual, **(places or {})}), model)


def _sentence(error: dict[str, Any], source: Source, model: type[BaseModel]) -> str:
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
        shown = str(error["ctx"]["value"]).lower()
        return f"{source.place(key)}: '{'.'.join(key)}' is {shown}; it must be {_allowed(_annotation(key, model))}"
    if kind == "missing":
        return f"{place}: '{dotted}' is missing; add it"
    if kind == "value_error" and not dotted and place == COMMAND_LINE:
        said = str(error["ctx"]["error"])
        return re.sub(r"\b(micro_)?batch_size\b", lambda found: f"--{found[0].replace('_', '-')}", said)
    if kind == "value_error":
        return f"{place}: {repr(dotted) + ': ' if dotted else ''}{error['ctx']['error']}"
    if about_key:
        return f"{place}: '{key[-1]}' cannot be a name; use small letters, digits, '_', '-' and '.', 100 at most"
    return f"{place}: '{dotted}' is {_shown(error['input'])}; it must be {_allowed(_annotation(key, model))}"


def _shown(value: Any) -> str:
    if isinstance(value, datetime.date):
        return value.isoformat()
    return "empty" if value is None else shown(value, 200)


def _untagged(parts: list[str], model: type[BaseModel]) -> list[str]:
    """A key without the names that pydantic adds to say which member of a union it means."""
    for depth in range(len(parts)):
        try:
            members = _members(_annotation(tuple(parts[:depth]), model))
        except (KeyError, IndexError):
            return parts
        if members and parts[depth] in members:
            return _untagged([*parts[:depth], *parts[depth + 1 :]], model)
    return parts


def _members(annotation: Any) -> dict[str, type[BaseModel]]:
    """The settings that a union is made of, by their ``name``; empty for anything else."""
    bare = _without_none(annotation)
    if typing.get_origin(bare) not in (typing.Union, types.UnionType):
        return {}
    models = [each for each in typing.get_args(bare) if isinstance(each, type) and issubclass(each, BaseModel)]
    return {typing.get_args(each.model_fields["name"].annotation)[0]: each for each in models}


def _tags(annotation: Any) -> list[str]:
    return list(_members(annotation))


def _hint(key: Key, source: Source, model: type[BaseModel]) -> str:
    """What an unknown key may have been meant to be."""
    inner, value = _without_none(_annotation(key[:-1], model)), source.values
    if members := _members(inner):
        for part in key[:-1]:
            value = value[part]
        if owners := [name for name, each in members.items() if key[-1] in each.model_fields]:
            return f"; {key[-1]} belongs to {' and '.join(owners)}, not to {value['name']}"
        inner = members[value["name"]]
    known = list(inner.model_fields) if isinstance(inner, type) and issubclass(inner, BaseModel) else []
    return did_you_mean(key[-1], known)


def _annotation(key: Key, model: type[BaseModel]) -> Any:
    """The annotated type of a key, with its limits."""
    current: Any = model
    for part in key:
        bare = _without_none(current)
        if members := _members(current):  # a key of any of them, for none is named like another's with other limits
            bare = next(each for each in members.values() if part in each.model_fields)
        if isinstance(bare, type) and issubclass(bare, BaseModel):
            field = bare.model_fields[part]
            current = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
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


WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
LIMITS = {"gt": "> {}", "ge": "≥ {}", "lt": "< {}", "le": "≤ {}", "multiple_of": "a multiple of {}"}


def _allowed(annotation: Any) -> str:
    """Words for what a setting may be, e.g. ``a number, > 0 and ≤ 1``."""
    if tags := _tags(annotation):
        return f"a mapping whose name is one of {', '.join(tags)}"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        if typing.get_origin(arguments[0]) in (dict, list, tuple, typing.Union, types.UnionType):
            return _collection(arguments[0], _shortest(annotation.__metadata__))
        limits = [limit for metadata in annotation.__metadata__ for limit in _limits(metadata)]
        if arguments[0] is str and limits:
            limits = (
                ["not empty"] if "≥ 1 long" in limits else ["of small letters, digits, '_', '-' and '.', 100 at most"]
            )
        words = _allowed(arguments[0])
        return f"{words}, {' and '.join(limits)}" if limits else words
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys("null" if a is type(None) else _allowed(a) for a in arguments))
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (dict, list, tuple):
        return _collection(annotation)
    return WORDS.get(annotation, "a mapping")


def _collection(annotation: Any, shortest: int = 0) -> str:
    """Words for a list, a mapping, or one of these that may be null as well."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        others = [a for a in typing.get_args(annotation) if a is not type(None)]
        return " or ".join(dict.fromkeys([*(_collection(each, shortest) for each in others), "null"]))
    entries = f" with at least {shortest} {'entry' if shortest == 1 else 'entries'}" if shortest else ""
    kinds = {dict: "a mapping of names", list: "a list", tuple: "a list"}
    kind = kinds.get(typing.get_origin(annotation))
    return _allowed(annotation) if kind is None else f"{kind}{entries}"


def _shortest(metadata: Sequence[Any]) -> int:
    inner = [each for one in metadata for each in getattr(one, "metadata", [one])]
    return max((getattr(each, "min_length", None) or 0 for each in inner), default=0)


def _limits(metadata: Any) -> Iterator[str]:
    for inner in getattr(metadata, "metadata", [metadata]):  # pydantic's Field inside Annotated nests them
        for name, words in LIMITS.items():
            if getattr(inner, name, None) is not None:
                yield words.format(getattr(inner, name))
        if getattr(inner, "min_length", None) is not None:
            yield f"≥ {inner.min_length} long"
        if getattr(inner, "pattern", None) is not None:
            yield "of a pattern"
