"""Memory, time and storage of every stage, by the number of prompts, with stand-ins for the models.

    python benchmarks/scale.py
    python benchmarks/scale.py --sizes 200 2000 --stages candidates label

The stand-ins cost next to nothing (constant rewrites, images of one pixel), so that semdpo's own code is measured. A
new process makes each stage, and reports its peak memory and its seconds; both include the start of Python and the
checks of all stages before. One held-out prompt comes with ten training prompts. ``weigh`` and ``audit`` read a file
of as many pairs as there are prompts. The last column of the table is the growth of the peak from the second largest
size to the largest. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

STYLES = ["oil painting", "watercolour", "a photograph", "pencil drawing", "a mosaic", "pixel art", "an etching"]
SETTINGS = [
    "candidates.n=2",
    "atoms=null",
    "train.methods={sem_dpo: {name: sem_dpo, alpha: 4.0}}",
    "evaluate.metrics={clip: tiny:clip, image_reward: tiny:image-reward}",
    "evaluate.image_seeds=[0]",
    "evaluate.also={}",
    "report.fidelity=[clip]",
    "report.preference=[image_reward]",
    "report.baseline=sft",
    "report.facts=null",
    "prompts.limit=null",
    "prompts.test_limit=null",
]


# ------------------------------------------------------------------------------------------------- stand-ins


class Rewriter:
    """Adds a style; the styles of a prompt differ."""

    def rewrite(self, prompts: Sequence[str], n: int, _: int) -> list[list[str]]:
        return [[f"{prompt}, {STYLES[(len(prompt) + k) % len(STYLES)]}" for k in range(n)] for prompt in prompts]

    def tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]


class Renderer:
    """Gives one image of one pixel for every text."""

    def __init__(self) -> None:
        from PIL import Image

        self.image = Image.new("RGB", (1, 1))

    def render(self, prompts: Sequence[str], _: Sequence[int]) -> list[Any]:
        return [self.image] * len(prompts)


class Scorer:
    """Its values differ from image to image, and lie between 0 and 1."""

    def __init__(self) -> None:
        self.scored = 0

    def score(self, images: Sequence[Any], prompts: Sequence[str]) -> Any:
        import numpy as np

        from semdpo.protocols import ScoreBatch

        self.scored += len(images)
        values = np.arange(self.scored - len(images), self.scored) * 0.618 % 1
        return ScoreBatch(values.astype(np.float32), np.zeros(len(prompts), np.bool_))


class Encoder:
    """Its unit vectors point where the text's checksum says."""

    def encode(self, texts: Sequence[str]) -> Any:
        import numpy as np

        from semdpo.protocols import Embeddings

        angles = np.array([zlib.crc32(text.encode()) % 1000 / 1000 for text in texts])
        vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
        return Embeddings(vectors, np.zeros(len(texts), np.bool_))


def stand_ins() -> Any:
    """The models of a run, and trainings that write a file and no weights."""
    from semdpo.data.records import Curve, PairLoss
    from semdpo.engine.providers import Models

    def train(folder: Path) -> list[Curve]:
        (folder / "weights.txt").write_text("none")
        return [Curve("any", 0, "loss", 0.7)]

    # In place of the modules, which import transformers.
    sys.modules["semdpo.models.rewriter_settings"] = SimpleNamespace(name_encoder=lambda *_: None)  # type: ignore
    sys.modules["semdpo.training.fine_tune"] = SimpleNamespace(fine_tune=lambda *given: train(given[2]))  # type: ignore
    sys.modules["semdpo.training.preference"] = SimpleNamespace(train=lambda *given: train(given[4]))  # type: ignore
    sys.modules["semdpo.training.losses"] = SimpleNamespace(  # type: ignore
        losses_of=lambda *_: lambda pairs, _: [PairLoss(p.pair_id, p.distance or 0.0, 0.7) for p in pairs]
    )
    return Models(
        lambda *_: Rewriter(), lambda _: Renderer(), lambda *_: Scorer(), lambda _: Encoder(), lambda name: name[-8:]
    )


# ------------------------------------------------------------------------------------------------- one process


