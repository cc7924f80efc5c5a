"""``semdpo mcp``: a tool that rewrites prompts, for assistants that speak the Model Context Protocol."""

from __future__ import annotations

from typing import Annotated

import typer

from semdpo import client, extras
from semdpo.errors import ConfigError


def mcp(
    url: Annotated[str, typer.Option(help="Where `semdpo serve` listens.")] = client.DEFAULT_URL,
    model: Annotated[str, typer.Option(help="The model's name; by default, the server's own.")] = "",
    token_env: Annotated[
        str, typer.Option(help="The environment variable with the server's key.")
    ] = client.TOKEN_VARIABLE,
) -> None:
    """Offer a tool that rewrites prompts to an assistant (Model Context Protocol, over stdin and stdout)."""
    extras.require(mcp="semdpo mcp")
    try:
        client.refuse_wrong_url(url)
    except client.NoRewriteError as error:
        raise ConfigError(f"--url: {error}") from error
    from semdpo.mcp_server import mcp_server

    mcp_server(url, model, token_env).run()
