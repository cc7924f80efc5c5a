"""The memory that `semdpo weigh` takes per pair: the whole command, with an encoder that costs almost nothing.

    python benchmarks/weigh_memory.py

A separate process weighs each of two sizes and reports its peak memory. The difference of the peaks, divided by the
difference of the numbers of pairs, is the cost of a pair; the memory that the program itself needs drops out. The
encoder gives vectors of 768 dimensions, as CLIP ViT-L/14 does: 3 KB per text, if they were kept. The last line is one
JSON object.
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
    """An encoder whose unit vectors are random numbers seeded by the text."""

    def encode(self, texts: Sequence[str]) -> object:
        from semdpo.protocols import Embeddings

        rows = np.array([np.random.default_rng(abs(hash(text))).random(DIMENSIONS, np.float32) for text in texts])
        return Embeddings(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.zeros(len(texts), np.bool_))


def write_pairs(path: Path, count: int) -> int:
    """Writes pairs with DiffusionDB's lengths, two for each prompt; returns the size of their texts in bytes."""
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
    """Weighs a file in this process; returns its peak memory in MB."""
    from semdpo.cli.weigh import weigh_file
    from semdpo.engine import fingerprint, providers

    providers.own_models = lambda: SimpleNamespace(encoder=lambda _: Cheap())
    fingerprint.model = lambda _: "none"
    weigh_file(pairs, out, "cheap", None, 64)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Weighs two sizes, and prints the cost of a pair."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs=2, default=[5_000, 50_000])
    parser.add_argument("--format", choices=FORMATS, default="jsonl", help="format of the file that is written")
    parser.add_argument("--worker", metavar="FILE", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(weigh(given.worker, Path(given.worker).with_name(f"weighed.{given.format}"))))
        return
    peaks, texts = [], []
    with tempfile.TemporaryDirectory() as folder:
        for size in given.sizes:
            file = Path(folder) / "pairs.jsonl"
            texts.append(write_pairs(file, size))
            command = [sys.executable, __file__, "--worker", str(file), "--format", given.format]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            peaks.append(float(output.splitlines()[-1]))
            print(f"{size:>9,} pairs: {peaks[-1]:,.0f} MB at most")
    more = given.sizes[1] - given.sizes[0]
    costs = {
        "kb_per_pair": (peaks[1] - peaks[0]) * 1024 / more,
        "kb_of_text_per_pair": (texts[1] - texts[0]) / 1024 / more,
    }
    print(f"a pair costs {costs['kb_per_pair']:.2f} KB, of which its text is {costs['kb_of_text_per_pair']:.2f} KB")
    print(json.dumps(costs))


if __name__ == "__main__":
    main()
