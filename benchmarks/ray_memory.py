"""The memory of a run's first process while a Ray cluster makes the shards of a million prompts.

    python benchmarks/ray_memory.py                    # 245 shards of 4,096 prompts, then 2,450 of 409
    python benchmarks/ray_memory.py --shards 245 --prompt-bytes 4000

Workers give fake shards: random bytes, as many for each prompt as four scores take in a file. The first process writes
them through the store, as a run does. Its own memory (without what it shares with Ray's object store) is measured after
every shard. A line shows the most in each tenth of the shards: ten equal numbers if the memory does not grow. The last
line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil

PROMPTS = 1_000_000


def opened(size: int) -> Callable[[str, int], tuple[bytes, int]]:
    def make(_: str, index: int) -> tuple[bytes, int]:
        return random.Random(index).randbytes(size), 1

    return make


def measure(shards: int, prompt_bytes: int) -> dict[str, object]:
    """Makes and writes the shards; the most of this process's own memory in each tenth of them, in MB."""
    from semdpo.engine import shard_files, store
    from semdpo.engine.ray_workers import RayWorkers
    from semdpo.engine.stage import batched

    size, used, begun = PROMPTS // shards * prompt_bytes, list[float](), time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "label"
        shard_files.start(folder, store.Plan({}, {}))
        with RayWorkers(None, partial(opened, size), {"label": 0.0}) as workers:
            for index, (data, _) in workers.made("label", range(shards)):
                shard_files.write_shard(folder, index, data)
                used.append(psutil.Process().memory_full_info().uss / 2**20)
        assert len(list(folder.glob("part-*"))) == shards
    seconds = time.monotonic() - begun
    tenths = [max(each) for each in batched(used, -(-shards // 10))]
    return {"shards": shards, "seconds": round(seconds, 1), "mb_in_each_tenth": [round(each, 1) for each in tenths]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, nargs="+", default=[245, 2450])
    parser.add_argument("--prompt-bytes", type=int, default=120)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.shards[0], given.prompt_bytes)))
        return
    results = []
    for shards in given.shards:  # a process each
        command = [
            sys.executable,
            __file__,
            "--one",
            "--shards",
            str(shards),
            "--prompt-bytes",
            str(given.prompt_bytes),
        ]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        results.append(json.loads(output.splitlines()[-1]))
        print(
            f"{shards:>6,} shards in {results[-1]['seconds']:.0f} s: MB in each tenth {results[-1]['mb_in_each_tenth']}"
        )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
