"""Semantically weighted preference tuning of prompt rewriters (Sem-DPO, arXiv 2507.20133).

The public names, and nothing else. They are imported when first used, so that `import semdpo` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semdpo.analysis.semantics import cosine_distance, effective_sample_size, semantic_weight
    from semdpo.errors import ConfigError, DataError, ModelError, SemdpoError, StoreError
    from semdpo.prompt_optimizer import PromptOptimizer
    from semdpo.training.trainer import ExampleTrainer

__version__ = "0.1.0"
__all__ = [
    "ConfigError",
    "DataError",
    "ExampleTrainer",
    "ModelError",
    "PromptOptimizer",
    "SemdpoError",
    "StoreError",
    "__version__",
    "cosine_distance",
    "effective_sample_size",
    "semantic_weight",
]

_HOMES = {
    "ConfigError": "errors",
    "DataError": "errors",
    "ModelError": "errors",
    "ExampleTrainer": "training.trainer",
    "PromptOptimizer": "prompt_optimizer",
    "SemdpoError": "errors",
    "StoreError": "errors",
    "cosine_distance": "analysis.semantics",
    "effective_sample_size": "analysis.semantics",
    "semantic_weight": "analysis.semantics",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'semdpo' has no attribute '{name}'")
    return getattr(importlib.import_module(f"semdpo.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
