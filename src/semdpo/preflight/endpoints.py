"""Whether the servers answer that a recipe's rewriters, renderers and scorers are behind."""

from __future__ import annotations

from semdpo import extras
from semdpo.errors import ModelError, UnlistedModelsError
from semdpo.preflight.resources import Finding, Level
from semdpo.recipe.endpoints import Asked
from semdpo.recipe.schema import Recipe


def servers(recipe: Recipe) -> list[Finding]:
    """Asks every server for its models; empty where the recipe names none, or the library to ask with is missing.

    Args:
        recipe: the validated recipe.
    """
    if extras.absent("endpoint"):
        return []
    return [_answers(key, asked) for key, asked in recipe.servers.items()]


def _answers(key: str, asked: Asked) -> Finding:
    from semdpo.models.chat_server import ChatServer
    from semdpo.models.image_server import ImageServer

    name = asked.settings.model_name
    try:
        server = (ImageServer if asked.draws else ChatServer)(asked.url, asked.settings)
        offered = server.models()
    except UnlistedModelsError as error:
        level: Level = "warning" if asked.draws else "error"
        return Finding(level, asked.url, f"{key}: {error}")
    except ModelError as error:
        return Finding("error", asked.url, f"{key}: {error}")
    if name in offered:
        return Finding("ok", asked.url, f"{key}: answers, and offers '{name}'")
    # Some servers answer to any name, and some do not list the names of adapters.
    found = f"{key}: answers, and lists no '{name}'; it offers {server.listed(offered)}"
    return Finding("warning", asked.url, found, f"set {asked.key}.model_name, unless the server knows that name")
