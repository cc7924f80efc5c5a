"""What lets transformers, vLLM and others use a rewriter's folder without this package.

A rewriter's tokenizer always carries a chat template. The prompt is the user's message; the rewrite is the answer.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from semdpo.models.prompting import begin_ids, end_token
from semdpo.models.rewriter import Decoding, thinking_tokens
from semdpo.models.rewriter_settings import RewriterSettings
from semdpo.recipe.base import SLOT, Template

# The texts are filled in as string literals. Doubled braces are single ones in the result.
_PLAIN = (
    "{{%- for message in messages -%}}"
    "{{%- if message['role'] == 'user' -%}}{{{{- {BEFORE} + (message['content'] | trim) + {AFTER} -}}}}"
    "{{%- elif message['role'] == 'assistant' -%}}{{{{- ' ' + (message['content'] | trim) + {END} -}}}}"
    "{{%- else -%}}{{{{- raise_exception('this rewriter reads messages of the user only') -}}}}{{%- endif -%}}"
    "{{%- endfor -%}}"
)
_NO_THINKING = "{%- set enable_thinking = false -%}"  # rewriters are trained without thinking


def write_for_others(folder: Path, tokenizer: Any, settings: RewriterSettings, model_ends: Any = None) -> None:
    """Writes the tokenizer with a chat template, and ``generation_config.json`` for greedy rewrites.

    Args:
        folder: The rewriter's folder.
        tokenizer: The rewriter's tokenizer, which stays unchanged.
        settings: The template and the token budget of the rewriter.
        model_ends: The ids of further tokens at which the model stops: an id, several, or None.
    """
    saved = copy.copy(tokenizer)
    saved.chat_template = chat_template(tokenizer, settings.reads)
    saved.save_pretrained(folder)
    ends = {tokenizer.eos_token_id, end_token(tokenizer, settings.reads)}
    ends |= set() if model_ends is None else {model_ends} if isinstance(model_ends, int) else set(model_ends)
    GenerationConfig(
        do_sample=False,
        max_new_tokens=settings.max_new_tokens or Decoding().max_new_tokens,
        eos_token_id=sorted(ends),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        suppress_tokens=thinking_tokens(tokenizer) or None,
    ).save_pretrained(folder)


def chat_template(tokenizer: Any, template: Template) -> str:
    """The chat template, in Jinja, that gives the text which a rewriter reads for the user's message.

    A chat model keeps its own, without thinking. A template of text becomes one for a single message of the user,
    which an answer may follow.

    Args:
        tokenizer: The rewriter's tokenizer.
        template: What the rewriter reads around a prompt.
    """
    if template.is_chat:
        own = str(tokenizer.chat_template)
        return own if own.startswith(_NO_THINKING) else _NO_THINKING + own
    before, after = template.text.split(SLOT)
    begin = "".join(tokenizer.convert_ids_to_tokens(begin_ids(tokenizer)))
    if before.startswith(begin):
        begin = ""
    texts = {"BEFORE": begin + before, "AFTER": after, "END": tokenizer.eos_token}
    return _PLAIN.format(**{name: json.dumps(text, ensure_ascii=False) for name, text in texts.items()})
