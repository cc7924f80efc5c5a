"""Reads YAML strictly: a text that no recipe needs is refused with its line, before Python values are made of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from semdpo.errors import ConfigError
from semdpo.texts import half_character, printable, shown

Key = tuple[str, ...]
DEEPEST = 32
MOST = 20_000  # values, with aliases counted at each use: nine lines of aliases can expand to a billion values
TEXT = "tag:yaml.org,2002:str"
MERGE = "tag:yaml.org,2002:merge"


class _TooDeep(yaml.MarkedYAMLError):
    """The text is nested too deep; raised while it is read, because the parser's time grows with the depth squared."""


class _Loader(yaml.SafeLoader):
    """A safe loader that stops as soon as a text is nested too deep."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEEPEST + 1:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise _TooDeep(problem=f"nested more than {DEEPEST} levels deep", problem_mark=mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


# ``4e0`` and ``1e-4`` are numbers in YAML 1.2, but PyYAML reads them as text.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


@dataclass(frozen=True)
class Read:
    """The value that was read, and the line of each of its keys."""

    value: Any
    lines: dict[Key, int]


def read(text: str, place: str) -> Read:
    """Reads the value of a YAML text.

    Args:
        text: the YAML text.
        place: the text's source, for messages.

    Raises:
        ConfigError: the text is not YAML, is nested too deep, is too large with its aliases expanded, has a key that
            is not text or appears twice, half a character, or a value that cannot be read.
    """
    try:
        node = _Loader(text).get_single_node()
    except _TooDeep as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{place}, line {line}: this is {error.problem}; make it flat") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{place}, line {line}: this is not YAML ({_one_line(error.problem)}); correct it") from error
    except yaml.reader.ReaderError as error:
        raise ConfigError(
            f"{place} is not YAML (character {error.position} is U+{_code(error.character):04X}); remove it"
        ) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ConfigError(f"{place} is not YAML ({_one_line(error)}); correct it") from error
    if node is None:
        return Read(None, {})
    lines = _lines_of_keys(node, place)
    for scalar in _scalars(node):
        if half := half_character(scalar.value):
            line = scalar.start_mark.line + 1
            raise ConfigError(f"{place}, line {line}: this holds half a character ({half}); write the whole character")
    return Read(_value_of(node, place), lines)


def read_setting(text: str, place: str) -> Any:
    """Reads the value of one ``--set``.

    Raises:
        ConfigError: see ``read``.
    """
    try:
        return read(text, place).value
    except ConfigError as error:
        if "not YAML" not in str(error):
            raise
        raise ConfigError(f"{place}: {shown(text)} is not a YAML value; quote it") from error


def _lines_of_keys(node: yaml.Node, place: str) -> dict[Key, int]:
    """The line of each key of a tree; a tree that is too large or too deep, or repeats a key, is refused."""
    lines: dict[Key, int] = {}
    for count, (key, line, depth) in enumerate(_keys(node, (), 0, place)):
        if count > MOST:
            raise ConfigError(f"{place} has more than {MOST:,} values, aliases counted; write a smaller recipe")
        if depth > DEEPEST:
            raise ConfigError(f"{place}, line {line}: this is nested more than {DEEPEST} levels deep; make it flat")
        if key in lines and key[-1] != "<<":
            raise ConfigError(f"{place}, line {line}: '{printable('.'.join(key))}' is given twice; remove one")
        lines[key] = line
    return lines


def _keys(node: yaml.Node, key: Key, depth: int, place: str) -> Iterator[tuple[Key, int, int]]:
    """Every key of a tree with its line and depth; the keys of a list are the numbers of its entries."""
    inner: list[tuple[str, int, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        inner = [(_name(name, place), name.start_mark.line + 1, value) for name, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        inner = [(str(index), value.start_mark.line + 1, value) for index, value in enumerate(node.value)]
    for name, line, value in inner:
        yield (*key, name), line, depth + 1
        yield from _keys(value, (*key, name), depth + 1, place)


def _name(node: yaml.Node, place: str) -> str:
    if isinstance(node, yaml.ScalarNode) and node.tag in (TEXT, MERGE):
        return str(node.value)
    value = shown(node.value) if isinstance(node, yaml.ScalarNode) else "a list or mapping"
    line = node.start_mark.line + 1
    raise ConfigError(f"{place}, line {line}: a key must be text, not {value}; write it in quotes")


def _value_of(node: yaml.Node, place: str) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(
            f"{place}, line {line}: this value cannot be read ({_one_line(error.problem)}); correct it"
        ) from error
    except (ValueError, TypeError, OverflowError, AttributeError, LookupError, RecursionError) as error:
        # An impossible date, a number with thousands of digits, or a value that does not fit its tag.
        bad = next((scalar for scalar in _scalars(node) if not _can_be_read(scalar)), node)
        value = bad.value if isinstance(bad, yaml.ScalarNode) else error
        raise ConfigError(
            f"{place}, line {bad.start_mark.line + 1}: {shown(value)} is not a valid {bad.tag.rpartition(':')[2]}; "
            "correct it, or write it in quotes"
        ) from error
    finally:
        loader.dispose()


def _scalars(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    if isinstance(node, yaml.ScalarNode):
        yield node
    elif isinstance(node, yaml.CollectionNode):
        for entry in node.value:
            for inner in entry if isinstance(entry, tuple) else (entry,):
                yield from _scalars(inner)


def _can_be_read(node: yaml.ScalarNode) -> bool:
    try:
        yaml.SafeLoader("").construct_document(node)
    except (ValueError, TypeError, OverflowError, AttributeError, LookupError, yaml.YAMLError):
        return False
    return True


def _one_line(error: object) -> str:
    return printable(" ".join(str(error).split()))[:200]


def _code(character: object) -> int:
    return character if isinstance(character, int) else ord(str(character)[0])
