"""The images of a run's evaluation that a study shows: one of every method and prompt, all encoded alike."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from semdpo.data.records import RenderedImage
from semdpo.engine import store
from semdpo.engine.stage import Run
from semdpo.errors import ConfigError, DataError, StoreError, did_you_mean
from semdpo.models.scoring import decoded
from semdpo.stages.evaluate import evaluation
from semdpo.study.assignment import below, drawn
from semdpo.study.encoding import png, same_size
from semdpo.texts import given_twice

Key = tuple[str, str]  # prompt_id, method


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What a study takes from a run.

    Attributes:
        methods: the compared methods.
        prompts: the ids of the drawn prompts, in the run's order.
        rows: the rows of the images without the images themselves; those that show nothing are left out.
        unrendered: the images that could not be rendered.
        pngs: the images as PNG, all of one size.
        inputs: stage → the SHA-256 of its manifest.
        size: width and height, pixels.
        resized: whether any image was resized.
    """

    methods: tuple[str, ...]
    prompts: Sequence[str]
    rows: Mapping[Key, RenderedImage]
    unrendered: Collection[Key]
    pngs: Mapping[Key, bytes]
    inputs: Mapping[str, str]
    size: tuple[int, int]
    resized: bool


def read_evaluated(run: Run, methods: Sequence[str], prompts: int | None, seed: int) -> Evaluated:
    """Reads the images of a finished evaluation. Every prompt has one image seed, which is drawn, for all methods.

    Args:
        run: the run.
        methods: the methods; empty takes the two that the run's report compares first.
        prompts: the number of prompts to draw; None takes all.
        seed: the seed of the draws.

    Raises:
        ConfigError: there are fewer than two methods, an unknown one, or fewer prompts than wanted.
        StoreError: the evaluation of a method is not finished, or damaged.
        DataError: the methods were not evaluated on the same prompts and image seeds, an image is damaged, or no
            image is left.
    """
    chosen = _methods(run, methods)
    stages = {method: evaluation(run.recipe).images_stage(method) for method in chosen}
    tables = {method: _rows(run, stage, method) for method, stage in stages.items()}
    ids = _drawn_prompts(tables, prompts, seed)
    seeds = {prompt_id: _drawn_seed(tables, prompt_id, seed) for prompt_id in ids}
    rows, images, unrendered = dict[Key, RenderedImage](), {}, set[Key]()
    for method, stage in stages.items():
        table = tables[method]
        drawn_ones = [k for k, row in enumerate(table) if seeds.get(row.prompt_id) == row.image_seed]
        places = [k for k in drawn_ones if table[k].missing is None]
        unrendered |= {(table[k].prompt_id, method) for k in drawn_ones if table[k].error is not None}
        cells = run.shards(stage, RenderedImage).cells("image", places)
        for place, cell in zip(places, cells, strict=True):
            key = (table[place].prompt_id, method)
            rows[key], images[key] = table[place], decoded(replace(table[place], image=cell))
    if not images:
        why = "could not be rendered" if unrendered else "were blackened by the safety checker"
        raise DataError(f"all images {why}, so there is nothing to compare; evaluate others")
    same, resized = same_size(list(images.values()))
    return Evaluated(
        chosen,
        ids,
        rows,
        unrendered,
        {key: png(image) for key, image in zip(images, same, strict=True)},
        {stage: store.manifest_hash(run.folder / stage) for stage in stages.values()},
        same[0].size,
        resized,
    )


def _methods(run: Run, given: Sequence[str]) -> tuple[str, ...]:
    report, known = run.recipe.report, evaluation(run.recipe).models
    methods = tuple(given) or (report.subject, report.baseline)
    if unknown := [method for method in methods if method not in known]:
        raise ConfigError(f"the run has no method '{unknown[0]}'{did_you_mean(unknown[0], known)}")
    if twice := given_twice(methods):
        raise ConfigError(f"the method '{twice}' is given twice; give it once")
    if len(methods) < 2:
        raise ConfigError(f"a study compares two methods or more, not only '{methods[0]}'; give another --method")
    return methods


def _rows(run: Run, stage: str, method: str) -> list[RenderedImage]:
    if not store.is_complete(run.folder / stage):
        raise StoreError(f"{run.folder} has no images of '{method}' yet; make them with `semdpo run` or `evaluate`")
    return run.rows(stage, RenderedImage, unread={"image": b""})


def _drawn_prompts(tables: Mapping[str, Sequence[RenderedImage]], wanted: int | None, seed: int) -> list[str]:
    """The drawn prompts in the run's order."""
    places = {method: {(row.prompt_id, row.image_seed) for row in rows} for method, rows in tables.items()}
    first = next(iter(tables))
    for method, others in places.items():
        if unpaired := places[first] ^ others:
            raise DataError(
                f"the images of '{first}' and '{method}' cannot be paired: {len(unpaired)} belong to one of them only "
                f"(prompt {min(unpaired)[0]}); evaluate both on the same prompts and image seeds"
            )
    ids = list(dict.fromkeys(row.prompt_id for row in tables[first]))
    if wanted is not None and wanted > len(ids):
        raise ConfigError(f"--prompts is {wanted}, but the run evaluated {len(ids)} prompts only; give fewer")
    chosen = set(sorted(ids, key=lambda prompt_id: drawn(seed, "prompt", prompt_id))[:wanted])
    return [prompt_id for prompt_id in ids if prompt_id in chosen]


def _drawn_seed(tables: Mapping[str, Sequence[RenderedImage]], prompt_id: str, seed: int) -> int:
    seeds = sorted({row.image_seed for row in next(iter(tables.values())) if row.prompt_id == prompt_id})
    return seeds[below(len(seeds), seed, "image seed", prompt_id)]
