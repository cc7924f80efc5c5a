"""What the tiny world's people think of a study's images: they look at the image and at the user's request only.

``tiny:judge`` reads from the image what it shows, and ``tiny_world/people.py`` says what that is worth. The judge reads
no styles, so that these raters have no taste in them. Every page and table says that they are simulated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semdpo.errors import DataError
from semdpo.study.design import MATCH
from semdpo.study.plan import Study, image_path
from semdpo.study.simulated import Opinion
from semdpo.texts import shown
from semdpo.tiny_world.facts import parse
from semdpo.tiny_world.grammar import Item, Scene
from semdpo.tiny_world.painter import SIZE
from semdpo.tiny_world.people import FAITH, PICKERS, People, faithfulness, utility
from semdpo.tiny_world.shipped import WEIGHTS


def tiny_opinion(study: Study, people: People = PICKERS) -> Opinion:
    """The opinions of a group of the tiny world's people, without noise, as ``simulate`` takes them.

    Args:
        study: a study of images and requests of the tiny world.
        people: the group.

    Returns:
        A function of the question, the prompt's id and the image's name: for ``match`` the faithfulness to the request,
        times its weight in a utility; for ``prefer`` the utility; for ``artefacts`` how surely the judge reads the
        image, as the mean logarithm of the probabilities of what it reads.

    Raises:
        DataError: a request names nothing of the tiny world, the images have not its size, or the study asks another
            question.
    """
    known = (MATCH, "prefer", "artefacts")
    if others := [question for question in study.plan.questions if question not in known]:
        raise DataError(f"simulated raters cannot answer '{others[0]}'; ask them {', '.join(known)} only")
    if study.plan.size != (SIZE, SIZE):
        width, height = study.plan.size
        raise DataError(
            f"the images have {width} × {height} pixels, and simulated raters know only the tiny world's of {SIZE} × "
            f"{SIZE}; ask people"
        )
    requests = {prompt_id: _asked(prompt) for prompt_id, prompt in study.plan.prompts.items()}
    files = dict.fromkeys(image.sha256 for image in study.plan.images)
    scenes, sure = read_images([image_path(study.folder, sha256) for sha256 in files])
    place = {sha256: k for k, sha256 in enumerate(files)}
    places = {image.name: place[image.sha256] for image in study.plan.images}

    def opinion(question: str, prompt_id: str, name: str) -> float:
        scene, asked = scenes[places[name]], requests[prompt_id]
        if question == MATCH:
            return FAITH * faithfulness(asked, scene)
        return utility(people, asked, scene) if question == "prefer" else float(sure[places[name]])

    return opinion


def _asked(prompt: str) -> Scene:
    """The facts of a request."""
    facts = parse(prompt)
    if not facts.items:
        raise DataError(f"the prompt {shown(prompt)} names nothing of the tiny world, so its people cannot judge it")
    place, time = (values[0] if values else None for values in (facts.places, facts.times))
    return Scene(facts.items[:2], facts.layout or "row", place, time)


def read_images(files: Sequence[Path]) -> tuple[list[Scene], NDArray[np.float64]]:
    """What ``tiny:judge`` sees in images, and how surely it does, the mean log-probability of what it reads, [n]."""
    import torch

    from semdpo.models import tiny_judge
    from semdpo.tiny_world_training import pool

    pixels = []
    for file in files:
        with Image.open(file) as image:
            pixels.append(np.asarray(image.convert("RGB").resize((SIZE, SIZE))))
    with torch.no_grad():
        logits = tiny_judge.load(WEIGHTS / "judge")(pool.to_pixels(np.stack(pixels))).double()
    parts = {name: part.log_softmax(1).max(1) for name, part in tiny_judge.split_facts(logits).items()}
    read = {name: [tiny_judge.FACTS[name][k] for k in part.indices.tolist()] for name, part in parts.items()}
    single = {"count", "thing0", "color0", "place", "time"}  # the facts that every image has
    sure = torch.stack([part.values for name, part in parts.items() if name in single]).mean(0)
    return [_scene({name: values[k] for name, values in read.items()}) for k in range(len(files))], sure.numpy()


def _scene(read: Mapping[str, str]) -> Scene:
    items = [Item(read[f"thing{k}"], read[f"color{k}"], read[f"size{k}"]) for k in range(int(read["count"]))]
    return Scene(tuple(items), read["layout"] if len(items) == 2 else "row", read["place"], read["time"])
