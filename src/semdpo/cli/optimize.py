"""``semdpo optimize``: one prompt, its rewrite, and how far that drifts."""

from __future__ import annotations

from pathlib import Path

from semdpo.analysis.drift import refuse_unknown_words
from semdpo.progress import say, show
from semdpo.prompt_optimizer import PromptOptimizer


def optimize_prompt(
    prompt: str, model: str | Path, encoder: str | None, max_distance: float | None, max_new_tokens: int | None
) -> None:
    """Prints the rewrite, and says on stderr how far it drifts.

    Args:
        prompt: what the image should show.
        model: a trained rewriter.
        encoder: measures the drift; None takes the one that weighed the pairs which the rewriter learnt from.
        max_distance: refuse rewrites that drift farther.
        max_new_tokens: budget of a rewrite; None takes the rewriter's own.

    Raises:
        SemdpoError: a model or an option cannot be used, or the encoder does not know the prompt's words.
    """
    optimizer = PromptOptimizer.from_pretrained(
        model, encoder, max_distance=max_distance, max_new_tokens=max_new_tokens
    )
    refuse_unknown_words(optimizer.unknown(prompt), optimizer.encoder_name)
    found = optimizer.optimize(prompt)
    show(found.rewrite)
    say(found.reason or f"drift: {found.distance:.3f} (0: means the same; {optimizer.encoder_name})")
    if found.truncated:
        say(f"the rewrite was truncated at {optimizer.max_new_tokens} tokens; raise --max-new-tokens")
