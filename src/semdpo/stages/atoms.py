"""After the prompts: the single facts that each prompt states, as questions, if the recipe has a section of atoms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Protocol, runtime_checkable

from semdpo.analysis.atoms import stating_words
from semdpo.analysis.caption_atoms import caption_atoms
from semdpo.analysis.written_atoms import read_written
from semdpo.data.atoms import Atom, by_prompt, read_atoms
from semdpo.data.records import Prompt
from semdpo.engine.stage import Made, Run, Shard, TableStage
from semdpo.errors import DataError
from semdpo.progress import Progress
from semdpo.protocols import Answer, Rewriter, answers
from semdpo.recipe.atoms import AtomsConfig
from semdpo.recipe.benchmarks import own_atoms
from semdpo.recipe.schema import Recipe

NAME = "atoms"
ROWS = 512  # prompts per file
NAMED = 3  # prompts that a message names
_Maker = Callable[[Sequence[Prompt]], tuple[list[Atom], Counter[str]]]


def stages(recipe: Recipe) -> list[TableStage]:
    """The stage that makes the atoms of all prompts; none where the recipe has no section of atoms."""
    return [] if recipe.atoms is None else [_stage(NAME, recipe.atoms, "prompts")]


def of_benchmark(recipe: Recipe, name: str) -> list[TableStage]:
    """The stage that reads the atoms of a benchmark; none where it brings none, or the recipe has no section of atoms.

    Args:
        recipe: the validated recipe.
        name: the benchmark's name.
    """
    config = own_atoms(name, recipe.benchmarks[name], recipe.atoms)
    return [] if config is None else [_stage(f"benchmarks/{name}/atoms", config, f"benchmarks/{name}/prompts")]


def _stage(name: str, config: AtomsConfig, prompts: str) -> TableStage:
    outside = {"atoms.file": config.file} if config.file is not None else {}
    if config.lm is not None and not config.lm.is_remote:
        outside |= {"atoms.lm.model": config.lm.model}
    work = partial(_work, config, prompts)
    return TableStage(name, "asking what prompts state", config.of_results(), (prompts,), outside, Atom, work)


def _work(config: AtomsConfig, stage: str, run: Run) -> list[Shard]:
    prompts = run.rows(stage, Prompt)
    maker = cache(lambda: _maker(config, run))

    def make(start: int, _: Progress) -> Made:
        part = prompts[start : start + ROWS]
        return made(part, maker(), config)

    return [Shard(len(prompts[start : start + ROWS]), partial(make, start)) for start in range(0, len(prompts), ROWS)]


def made(prompts: Sequence[Prompt], maker: _Maker, config: AtomsConfig) -> Made:
    """The atoms of some prompts, in their order, and the counts.

    Args:
        prompts: the prompts of one shard.
        maker: makes their atoms.
        config: what becomes of prompts without atoms.

    Raises:
        DataError: prompts have no atoms, and ``config.without`` refuses them; the message names the first of them.
    """
    atoms, counts = maker(prompts)
    found = by_prompt(atoms)
    bare = [prompt.prompt for prompt in prompts if prompt.prompt_id not in found]
    if bare and config.without == "refuse":
        listed = "; ".join(f"'{text[:80]}'" for text in bare[:NAMED]) + (" …" if len(bare) > NAMED else "")
        raise DataError(
            f"{len(bare)} prompts have no atoms ({listed}){_why(counts)}; {_CURES[config.maker]}, or set "
            "atoms.without=leave_out to count them and go on"
        )
    return atoms, {"prompts": len(prompts), "prompts_without": len(bare)} | dict(counts)


_CURES = {
    "file": "add a line for each of them to atoms.file",
    "rules": "write their atoms into a file (atoms.maker=file), or let a language model make them (atoms.maker=lm)",
    "lm": "name a model that answers in the form asked for, or write their atoms into a file (atoms.maker=file)",
    "tiny": "only prompts in the embedded world's words have such atoms: set atoms.maker to rules, file or lm",
}


def _why(counts: Counter[str]) -> str:
    return f", because {counts['refused']} answers were refused" if counts["refused"] else ""


def _maker(config: AtomsConfig, run: Run) -> _Maker:
    if config.maker == "tiny":
        return _by_grammar
    if config.maker == "rules":
        return _by_rules
    if config.file is not None:
        return partial(_from_file, read_atoms(config.file))
    assert config.lm is not None  # see AtomsConfig
    return partial(written, run.models.other_rewriter(config.lm, config.lm), config.lm.seed)


def _by_grammar(prompts: Sequence[Prompt]) -> tuple[list[Atom], Counter[str]]:
    from semdpo.tiny_world.atoms import atoms_of  # here, because the tiny world needs an extra

    rows = [(row, atom) for row in prompts for atom in atoms_of(row.prompt)]
    return [Atom(row.prompt_id, skill, question) for row, (skill, question) in rows], Counter()


def _by_rules(prompts: Sequence[Prompt]) -> tuple[list[Atom], Counter[str]]:
    read = [caption_atoms(prompt.prompt_id, prompt.prompt) for prompt in prompts]
    return [atom for atoms, _ in read for atom in atoms], Counter(unread_clauses=sum(unread for _, unread in read))


def _from_file(found: dict[str, list[Atom]], prompts: Sequence[Prompt]) -> tuple[list[Atom], Counter[str]]:
    rows = [(prompt, atom) for prompt in prompts for atom in found.get(prompt.prompt_id, ())]
    return [
        Atom(a.prompt_id, a.skill, a.question, a.answer, stating_words(a.question, a.answer, p.prompt)) for p, a in rows
    ], Counter()


@runtime_checkable
class _Speaker(Protocol):
    """A model that gives its answers letter by letter."""

    def said(self, prompts: Sequence[str], seed: int) -> list[Answer]:
        """What the model says to each prompt."""
        ...


def written(model: Rewriter, seed: int, prompts: Sequence[Prompt]) -> tuple[list[Atom], Counter[str]]:
    """The atoms that a language model writes for some prompts, and how many of its answers are refused.

    Args:
        model: the language model, with its instruction and its decoding.
        seed: the seed of its sampling.
        prompts: the prompts.
    """
    texts = [prompt.prompt for prompt in prompts]
    said = (
        model.said(texts, seed) if isinstance(model, _Speaker) else [row[0] for row in answers(model, texts, 1, seed)]
    )
    atoms: list[Atom] = []
    refused = 0
    for prompt, answer in zip(prompts, said, strict=True):
        found, reason = read_written(answer.text, answer.truncated, prompt.prompt_id, prompt.prompt)
        refused += bool(reason or answer.reason)
        atoms += found
    return atoms, Counter(refused=refused)
