"""The optional parts of this package: which libraries each needs, and the message where they are not installed."""

from __future__ import annotations

import importlib.util

from semdpo.errors import ConfigError

# The command that installs an extra; every message takes it from here.
INSTALL = "pip install 'semdpo[{}]'"

# Extra → what it installs, as in pyproject.toml: name on the index → name to import.
EXTRAS = {
    "render": {"diffusers": "diffusers", "ftfy": "ftfy", "pillow": "PIL"},
    "report": {
        "jinja2": "jinja2",
        "matplotlib": "matplotlib",
        "pandas": "pandas",
        "pillow": "PIL",
        "statsmodels": "statsmodels",
    },
    "sentence": {"sentence-transformers": "sentence_transformers"},
    "lora": {"peft": "peft"},
    "hub": {"datasets": "datasets"},
    "mcp": {"mcp": "mcp"},
    "endpoint": {"openai": "openai"},
    "serve": {"fastapi": "fastapi", "prometheus-client": "prometheus_client", "uvicorn": "uvicorn"},
    "study": {
        "choix": "choix",
        "fastapi": "fastapi",
        "krippendorff": "krippendorff",
        "pillow": "PIL",
        "uvicorn": "uvicorn",
    },
    "gguf": {"gguf": "gguf"},
    "s3": {"s3fs": "s3fs"},
    "ray": {"ray": "ray"},
}


def absent(extra: str) -> list[str]:
    """The libraries of an extra that are not installed, without importing any.

    Args:
        extra: a name in ``EXTRAS``.
    """
    return [name for name, module in EXTRAS[extra].items() if importlib.util.find_spec(module) is None]


def command(*extras: str) -> str:
    """The command that installs extras.

    Args:
        extras: names in ``EXTRAS``.
    """
    return INSTALL.format(",".join(extras))


def require(**uses: str) -> None:
    """Refuses to continue where optional libraries are not installed; call it before the work that needs them.

    Args:
        uses: extra → what needs it, as the subject of a sentence: ``require(render="rendering")``.

    Raises:
        ConfigError: libraries are missing; one sentence names all of them and the command that installs them.
    """
    missing = {extra: names for extra in uses if (names := absent(extra))}
    if missing:
        needs = ", and ".join(f"{uses[extra]} needs {_listed(names)}" for extra, names in missing.items())
        them = "it" if sum(map(len, missing.values())) == 1 else "them"
        raise ConfigError(f"{needs}; install {them} with: {command(*missing)}")


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
