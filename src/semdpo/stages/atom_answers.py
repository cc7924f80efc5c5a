"""After the evaluation: which facts of its prompt each image shows, and each rewrite states; see ``stages.atoms``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial

from semdpo.analysis.atoms import states
from semdpo.data.atoms import Atom, AtomAnswer, by_prompt
from semdpo.data.records import RenderedImage
from semdpo.engine.stage import Made, Run, Shard, TableStage
from semdpo.errors import DataError
from semdpo.models.atom_scorer import answers_of
from semdpo.models.scoring import decoded
from semdpo.progress import Progress
from semdpo.protocols import Answerer
from semdpo.recipe.atoms import AtomsConfig
from semdpo.recipe.benchmarks import own_atoms
from semdpo.recipe.endpoints import is_url
from semdpo.recipe.schema import Recipe

VERSION = 1  # of how a text is found to state an atom


def name_of(method: str, folder: str = "evaluate") -> str:
    """The stage that holds the answers about a method's images, in the folder of an evaluation."""
    return f"{folder}/{method}/atoms"


def stages(recipe: Recipe, images: Mapping[str, str]) -> list[TableStage]:
    """The stages that ask about every method's images; none where the recipe has no section of atoms.

    Args:
        recipe: the validated recipe.
        images: method → the stage that holds its images.
    """
    return [] if recipe.atoms is None else _stages(recipe, recipe.atoms, images, "evaluate", "atoms")


def on_benchmark(recipe: Recipe, name: str, images: Mapping[str, str]) -> list[TableStage]:
    """The same about images of a benchmark that brings its own atoms; none where it brings none.

    Args:
        recipe: the validated recipe.
        name: the benchmark's name.
        images: as in ``stages``.
    """
    config, folder = own_atoms(name, recipe.benchmarks[name], recipe.atoms), f"benchmarks/{name}"
    return [] if config is None else _stages(recipe, config, images, f"{folder}/evaluate", f"{folder}/atoms")


def _stages(
    recipe: Recipe, config: AtomsConfig, images: Mapping[str, str], folder: str, atoms: str
) -> list[TableStage]:
    settings = {
        "maker": config.maker,
        "version": VERSION,
        "scoring": recipe.scoring.of_results(*config.answering.values()),
        "model": config.model,
    }
    outside = {key: name for key, name in config.answering.items() if not is_url(name)}
    return [
        TableStage(
            name_of(method, folder), "asking about images", settings, (stage, atoms), outside, AtomAnswer,
            partial(_work, config, stage, atoms), shown_as=f"{folder}/…/atoms", pool="score",
        )
        for method, stage in images.items()
    ]  # fmt: skip


def _work(config: AtomsConfig, stage: str, of_prompts: str, run: Run) -> list[Shard]:
    images = run.shards(stage, RenderedImage)
    atoms = cache(lambda: by_prompt(run.rows(of_prompts, Atom)))
    answerer = cache(lambda: None if config.model is None else run.models.answerer(config.model, run.recipe.scoring))

    def make(index: int, progress: Progress) -> Made:
        rows = images.read(index)
        answers = answered(rows, atoms(), answerer, config.maker)
        progress(len(rows), len(rows))
        counts = {"images_without": sum(row.prompt_id not in atoms() for row in rows)}
        black = {row.candidate_id for row in rows if row.blackened}
        unanswered = sum(a.probability is None and a.candidate_id not in black for a in answers)
        asked = config.model is not None
        return answers, counts | ({"unanswered": unanswered} if asked and unanswered else {})

    return [Shard(size, partial(make, index)) for index, size in enumerate(images.sizes)]


def answered(
    images: Sequence[RenderedImage],
    atoms: Mapping[str, Sequence[Atom]],
    answerer: Callable[[], Answerer | None],
    maker: str,
) -> list[AtomAnswer]:
    """Asks every atom of an image's prompt, and looks for it in the rewrite.

    Args:
        images: the rows of the images.
        atoms: prompt id → its atoms; images of other prompts are left out.
        answerer: gives the model that answers; None asks about no image.
        maker: who made the atoms, as in the recipe.

    Returns:
        One row for each atom of each image, in the images' order. An image that the safety checker blackened or that
        could not be rendered, and any image where no model answers, has no probabilities; a question that a server
        refuses has none either.

    Raises:
        DataError: an image is damaged, a model gave a wrong number of answers, or a server refuses all questions.
    """
    shown = [(image, atom) for image in images for atom in atoms.get(image.prompt_id, ())]
    model = answerer() if shown else None
    probabilities: dict[int, float] = {}
    if model is not None:
        asked = [k for k, (image, _) in enumerate(shown) if image.missing is None]
        pixels = {id(image): decoded(image) for image in {id(i): i for i, _ in (shown[k] for k in asked)}.values()}
        found = answers_of(model, [pixels[id(shown[k][0])] for k in asked], [shown[k][1] for k in asked])
        if len(found) != len(asked):
            raise DataError(f"a model gave {len(found)} answers to {len(asked)} questions; correct it")
        probabilities = {k: each for k, each in zip(asked, found, strict=True) if isinstance(each, float)}
        if asked and not probabilities:
            raise DataError(f"none of {len(asked)} questions about images was answered; the first: {found[0]}")
    kept = {key: states(*key, maker) for key in {(image.rewrite, atom): None for image, atom in shown}}
    return [
        AtomAnswer(
            candidate_id=image.candidate_id,
            prompt_id=image.prompt_id,
            image_seed=image.image_seed,
            skill=atom.skill,
            question=atom.question,
            probability=probabilities.get(k),
            kept=kept[image.rewrite, atom],
        )
        for k, (image, atom) in enumerate(shown)
    ]
