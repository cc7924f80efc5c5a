"""``semdpo serve``: rewrites prompts over HTTP."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semdpo import extras
from semdpo.cli.closing import DEMO
from semdpo.cli.options import number
from semdpo.errors import ConfigError, StoreError
from semdpo.progress import say

if TYPE_CHECKING:
    from semdpo.serve.contract import Optimizer
    from semdpo.serve.settings import Settings

TOKEN = "SEMDPO_TOKEN"
_NAMED = re.compile(r"([\w.-]+)=(.+)")


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]DIR", help="A trained rewriter; repeatable. By default, the demo's Sem-DPO and DPO models."
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="The text encoder; by default, the one that measured the drift of the training pairs."),
    ] = None,
    renderer: Annotated[str | None, typer.Option(help="A text-to-image model, for /v1/render and the page.")] = None,
    host: Annotated[str, typer.Option(help="The address to listen on; all but this machine's need a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes any that is free.")] = 7331,
    token_env: Annotated[
        str | None, typer.Option(help="The variable that holds the clients' token.", show_default=TOKEN)
    ] = None,
    max_drift: Annotated[float | None, typer.Option(help="Keep the prompt if its rewrite drifts farther.")] = None,
    queue: Annotated[int, typer.Option(help="Most requests that wait; more are answered 429.")] = 64,
    batch: Annotated[int, typer.Option(help="Most requests that a model does at a time.")] = 16,
    time_limit: Annotated[float, typer.Option(help="Seconds after which a request is answered 504.")] = 60,
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="Write prompts and rewrites to the log.")] = False,
) -> None:
    """Rewrite prompts over HTTP: OpenAI's interface, a page in the browser, images if you want."""
    number("--port", port, 0, 65535)
    number("--queue", queue, 1, 100_000)
    number("--batch", batch, 1, 1024)
    number("--time-limit", time_limit, 0.001, 86_400)
    if max_drift is not None:
        number("--max-drift", max_drift, 0, 2)
    needed = {"serve": "semdpo serve"} | ({} if renderer is None else {"render": "--renderer"})
    extras.require(**needed)
    places = named(model or [])

    from semdpo.serve.settings import Settings

    settings = Settings(token_of(token_env), queue, batch, time_limit, log_prompts)
    _serve(places, encoder, max_drift, renderer, (host, port), settings)


def named(given: list[str]) -> dict[str, str]:
    """Name → folder of the models to serve, the default one first.

    Args:
        given: Each as the user wrote it: ``DIR``, whose name is the folder's, or ``NAME=DIR``.

    Raises:
        ConfigError: Two have the same name.
        StoreError: None is given, and the demo has not run yet.
    """
    if not given:
        if not DEMO.is_dir():
            raise StoreError(f"there is no {DEMO} yet; run `semdpo demo` first, or give --model")
        return {folder.name: str(folder) for folder in (DEMO, DEMO.parent / "dpo") if folder.is_dir()}
    places: dict[str, str] = {}
    for text in given:
        split = None if Path(text).is_dir() else _NAMED.fullmatch(text)
        name, place = (split[1], split[2]) if split else (Path(text.rstrip("/")).name or text, text)
        if name in places:
            raise ConfigError(
                f"--model gives two models the name '{name}'; give one another name, as in --model other={place}"
            )
        places[name] = place
    return places


def token_of(variable: str | None) -> str | None:
    """The token that clients must send; None where the variable is not set.

    Raises:
        ConfigError: The user named a variable that is not set, or its value cannot stand in a header.
    """
    token = os.environ.get(variable or TOKEN, "").strip()
    if not token:
        if variable is not None:
            raise ConfigError(f"--token-env names {variable}, which is not set; set it to a long random text")
        return None
    if not re.fullmatch(r"[!-~]+", token):
        raise ConfigError(f"the token in {variable or TOKEN} has blanks or letters that no header takes; use ASCII")
    return token


def _serve(
    places: Mapping[str, str],
    encoder: str | None,
    max_drift: float | None,
    renderer: str | None,
    address: tuple[str, int],
    settings: Settings,
) -> None:
    """Opens the address, which fails at once if it cannot, loads the models, and serves."""
    from semdpo.prompt_optimizer import PromptOptimizer
    from semdpo.serve import server
    from semdpo.serve.app import build
    from semdpo.web.listening import url

    with server.listen(*address, settings.token) as listening:
        say(f"loading {', '.join(places)}")
        models: dict[str, Optimizer] = {
            name: PromptOptimizer.from_pretrained(place, encoder, max_drift=max_drift) for name, place in places.items()
        }
        images = None
        if renderer is not None:
            from semdpo.models.renderer import load_renderer

            images = (renderer, load_renderer(renderer))
        _log_to_stderr()
        service = build(models, images, settings)
        say(f"serving {', '.join(places)} on {url(listening)} (Ctrl-C stops it)")
        ended = server.run(service, listening)
    say("stopped")
    if not ended:
        # Python would wait for the middle of a batch, or take its thread's memory away while it computes.
        sys.stderr.flush()
        os._exit(0)


def _log_to_stderr() -> None:
    """Shows this package's log with times; other libraries' would have more than a server should keep."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log = logging.getLogger("semdpo")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
