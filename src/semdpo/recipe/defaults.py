"""What a setting is when nobody gives it: one value, for recipes, the command line and Python alike.

Those of training are the paper's (arXiv 2507.20133) where it names one.
"""

from __future__ import annotations

from typing import Final

ENCODER = "tiny:clip"  # which knows only the embedded world's words

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

TEXTS_AT_A_TIME = 64  # that an encoder or a rewriter reads
IMAGES_AT_A_TIME = 32  # that are drawn or scored

TITLE = "Sem-DPO report"
SUBJECT = "sem_dpo"
BASELINE = "dpo"
