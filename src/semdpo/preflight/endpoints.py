"""Whether the servers answer that a recipe's rewriters are behind."""

from __future__ import annotations

from semdpo import extras
from semdpo.errors import ModelError
from semdpo.preflight.resources import Finding
from semdpo.recipe.endpoints import EndpointConfig
from semdpo.recipe.models import RewriterSource
from semdpo.recipe.schema import Recipe


def servers(recipe: Recipe) -> list[Finding]:
    """Asks every server for its models; empty where the recipe names none, or the library to ask with is missing.

    Args:
        recipe: the validated recipe.
    """
    if extras.absent("endpoint"):
        return []
    return [_asked(key, other) for key, other in recipe.other_rewriters.items() if other.is_remote]


def _asked(key: str, other: RewriterSource) -> Finding:
    from semdpo.models.chat_server import ChatServer

    settings = other.endpoint or EndpointConfig()
    try:
        server = ChatServer(other.model, settings)
        offered = server.models()
    except ModelError as error:
        return Finding("error", other.model, f"{key}: {error}")
    if settings.model_name in offered:
        return Finding("ok", other.model, f"{key}: answers, and offers '{settings.model_name}'")
    # Some servers answer to any name, and some do not list the names of adapters.
    found = f"{key}: answers, and lists no '{settings.model_name}'; it offers {server.listed(offered)}"
    return Finding("warning", other.model, found, f"set {key}.endpoint.model_name, unless the server knows that name")
