"""Rebuilds the tiny world from scratch: paints images, trains and measures every model, and writes the card.

Models are built in parallel worker processes, each as soon as the models that it needs are finished. An interrupted
build resumes, and a finished model is skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from semdpo.engine import fingerprint
from semdpo.errors import ConfigError, ModelError, did_you_mean
from semdpo.progress import Progress, bar, quiet_libraries, say
from semdpo.tiny_world import shipped

PACKAGE = shipped.WEIGHTS.parent
POOL_SIZE = 30_000


@dataclass(frozen=True, slots=True)
class Model:
    """One model of the world: its number of updates, the models it needs, and whether it is shipped separately."""

    name: str
    steps: int
    needs: tuple[str, ...] = ()
    shipped: bool = True


MODELS = (
    Model("gpt2", 1600),
    Model("vae", 2600, shipped=False),  # shipped inside sd
    Model("clip", 1400),
    Model("clip-b", 1500),
    Model("judge", 1200),
    Model("sd", 4000, needs=("vae", "clip", "clip-b", "judge")),
    Model("blip-itm", 1600),
    Model("image-reward", 1600),
    Model("pickscore", 500, needs=("clip-b",)),
    Model("hps", 500, needs=("clip-b",)),
)
BY_NAME = {model.name: model for model in MODELS}


def _builder(name: str) -> Callable[[Path, Path, int, int, Progress], dict[str, float]]:
    # Imported here, so that --help does not wait for torch.
    from semdpo.tiny_world_training import blip, clip, diffusion, gpt2, judge, preference, vae

    builders: dict[str, Callable[[Path, Path, int, int, Progress], dict[str, float]]] = {
        "vae": vae.build,
        "clip": partial(clip.build, clip.CLIP),
        "clip-b": partial(clip.build, clip.CLIP_B),
        "judge": judge.build,
        "gpt2": gpt2.build,
        "sd": diffusion.build,
        "blip-itm": blip.build,
        "image-reward": preference.build_image_reward,
        "pickscore": preference.build_pickscore,
        "hps": preference.build_hps,
    }
    return builders[name]


def build_one(name: str, folder: Path, pool_size: int, steps: int, progress: Progress) -> dict[str, Any]:
    """Builds one model in this process; its ``quality.json`` is written last, and marks it as finished.

    Args:
        name: The name of one of `MODELS`.
        folder: The build folder, in which the models that this one needs must be finished.
        pool_size: The number of painted images in the pool.
        steps: The number of updates.
        progress: The progress callback.

    Returns:
        The content of ``quality.json``: quality, configuration and seconds.

    Raises:
        ModelError: A model that this one needs is not finished.
    """
    missing = [need for need in BY_NAME[name].needs if not (folder / need / "quality.json").exists()]
    if missing:
        raise ModelError(f"{name} needs {', '.join(missing)}; build that first: semdpo world build {' '.join(missing)}")
    begun, made_from = time.monotonic(), _made_from(folder, BY_NAME[name])
    checkpoints = [folder / f"{name}.fit.pt", folder / f"{name}-towers.fit.pt"]
    started = folder / f"{name}.started.json"
    if started.exists() and json.loads(started.read_text()) != made_from:  # the begun training used other weights
        for checkpoint in checkpoints:
            checkpoint.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    started.write_text(json.dumps(made_from))
    quality = _builder(name)(folder, folder / name, pool_size, steps, progress)
    record = {
        "made_from": made_from,
        "quality": {key: round(value, 4) for key, value in quality.items()},
        "configuration": {**asdict(BY_NAME[name]), "steps": steps, "pictures": pool_size},
        "seconds": round(time.monotonic() - begun),
    }
    unfinished = folder / name / "quality.json.partial"
    unfinished.write_text(json.dumps(record, indent=2) + "\n")
    unfinished.replace(folder / name / "quality.json")
    for leftover in (*checkpoints, started):
        leftover.unlink(missing_ok=True)
    return record


def _made_from(folder: Path, model: Model) -> dict[str, str]:
    """The fingerprints of the weights that a model needs, as they are now."""
    return {need: fingerprint.folder(folder / need, ("*.safetensors",)) for need in model.needs}


def _finished(folder: Path, model: Model) -> bool:
    """Whether a model is finished, from the weights as they are now; older builds did not record their weights."""
    path = folder / model.name / "quality.json"
    if not path.exists() or not all(_finished(folder, BY_NAME[need]) for need in model.needs):
        return False
    return json.loads(path.read_text()).get("made_from") in (None, _made_from(folder, model))


def _relay(name: str, stream: IO[str]) -> None:
    with stream:
        for line in stream:
            say(f"{name} | {line.rstrip()}")


def _start(name: str, folder: Path, pool_size: int, threads: int) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "semdpo.tiny_world_training.build",
        name,
        str(folder),
        str(pool_size),
        str(BY_NAME[name].steps),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    threading.Thread(target=_relay, args=(name, process.stderr), daemon=True).start()
    return process


def build(models: Sequence[str], out: Path, jobs: int = 2, pool_size: int = POOL_SIZE) -> None:
    """Builds models in parallel, each with its share of the CPU cores.

    Args:
        models: The names of the models, or none for all; the models that they need are built too.
        out: The build folder; a finished model there is kept, and an interrupted one resumes.
        jobs: The number of models built at a time.
        pool_size: The number of painted images in the pool.

    Raises:
        ConfigError: A name is unknown.
        ModelError: A build failed; its last lines were printed before.
    """
    from semdpo.tiny_world_training import pool

    for name in models:
        if name not in BY_NAME:
            raise ConfigError(f"there is no tiny model '{name}'{did_you_mean(name, BY_NAME)}")
    selected = {need for name in models or BY_NAME for need in (name, *BY_NAME[name].needs)}
    waiting = [model for model in MODELS if model.name in selected and not _finished(out, model)]
    say(f"painting {pool_size} images …")
    pool.training_pool(out, pool_size, jobs)
    running: dict[str, subprocess.Popen[str]] = {}
    threads = max(1, (os.cpu_count() or 1) // jobs)
    try:
        while waiting or running:
            ready = [m for m in waiting if all(_finished(out, BY_NAME[need]) for need in m.needs)]
            for model in ready[: jobs - len(running)]:
                say(f"{model.name}: started")
                running[model.name] = _start(model.name, out, pool_size, threads)
                waiting.remove(model)
            time.sleep(1)
            for name, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[name]
                if process.returncode:
                    raise ModelError(
                        f"building {name} failed; run the same command again to resume from its last checkpoint"
                    )
                record = json.loads((out / name / "quality.json").read_text())
                say(f"{name}: finished in {record['seconds']} s, {record['quality']}")
    finally:
        for process in running.values():
            process.terminate()


def ship(out: Path, package: Path = PACKAGE) -> None:
    """Copies all models into the package in half precision, and writes the data and the card.

    Args:
        out: The build folder, in which every model must be finished.
        package: The folder to write ``weights/``, ``data/`` and ``card.json`` into.

    Raises:
        ModelError: A model is not finished.
    """
    from semdpo.tiny_world_training import texts as data
    from semdpo.tiny_world_training.shipping import halve_into

    unfinished = [model.name for model in MODELS if not _finished(out, model)]
    if unfinished:
        raise ModelError(f"not finished: {', '.join(unfinished)}; run `semdpo world build` first")
    card = {}
    for model in MODELS:
        record = json.loads((out / model.name / "quality.json").read_text())
        if model.shipped:
            target = package / "weights" / model.name
            halve_into(out / model.name, target)
            files = sorted(target.rglob("*.safetensors"))
            digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
            record |= {"sha256": digest, "megabytes": round(sum(f.stat().st_size for f in files) / 1e6, 2)}
        card[model.name] = record
    data.write(package / "data")
    (package / "card.json").write_text(json.dumps(card, indent=2) + "\n")


def main(arguments: Sequence[str]) -> None:
    """Runs as a worker process, with the arguments NAME FOLDER POOL_SIZE STEPS."""
    import torch

    quiet_libraries()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    name, folder, pool_size, steps = arguments
    _builder(name)  # import everything, so that the next line can silence it
    quiet_libraries()
    with bar("training") as progress:
        build_one(name, Path(folder), int(pool_size), int(steps), progress)


if __name__ == "__main__":
    main(sys.argv[1:])
