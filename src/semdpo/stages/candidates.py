"""Stage 3: several rewrites of every prompt, drawn from the SFT rewriter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial

from semdpo.data.records import Candidate, Prompt, content_id, content_seed
from semdpo.engine.stage import Made, Run, Shard, TableStage, batched
from semdpo.progress import Progress
from semdpo.protocols import FlaggingRewriter, Rewriter
from semdpo.recipe.schema import CandidatesConfig, Recipe
from semdpo.texts import is_visible, trimmed

NAME = "candidates"


def stage(recipe: Recipe) -> TableStage:
    """Rewrites of the training prompts."""
    config = recipe.candidates.model_dump(mode="json")
    return TableStage(NAME, "rewriting", config, ("prompts", "sft"), {}, Candidate, _work)


def _work(run: Run) -> list[Shard]:
    config = run.recipe.candidates
    rewriter = cache(lambda: run.models.rewriter(str(run.folder / "sft"), None, config))

    def make(prompts: Sequence[Prompt], _: Progress) -> Made:
        rows, counts = sample(prompts, rewriter(), config)
        return rows, asdict(counts) | {"tokens": sum(rewriter().tokens([row.rewrite for row in rows]))}

    train = [prompt for prompt in run.rows("prompts", Prompt) if prompt.split == "train"]
    return [Shard(len(some), partial(make, some)) for some in batched(train, config.shard_size)]


@dataclass(frozen=True, slots=True)
class CandidateCounts:
    """What became of the rewrites that were drawn: kept + duplicates + empty = drawn."""

    kept: int
    duplicates: int
    empty: int
    truncated: int
    prompts_without: int


def sample(
    prompts: Sequence[Prompt], rewriter: Rewriter, config: CandidatesConfig
) -> tuple[list[Candidate], CandidateCounts]:
    """Draws ``config.n`` rewrites of each prompt and keeps the distinct ones.

    The seed is made of the configured one alone, and the rewriter adds prompt and index: a prompt has the same
    candidates in every shard, order and company, up to what the model's own rounding makes of another batch. White
    space is normalised; a rewrite may repeat the prompt itself.

    Args:
        prompts: of one shard.
        rewriter: draws; what it draws depends on prompt, index and seed only, as ``Rewriter`` asks.
        config: how many, and the seed.

    Returns:
        The candidates in the order of the prompts, and what was dropped.
    """
    if not prompts:
        return [], CandidateCounts(0, 0, 0, 0, 0)
    seed = content_seed("candidates", str(config.seed))  # not that of evaluation, which may rewrite the same prompts
    kept: list[Candidate] = []
    duplicates = empty = without = 0
    for prompt, rewrites in zip(prompts, _draw(prompts, rewriter, config.n, seed), strict=True):
        distinct: set[str] = set()
        for index, (rewrite, truncated) in enumerate(rewrites):
            text = " ".join(trimmed(rewrite).split())
            if not is_visible(text):
                empty += 1
            elif text in distinct:
                duplicates += 1
            else:
                distinct.add(text)
                identity = content_id(prompt.prompt_id, text)
                kept.append(Candidate(identity, prompt.prompt_id, prompt.prompt, text, index, seed, truncated))
        without += not distinct
    return kept, CandidateCounts(len(kept), duplicates, empty, sum(c.truncated for c in kept), without)


def _draw(prompts: Sequence[Prompt], rewriter: Rewriter, n: int, seed: int) -> list[list[tuple[str, bool]]]:
    texts = [prompt.prompt for prompt in prompts]
    if isinstance(rewriter, FlaggingRewriter):
        return rewriter.rewrite_flagged(texts, n, seed)
    return [[(text, False) for text in rewrites] for rewrites in rewriter.rewrite(texts, n, seed)]
