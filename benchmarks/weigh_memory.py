"""How much memory `semdpo weigh` takes for each pair: the whole command, with an encoder that costs next to nothing.

    python benchmarks/weigh_memory.py

Each size is weighed by a process of its own, which tells the most memory that it held. What two sizes differ by, over
the pairs that they differ by, is what a pair costs; what the program needs in any case drops out. The encoder gives
vectors of 768 dimensions, as CLIP ViT-L/14 does: 3 KB for a text, if they were kept. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np

DIMENSIONS = 768
WORDS = ["castle", "fox", "sailor", "harbor", "robot", "oil painting", "detailed", "golden hour", "sharp", "soft light"]
FORMATS = ("jsonl", "csv", "parquet")


class Cheap:
    """Unit vectors that depend on the text alone."""

    def encode(self, texts: Sequence[str]) -> object:
        from semdpo.protocols import Embeddings

        rows = np.array([np.random.default_rng(abs(hash(text))).random(DIMENSIONS, np.float32) for text in texts])
        return Embeddings(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.zeros(len(texts), np.bool_))


def write_pairs(path: Path, count: int) -> int:
    """Writes pairs with DiffusionDB's lengths, two of each prompt; returns the bytes of their texts."""
    rng, size = random.Random(0), 0
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            prompt = f"{number // 2} " + " ".join(rng.choices(WORDS, k=8))
            row = {
                "prompt": prompt,
                **{side: f"{prompt}, " + " ".join(rng.choices(WORDS, k=20)) for side in ("chosen", "rejected")},
            }
            size += sum(len(text.encode()) for text in row.values())
            file.write(json.dumps(row) + "\n")
    return size


def weigh(pairs: str, out: Path) -> float:
    """Weighs a file in this process; returns the most memory that it held, in MB."""
    from semdpo.cli.weigh import weigh_file
    from semdpo.engine import fingerprint, providers

    providers.own_models = lambda: SimpleNamespace(encoder=lambda _: Cheap())
    fingerprint.model = lambda _: "none"
    weigh_file(pairs, out, "cheap", None, 64)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Weighs two sizes and prints what a pair costs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs=2, default=[5_000, 50_000])
    parser.add_argument("--format", choices=FORMATS, default="jsonl", help="of the file that is written")
    parser.add_argument("--worker", metavar="FILE", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(weigh(given.worker, Path(given.worker).with_name(f"weighed.{given.format}"))))
        return
    held, texts = [], []
    with tempfile.TemporaryDirectory() as folder:
        for size in given.sizes:
            file = Path(folder) / "pairs.jsonl"
            texts.append(write_pairs(file, size))
            command = [sys.executable, __file__, "--worker", str(file), "--format", given.format]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            held.append(float(said.splitlines()[-1]))
            print(f"{size:>9,} pairs: {held[-1]:,.0f} MB at most")
    more = given.sizes[1] - given.sizes[0]
    found = {
        "kb_per_pair": (held[1] - held[0]) * 1024 / more,
        "kb_of_text_per_pair": (texts[1] - texts[0]) / 1024 / more,
    }
    print(f"a pair costs {found['kb_per_pair']:.2f} KB, of which its text is {found['kb_of_text_per_pair']:.2f} KB")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
