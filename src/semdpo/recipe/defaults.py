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

MAX_DRIFT = 0.3  # where no evaluation measured a limit; with the paper's α, a pair of this drift has the weight 0.3
RENDERER_FAMILIES = 1  # the version of the defaults in models/families.py; raise it whenever one of them changes
RENDERER_TOKENS = 75  # what Stable Diffusion's text encoder reads, without its begin and end tokens

TEXTS_AT_A_TIME = 64  # a batch of an encoder or a rewriter
IMAGES_AT_A_TIME = 32  # a batch of a renderer or a scorer

# The system prompt of a general language model behind a URL.
SYSTEM: Final = (
    "You rewrite prompts for a text-to-image model. Keep everything that the prompt says: every thing, number, colour, "
    "place, action and name, and quoted text letter by letter. Add only how the image should look: medium, style, "
    "light, composition, level of detail. Add no new things, people, places or words to be written in the image. "
    "Answer with the rewritten prompt alone: one line of at most 50 words, in the language of the prompt, without "
    "quotation marks, headings or explanations."
)

TITLE = "Sem-DPO report"
SUBJECT = "sem_dpo"
BASELINE = "dpo"
