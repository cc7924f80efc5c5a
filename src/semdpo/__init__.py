"""Semantically weighted preference tuning of prompt rewriters (Sem-DPO, arXiv 2507.20133).

The public names, and nothing else; ``__init__.pyi`` lists them. They are imported when first used, so that
`import semdpo` costs nothing.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
