# The public names and where each is defined: read by type checkers, and when semdpo is imported.
from .analysis.semantics import cosine_distance as cosine_distance
from .analysis.semantics import effective_sample_size as effective_sample_size
from .analysis.semantics import semantic_weight as semantic_weight
from .errors import ConfigError as ConfigError
from .errors import DataError as DataError
from .errors import ModelError as ModelError
from .errors import SemdpoError as SemdpoError
from .errors import StoreError as StoreError
from .objectives import OBJECTIVES as OBJECTIVES
from .prompt_optimizer import PromptOptimizer as PromptOptimizer
from .training.trainer import PreferenceTrainer as PreferenceTrainer

__version__: str
