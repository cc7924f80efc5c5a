"""How the server was asked to work."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a server.

    Attributes:
        token: What clients must send; None lets everybody on this machine in.
        queue: The most requests that wait, for rewrites and for images each.
        batch: The most requests that a model does at a time.
        time_limit: The seconds from a request's arrival to its answer.
        log_prompts: Whether the log has prompts and rewrites.
    """

    token: str | None = None
    queue: int = 64
    batch: int = 16
    time_limit: float = 60.0
    log_prompts: bool = False
