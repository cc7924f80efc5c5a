"""JSON from strangers: what Python's parser takes beyond the standard, or takes in silence, is refused."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from semdpo.texts import given_twice, half_character, shown
from semdpo.web.errors import RefusedError


def parse(body: bytes) -> Any:
    """The value of a JSON text (RFC 8259) in UTF-8.

    Args:
        body: The body of a request.

    Raises:
        RefusedError: It is no JSON, has NaN or Infinity, a key twice or half a character in a key, is nested too
            deeply, or has a number of thousands of digits.
    """
    if not body:
        raise _refused("the body is empty; send a JSON object")
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_object)
    except UnicodeDecodeError:
        raise _refused("the body is not UTF-8; send JSON in UTF-8") from None
    except json.JSONDecodeError as error:
        raise _refused(f"the body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise _refused("the JSON is nested too deeply; send a flat object") from None
    except ValueError:  # from int(): more digits than Python reads
        raise _refused("the JSON has a number of too many digits; shorten it") from None


def _no_constant(name: str) -> NoReturn:
    raise _refused(f"{name} is no JSON; leave the field out, or give a finite number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = given_twice(name for name, _ in pairs)
        raise _refused(f"the JSON has the key {shown(twice)} twice; give it once")
    if any(half_character(name) for name in found):
        raise _refused("a key of the JSON has half a character (a lone surrogate); remove it")
    return found


def _refused(message: str) -> RefusedError:
    return RefusedError(400, message, code="invalid_json")
