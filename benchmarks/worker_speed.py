"""The speed of the label stage by the number of processes: this process alone, one worker, two, …

    python benchmarks/worker_speed.py                    # the embedded world, 200 prompts, 1 and 2 workers
    python benchmarks/worker_speed.py --workers 1 2 4 --recipe my.yaml --prompts 2000

All commands compute with one thread a process, take turns, and label the same candidates. Their seconds are the stage's
own (``timing.json``): they include starting the processes and loading the models. The last line is one JSON object.
If the files differ, the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

STAGES = ("prompts", "sft", "candidates")


def run(recipe: str, prompts: int, folder: Path, only: str, *more: str) -> None:
    command = [sys.executable, "-m", "semdpo", "run", recipe, "--out", str(folder), "--only", only, *more]
    command += ["--set", f"prompts.limit={prompts}"]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    ways = {"alone": (), **{str(count): ("--workers", str(count)) for count in arguments.workers}}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    files: set[bytes] = set()
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place) / "run"
        for stage in STAGES:
            run(arguments.recipe, arguments.prompts, whole, stage)
        for number in range(arguments.rounds):
            for name, more in ways.items():
                folder = Path(shutil.copytree(whole, Path(place) / f"{name}-{number}"))
                run(arguments.recipe, arguments.prompts, folder, "label", *more)
                seconds[name].append(json.loads((folder / "label/timing.json").read_text())["seconds"])
                files.add((folder / "label/manifest.json").read_bytes())
                print(f"{name}: {seconds[name][-1]:.1f} s", flush=True)
    means = {name: statistics.mean(each) for name, each in seconds.items()}
    ratios = {name: round(means["alone"] / each, 2) for name, each in means.items()}
    print(json.dumps({"seconds": seconds, "times_as_fast_as_alone": ratios, "same_files": len(files) == 1}))
    sys.exit(len(files) != 1)


if __name__ == "__main__":
    main()
