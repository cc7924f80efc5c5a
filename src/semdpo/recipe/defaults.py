"""The default values of settings, the same for recipes, the command line and Python.

The values of training are the paper's (arXiv 2507.20133) where it gives one.
"""

from __future__ import annotations

from typing import Final

ENCODER = "tiny:clip"  # it knows only the embedded world's words

OBJECTIVE = "sem_dpo"
ALPHA = 4.0
BETA = 0.05
LEARNING_RATE = 5e-6
EPOCHS = 1
BATCH_SIZE = 8
MAX_LENGTH = 256
WARMUP_RATIO = 0.1
SEED = 0
PRECISION: Final = "auto"
CHECKPOINT_STEPS = 200

TEXTS_AT_A_TIME = 64  # a batch of an encoder or a rewriter
IMAGES_AT_A_TIME = 32  # a batch of a renderer or a scorer

TITLE = "Sem-DPO report"
SUBJECT = "sem_dpo"
BASELINE = "dpo"