def write_inputs(folder: Path, size: int) -> None:
    """Writes the prompts of a run, and a file of as many pairs."""
    words = ["castle", "fox", "sailor", "harbor", "robot", "lantern", "orchard", "bridge"]
    texts = [" ".join(["a", *(words[(k // 8**place) % 8] for place in range(8)), str(k)]) for k in range(size)]
    (folder / "ask.txt").write_text("\n".join(texts))
    (folder / "held.txt").write_text("\n".join(f"held out: {text}" for text in texts[: size // 10]))
    (folder / "rewrites.jsonl").write_text('{"prompt": "a", "rewrite": "b"}\n')
    with (folder / "pairs.jsonl").open("w") as file:
        for k, text in enumerate(texts):
            sides = {
                side: f"{text}, {STYLES[(k + n) % 7]}, highly detailed" for n, side in enumerate(("chosen", "rejected"))
            }
            file.write(json.dumps({"prompt": text, **sides}) + "\n")


def recipe_of(folder: Path) -> Any:
    """The tiny recipe with the benchmark's prompts."""
    from semdpo.recipe.load import load_recipe

    files = {"prompts.file": "ask.txt", "prompts.test_file": "held.txt", "sft.file": "rewrites.jsonl"}
    return load_recipe("tiny", [*(f"{key}={folder / name}" for key, name in files.items()), *SETTINGS])


def make(stage: str, folder: Path) -> None:
    """Makes one stage in this process, or runs one of the commands."""
    models = stand_ins()
    if stage in ("weigh", "audit"):
        from semdpo.cli.audit import audit_file
        from semdpo.cli.weigh import weigh_file
        from semdpo.engine import fingerprint, providers

        providers.own_models = lambda: models
        fingerprint.model = lambda _: "none"
        if stage == "weigh":
            weigh_file(str(folder / "pairs.jsonl"), folder / "weighed.jsonl", "cheap", None, 64)
        else:
            audit_file(str(folder / "weighed.jsonl"), "cheap", 4.0, None, None, None, [])
        return
    from semdpo import pipeline

    pipeline.run(recipe_of(folder), folder / "run", only=stage, models=models)


def report_on(stage: str, folder: Path) -> dict[str, float]:
    """Makes one stage; returns the peak memory and the storage in bytes, the seconds and the number of files."""
    begun = time.monotonic()
    make(stage, folder)
    seconds = time.monotonic() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    place = folder / "weighed.jsonl" if stage == "weigh" else folder / "run" / stage
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return {"peak": peak, "seconds": seconds, "stored": sum(f.stat().st_size for f in files), "files": len(files)}


# ------------------------------------------------------------------------------------------------- all of them


def in_new_process(*arguments: str) -> Any:
    """What this file prints on its last line as JSON, run with other arguments."""
    done = subprocess.run([sys.executable, __file__, *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measured(size: int, wanted: Sequence[str]) -> dict[str, dict[str, float]]:
    """Makes the stages of a run of some size up to the last one that is wanted; returns the figures of the wanted."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder), size)
        stages = [*in_new_process("--list", folder), "report"]
        shown = [name for name in stages if not wanted or any(f"{name}/".startswith(f"{each}/") for each in wanted)]
        needed = stages[: stages.index(shown[-1]) + 1] if shown else []
        files = [name for name in ("weigh", "audit") if not wanted or {name, "audit"} & set(wanted)]
        for stage in [*needed, *files]:
            figures = in_new_process("--stage", stage, folder)
            print(f"{size:>9,} {stage}: {figures}", file=sys.stderr, flush=True)
            if stage in shown or stage in files:
                found[stage] = figures
    return found


def main() -> None:
    """Measures all sizes, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="numbers of prompts")
    parser.add_argument("--stages", nargs="+", default=[], help="the stages to show; all without it")
    parser.add_argument("--list", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--stage", nargs=2, metavar=("STAGE", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.list:
        from semdpo.stages.flow import flow

        print(json.dumps([stage.name for stage in flow(recipe_of(Path(given.list)))]))
        return
    if given.stage:
        print(json.dumps(report_on(given.stage[0], Path(given.stage[1]))))
        return
    sizes = sorted(given.sizes)
    by_size = {size: measured(size, given.stages) for size in sizes}
    head = [f"peak MB, {size:,}" for size in sizes] + [f"seconds, {size:,}" for size in sizes]
    print("| stage | " + " | ".join(head) + " | bytes per prompt | peak grows |")
    print("|---|" + "--:|" * (len(head) + 2))
    for stage in by_size[sizes[-1]]:
        rows = [by_size[size][stage] for size in sizes]
        cells = [f"{row['peak'] / 1e6:,.0f}" for row in rows] + [f"{row['seconds']:,.1f}" for row in rows]
        growth = f"{rows[-1]['peak'] / rows[-2]['peak'] - 1:+.0%}" if len(rows) > 1 else ""
        print(f"| {stage} | " + " | ".join(cells) + f" | {rows[-1]['stored'] / sizes[-1]:,.0f} | {growth} |")
    print(json.dumps(by_size))


if __name__ == "__main__":
    main()
