"""What a user asks of ``semdpo optimize``: prompts, words, lengths and a server, from options, files and stdin."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semdpo import client
from semdpo.cli.options import refuse_without_effect
from semdpo.errors import ConfigError, DataError
from semdpo.progress import say
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


def described(model: str | Path, server: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What the rewrites of a server depend on; nothing for a model that is here.

    Args:
        model: The model's name, folder or URL.
        server: How the server is asked, from ``server``.
        name: The model that answers; where the user named none, it is the only one that the server offers now.
    """
    if not server:
        return {}
    return {"url": str(model), "system": server["system"], **server["endpoint"].of_results(), "model_name": name}


def prompts(prompt: str | None, file: Path | None, column: str | None) -> list[str]:
    """The prompts of the command line, of a file or of stdin."""
    if (prompt is None) == (file is None):
        raise ConfigError("give either a prompt or --prompts FILE; - reads prompts from stdin")
    if file is not None:
        from semdpo.data.prompts import read_every_prompt

        read = read_every_prompt(file, column)
        _refuse_long(read, str(file))
        return read
    texts = _lines_of_stdin() if prompt == "-" else [prompt or ""]
    if not texts or not all(is_visible(text) for text in texts):
        raise DataError("the prompt is empty; say what the image should show")
    if prompt == "-":
        _refuse_long(texts, "stdin")
    return texts


def _refuse_long(prompts: Sequence[str], source: str) -> None:
    """Refuses a prompt that the rewriter would refuse when those before it are finished."""
    from semdpo.prompt_optimizer import LONGEST_PROMPT

    for number, text in enumerate(prompts, start=1):
        if len(text) > LONGEST_PROMPT:
            raise DataError(
                f"{source}: prompt {number} has {len(text):,} characters; shorten it to at most {LONGEST_PROMPT:,}"
            )


def _lines_of_stdin() -> list[str]:
    """The lines of stdin, as those of a .txt file, without those that are blank."""
    from semdpo.data.readers import lines_of

    try:
        text = sys.stdin.read(LARGEST + 1)
        text.encode()  # Python reads other bytes as half characters where the terminal's language is not set
    except UnicodeError as error:
        raise DataError("stdin is not UTF-8 text; convert it, for example with iconv") from error
    if len(text) > LARGEST:
        raise DataError(f"stdin has more than {LARGEST:,} characters; write the prompts to a file, and give --prompts")
    return [line for line in lines_of(text) if line.strip()]


def kept(keep: str | None, prompts: Sequence[str]) -> tuple[str, ...]:
    """The phrases of ``--keep``; one that no prompt contains is refused, or named where there are several prompts."""
    from semdpo.prompt_optimizer import LONGEST_PROMPT
    from semdpo.protected_spans import contains

    if keep is None:
        return ()
    phrases = tuple(client.phrases(keep))
    if not phrases:
        raise ConfigError("--keep names no words; give them with commas between them, or leave the option out")
    for phrase in phrases:
        if any(len(prompt) > LONGEST_PROMPT or contains(prompt, phrase) for prompt in prompts):
            continue  # the rewriter refuses one that is too long
        if len(prompts) == 1:
            raise ConfigError(f"--keep names {shown(phrase)}, which is not in the prompt; copy it from there")
        say(f"--keep names {shown(phrase)}, which is in none of the {len(prompts)} prompts; copy it from one of them")
    return phrases


def banned(words: str | None, file: Path | None) -> tuple[str, ...]:
    """The phrases of ``--banned``, and those of a file, one on each line."""
    from semdpo.data.readers import lines_of, read_text

    phrases = [] if words is None else client.phrases(words)
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
