"""``semdpo optimize``: rewrites one prompt, and says how far the rewrite drifts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from semdpo.cli.closing import DEMO
from semdpo.cli.options import named_as_options, number
from semdpo.errors import ConfigError, DataError, StoreError
from semdpo.progress import say, show
from semdpo.texts import shown


def optimize(
    prompt: Annotated[str, typer.Argument(help="What the image should show.")],
    model: Annotated[str | None, typer.Option(help="A trained rewriter; by default, the demo's Sem-DPO model.")] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="The text encoder; by default, the one that measured the drift of the training pairs."),
    ] = None,
    max_distance: Annotated[float | None, typer.Option(help="Keep the prompt if its rewrite drifts farther.")] = None,
    keep: Annotated[
        str | None, typer.Option(help="Words and phrases that must not change, with commas between them.")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Most tokens of a rewrite; by default, those of the longest rewrite in training.")
    ] = None,
) -> None:
    """Rewrite a prompt, and say how far the rewrite drifts from it."""
    if max_distance is not None:
        number("--max-distance", max_distance, 0, 2)
    if max_new_tokens is not None:
        number("--max-new-tokens", max_new_tokens, 1)
    if not prompt.strip():
        raise DataError("the prompt is empty; say what the image should show")
    if model is None and not DEMO.is_dir():
        raise StoreError(f"there is no {DEMO} yet; run `semdpo demo` first, or give --model")
    with named_as_options("max_new_tokens", "max_distance"):
        optimize_prompt(
            prompt, DEMO if model is None else model, encoder, max_distance, max_new_tokens, _phrases(keep, prompt)
        )


def _phrases(keep: str | None, prompt: str) -> list[str]:
    """The phrases of ``--keep``, each of which must be in the prompt."""
    from semdpo.protected_spans import contains

    if keep is None:
        return []
    phrases = [phrase.strip() for phrase in keep.split(",") if phrase.strip()]
    if not phrases:
        raise ConfigError("--keep names no words; give them with commas between them, or leave the option out")
    for phrase in phrases:
        if not contains(prompt, phrase):
            raise ConfigError(f"--keep names {shown(phrase)}, which is not in the prompt; copy it from there")
    return phrases


def optimize_prompt(
    prompt: str,
    model: str | Path,
    encoder: str | None,
    max_distance: float | None,
    max_new_tokens: int | None,
    keep: Sequence[str] = (),
) -> None:
    """Prints the rewrite on stdout, and its drift on stderr.

    Args:
        prompt: The user's prompt: what the image should show.
        model: The name or folder of a trained rewriter.
        encoder: The name of the encoder that measures the drift; None is the encoder of the rewriter's training pairs.
        max_distance: The largest drift of a rewrite; where it drifts farther, the prompt itself is printed.
        max_new_tokens: The token budget of a rewrite; None is the rewriter's own.
        keep: Words and phrases that must not change.

    Raises:
        SemdpoError: A model or an option cannot be used, or the encoder does not know the prompt's words.
    """
    from semdpo.analysis.drift import refuse_unknown_words
    from semdpo.prompt_optimizer import PromptOptimizer

    optimizer = PromptOptimizer.from_pretrained(
        model, encoder, max_distance=max_distance, max_new_tokens=max_new_tokens
    )
    refuse_unknown_words(optimizer.unknown(prompt), optimizer.encoder_name)
    optimized = optimizer.optimize(prompt, keep)
    show(optimized.rewrite)
    say(optimized.reason or f"drift: {optimized.distance:.3f} (0: means the same; {optimizer.encoder_name})")
    if optimized.truncated:
        say(f"the rewrite was truncated at {optimizer.max_new_tokens} tokens; raise --max-new-tokens")
