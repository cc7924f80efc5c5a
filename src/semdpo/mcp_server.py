"""A tool for assistants that speak the Model Context Protocol: it rewrites a prompt with a running ``semdpo serve``."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import Annotated, Any, Literal

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from semdpo import client

Length = Literal["short", "medium", "long"] | int | None


def mcp_server(url: str, model: str, token_env: str) -> MCPServer[Any]:
    """A server with one tool, ``optimize_prompt``; ``run()`` speaks over stdin and stdout.

    Args:
        url: Where ``semdpo serve`` listens.
        model: The model's name; empty is the server's own.
        token_env: The environment variable with the server's key.
    """
    server = MCPServer("semdpo", log_level="ERROR")

    @server.tool()
    async def optimize_prompt(
        prompt: Annotated[str, Field(description="What the image should show.")],
        keep: Annotated[list[str] | None, Field(description="Words and phrases that must not change.")] = None,
        length: Annotated[Length, Field(description="How long, or the most tokens; null: the rewriter's own.")] = None,
        max_drift: Annotated[float | None, Field(ge=0, le=2, description="Most drift; null: the server's own.")] = None,
        seed: Annotated[int, Field(ge=0, description="Another seed may give another rewrite.")] = 0,
    ) -> dict[str, Any]:
        """Rewrites a text-to-image prompt so that the image becomes better and still shows what was asked for.

        Gives the rewrite, the drift (0: means the same) and, if the prompt itself came back, the reason.
        """
        token = os.environ.get(token_env, "").strip()
        ask = partial(client.optimize, prompt, url, keep=keep or (), seed=seed, model=model, token=token)
        try:
            reply = await asyncio.to_thread(ask, length=length, max_drift=max_drift)
        except client.NoRewriteError as error:
            raise ToolError(str(error)) from error
        return {"rewrite": reply.rewrite, "original": prompt, "drift": reply.drift, "reason": reply.reason}

    return server
