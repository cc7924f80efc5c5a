"""After the evaluation: which facts of its prompt each image shows, and each rewrite states; see ``stages.atoms``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING

from semdpo.analysis.atoms import states
from semdpo.data.atoms import Atom, AtomAnswer, by_prompt
from semdpo.data.records import RenderedImage
from semdpo.engine.stage import Made, Run, Shard, TableStage
from semdpo.errors import DataError
from semdpo.models.scoring import decoded
from semdpo.progress import Progress
from semdpo.protocols import Answerer
from semdpo.recipe.atoms import AtomsConfig
from semdpo.recipe.schema import Recipe

if TYPE_CHECKING:
    pass

VERSION = 1  # of how a text is found to state an atom


def name_of(method: str) -> str:
    """The stage that holds the answers about a method's images."""
    return f"evaluate/{method}/atoms"


def stages(recipe: Recipe, images: Mapping[str, str]) -> list[TableStage]:
    """The stages that ask about every method's images; none where the recipe has no section of atoms.

    Args:
        recipe: the validated recipe.
        images: method → the stage that holds its images.
    """
    config = recipe.atoms
    if config is None:
        return []
    settings = {
        "maker": config.maker,
        "version": VERSION,
        "scoring": recipe.scoring.of_results(),
        "model": config.model,
    }
    outside = {} if config.model is None else {"atoms.model": config.model}
    return [
        TableStage(
            name_of(method), "asking about images", settings, (stage, "atoms"), outside, AtomAnswer,
            partial(_work, config, stage), shown_as="evaluate/…/atoms", pool="score",
        )
        for method, stage in images.items()
    ]  # fmt: skip


def _work(config: AtomsConfig, stage: str, run: Run) -> list[Shard]:
    images = run.shards(stage, RenderedImage)
    atoms = cache(lambda: by_prompt(run.rows("atoms", Atom)))
    answerer = cache(lambda: None if config.model is None else run.models.answerer(config.model, run.recipe.scoring))

    def make(index: int, progress: Progress) -> Made:
        rows = images.read(index)
        answers = answered(rows, atoms(), answerer, config.maker)
        progress(len(rows), len(rows))
        return answers, {"images_without": sum(row.prompt_id not in atoms() for row in rows)}

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
        could not be rendered, and any image where no model answers, has no probabilities.

    Raises:
        DataError: an image is damaged, or a model gave a wrong number of answers.
    """
    shown = [(image, atom) for image in images for atom in atoms.get(image.prompt_id, ())]
    model = answerer() if shown else None
    probabilities: dict[int, float] = {}
    if model is not None:
        asked = [k for k, (image, _) in enumerate(shown) if image.missing is None]
        pixels = {id(image): decoded(image) for image in {id(i): i for i, _ in (shown[k] for k in asked)}.values()}
        questions = [(shown[k][1].question, shown[k][1].answer) for k in asked]
        found = model.answer([pixels[id(shown[k][0])] for k in asked], questions)
        if len(found) != len(asked):
            raise DataError(f"a model gave {len(found)} answers to {len(asked)} questions; correct it")
        probabilities = dict(zip(asked, map(float, found), strict=True))
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
