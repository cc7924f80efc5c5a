"""What a user asks of ``semdpo optimize``: prompts, words, lengths and a server, from options, files and stdin."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semdpo.cli.options import refuse_without_effect
from semdpo.errors import ConfigError, DataError
from semdpo.texts import is_visible, shown

if TYPE_CHECKING:
    from semdpo.prompt_optimizer import Request
    from semdpo.recipe.endpoints import ImageEndpointConfig

LARGEST = 100_000_000  # characters that are read from stdin, which may never end
LONGEST_PHRASE = 1000  # characters
MOST_PHRASES = 10_000  # each is looked for in every rewrite
DIGITS = 18  # of a number; Python does not read thousands of them


def server(model: str | None, model_name: str | None, key_env: str | None, system: str | None) -> Mapping[str, Any]:
    """How a server is asked; nothing for a model that is here."""
    from semdpo.recipe.endpoints import EndpointConfig, is_url
    from semdpo.recipe.load import options

    given = {"--model-name": model_name, "--key-env": key_env, "--system": system}
    if model is None or not is_url(model):
        refuse_without_effect(given, "without a URL as --model")
        return {}
    settings = {"model_name": model_name, "key_env": key_env}
    named: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
    endpoint = options(EndpointConfig, None, **named)
    return {"endpoint": endpoint, "system": system}


def image_server(renderer: str | None, name: str | None, key_env: str | None) -> ImageEndpointConfig | None:
    """How a server of images is asked; None for a renderer that is here."""
    from semdpo.recipe.endpoints import ImageEndpointConfig, is_url
    from semdpo.recipe.load import options

    given = {"--renderer-name": name, "--renderer-key-env": key_env}
    if renderer is None or not is_url(renderer):
        refuse_without_effect(given, "without a URL as --renderer")
        return None
    settings = {"model_name": name, "key_env": key_env}
    named: dict[str, Any] = {key: value for key, value in settings.items() if value is not None}
    return options(ImageEndpointConfig, dict(zip((("model_name",), ("key_env",)), given, strict=True)), **named)


def described(model: str | Path, server: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the rewrites of a server depend on; nothing for a model that is here."""
    return {"url": str(model), "system": server["system"], **server["endpoint"].of_results()} if server else {}


def prompts(prompt: str | None, file: Path | None, column: str | None) -> list[str]:
    """The prompts of the command line, of a file or of stdin."""
    if (prompt is None) == (file is None):
        raise ConfigError("give either a prompt or --prompts FILE; - reads prompts from stdin")
    if file is not None:
        from semdpo.data.prompts import read_every_prompt
        from semdpo.prompt_optimizer import LONGEST_PROMPT

        read = read_every_prompt(file, column)
        for number, text in enumerate(read, start=1):
            if len(text) > LONGEST_PROMPT:
                raise DataError(
                    f"{file}: prompt {number} has {len(text):,} characters; shorten it to at most {LONGEST_PROMPT:,}"
                )
        return read
    texts = _lines_of_stdin() if prompt == "-" else [prompt or ""]
    if not texts or not all(is_visible(text) for text in texts):
        raise DataError("the prompt is empty; say what the image should show")
    return texts


def _lines_of_stdin() -> list[str]:
    """The lines of stdin, without those that are blank."""
    try:
        text = sys.stdin.read(LARGEST + 1)
        text.encode()  # Python reads other bytes as half characters where the terminal's language is not set
    except UnicodeError as error:
        raise DataError("stdin is not UTF-8 text; convert it, for example with iconv") from error
    if len(text) > LARGEST:
        raise DataError(f"stdin has more than {LARGEST:,} characters; write the prompts to a file, and give --prompts")
    return [line for line in text.splitlines() if line.strip()]


def kept(keep: str | None, prompt: str | None) -> tuple[str, ...]:
    """The phrases of ``--keep``; each must be in the prompt, if there is one."""
    from semdpo.prompt_optimizer import LONGEST_PROMPT
    from semdpo.protected_spans import contains

    if keep is None:
        return ()
    phrases = tuple(phrase.strip() for phrase in keep.split(",") if phrase.strip())
    if not phrases:
        raise ConfigError("--keep names no words; give them with commas between them, or leave the option out")
    if prompt is None or len(prompt) > LONGEST_PROMPT:  # which the rewriter refuses
        return phrases
    for phrase in phrases:
        if not contains(prompt, phrase):
            raise ConfigError(f"--keep names {shown(phrase)}, which is not in the prompt; copy it from there")
    return phrases


def banned(words: str | None, file: Path | None) -> tuple[str, ...]:
    """The phrases of ``--banned``, and those of a file, one on each line."""
    from semdpo.data.readers import lines_of, read_text

    phrases = [] if words is None else [phrase.strip() for phrase in words.split(",")]
    if file is not None:
        listed = [line.strip() for line in lines_of(read_text(file))]
        if too_long := [k for k, phrase in enumerate(listed, start=1) if len(phrase) > LONGEST_PHRASE]:
            raise DataError(
                f"{file}, line {too_long[0]}: the line has more than {LONGEST_PHRASE:,} characters; write one word or "
                "phrase on each"
            )
        phrases += listed
    phrases = [phrase for phrase in phrases if phrase]
    if len(phrases) > MOST_PHRASES:
        raise DataError(f"{file} and --banned have {len(phrases):,} phrases; give at most {MOST_PHRASES:,}")
    if not phrases and (words is not None or file is not None):
        raise ConfigError("--banned names no words; give some, or leave the option out")
    return tuple(phrases)


def length(text: str | None) -> str | int | None:
    """``--length`` as a number where it is one."""
    is_number = text is not None and text.strip().isdecimal() and len(text.strip()) <= DIGITS
    return int(text) if text is not None and is_number else text


def digest(requests: Sequence[Request]) -> str:
    """A hash of all that is asked."""
    from semdpo.data.records import content_id

    return content_id(*(json.dumps(asdict(request)) for request in requests))
