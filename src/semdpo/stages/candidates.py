"""Stage 3: several rewrites of every prompt, sampled from the SFT rewriter or from the one that the recipe names.

In a later round, the rewriter that the round before trained takes the place of the SFT rewriter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial

from semdpo.data.records import Candidate, Prompt, content_id, content_seed
from semdpo.engine.shards import in_groups
from semdpo.engine.stage import Made, Run, Shard, TableStage
from semdpo.progress import Progress
from semdpo.protocols import FlaggingRewriter, Rewriter
from semdpo.recipe.schema import CandidatesConfig, Recipe
from semdpo.texts import is_visible, trimmed

NAME = "candidates"


def stage(recipe: Recipe) -> TableStage:
    """The stage that samples rewrites of the training prompts."""
    config, other = recipe.candidates.of_results(), recipe.candidates.rewriter
    outside = {} if other is None or other.is_remote else {"candidates.rewriter.model": other.model}
    return TableStage(NAME, "rewriting", config, ("prompts", "sft"), outside, Candidate, _work, pool="render")


def _work(run: Run) -> list[Shard]:
    config = run.recipe.candidates
    other = config.rewriter
    counter = cache(lambda: run.models.rewriter(str(run.path("sft")), None, config))
    rewriter = counter if other is None else cache(lambda: run.models.other_rewriter(other, config))

    prompts = run.shards("prompts", Prompt)

    def make(start: int, stop: int, _: Progress) -> Made:
        rows, counts = sample(prompts.between(start, stop), rewriter(), config)
        counted = {name: count for name, count in asdict(counts).items() if name != "own" or config.user_prompt}
        written = [row.rewrite for row in rows if row.index < config.n]
        return rows, counted | {"tokens": sum(counter().tokens(written))}

    places = in_groups(prompts.column("split"), "train", config.shard_size)
    return [Shard(stop - start, partial(make, start, stop)) for start, stop in places]


@dataclass(frozen=True, slots=True)
class CandidateCounts:
    """What became of the sampled rewrites.

    Attributes:
        kept: distinct candidates.
        duplicates: rewrites that repeat another one of their prompt.
        empty: rewrites that show nothing.
        truncated: candidates that were truncated at the token budget.
        prompts_without: prompts without a candidate.
        own: candidates that are the user's prompt, unchanged, where no rewrite of it is.
    """

    kept: int
    duplicates: int
    empty: int
    truncated: int
    prompts_without: int
    own: int = 0


def sample(
    prompts: Sequence[Prompt], rewriter: Rewriter, config: CandidatesConfig
) -> tuple[list[Candidate], CandidateCounts]:
    """Samples ``config.n`` rewrites of each prompt and keeps the distinct ones; the prompt itself may be one more.

    The seed depends on the configured seed alone, and the rewriter adds the prompt and the rewrite's index. Therefore
    a prompt has the same candidates in every shard and in any order, except where the model rounds differently in
    another batch. White space is normalised. A rewrite may equal the prompt. With ``config.user_prompt`` the prompt is
    a candidate in any case; where no rewrite equals it, it has the index ``config.n``.

    Args:
        prompts: the prompts of one shard.
        rewriter: a rewriter whose rewrites depend on prompt, index and seed only, as ``Rewriter`` requires.
        config: the number of rewrites, and the seed.

    Returns:
        The candidates in the order of the prompts, and the counts.
    """
    if not prompts:
        return [], CandidateCounts(0, 0, 0, 0, 0)
    seed = content_seed("candidates", str(config.seed))  # evaluation, which may rewrite the same prompts, has another
    candidates: list[Candidate] = []
    duplicates = empty = without = own = 0
    for prompt, rewrites in zip(prompts, _sampled(prompts, rewriter, config.n, seed), strict=True):
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
                candidates.append(Candidate(identity, prompt.prompt_id, prompt.prompt, text, index, seed, truncated))
        if config.user_prompt and (text := " ".join(trimmed(prompt.prompt).split())) not in distinct:
            own += 1
            distinct.add(text)
            identity = content_id(prompt.prompt_id, text)
            candidates.append(Candidate(identity, prompt.prompt_id, prompt.prompt, text, config.n, seed, False))
        without += not distinct
    truncations = sum(candidate.truncated for candidate in candidates)
    return candidates, CandidateCounts(len(candidates), duplicates, empty, truncations, without, own)


def _sampled(prompts: Sequence[Prompt], rewriter: Rewriter, n: int, seed: int) -> list[list[tuple[str, bool]]]:
    texts = [prompt.prompt for prompt in prompts]
    if isinstance(rewriter, FlaggingRewriter):
        return rewriter.rewrite_flagged(texts, n, seed)
    return [[(text, False) for text in rewrites] for rewrites in rewriter.rewrite(texts, n, seed)]
