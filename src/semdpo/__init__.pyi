# The public names and where each is defined: read by type checkers, and when semdpo is imported.
from . import objectives as objectives
from .analysis.semantics import semantic_weight as semantic_weight
from .errors import ConfigError as ConfigError
from .errors import DataError as DataError
from .errors import ModelError as ModelError
from .errors import SemdpoError as SemdpoError
from .errors import StoreError as StoreError
from .pipeline import run as run
from .prompt_optimizer import PromptOptimizer as PromptOptimizer
from .recipe.load import load_recipe as load_recipe
from .training.config import PreferenceConfig as PreferenceConfig
from .training.preference_trainer import PreferenceTrainer as PreferenceTrainer
from .training.user_pairs import audit as audit
from .training.user_pairs import measure_drift as measure_drift

__version__: str
