"""The load that ``semdpo serve`` takes: 64 clients at once, with batches of up to 16 and with batches of one.

    python benchmarks/serve_load.py                 # 60 seconds each
    python benchmarks/serve_load.py --seconds 5     # a quick try

It starts both servers itself, on free ports of this machine, with the tiny rewriter of the embedded world or with
``--model``. Every client sends its next prompt as soon as it has the answer to the last one. The two servers take
turns, each in two halves of its time, so that other programs on the machine slow both alike. The last line is one
JSON object. Any answer but 200 is an error, and makes the exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx

PROMPTS = Path(__file__).parents[1] / "src/semdpo/tiny_world/data/tuning.jsonl"
SLICES = 2


@contextmanager
def server(model: str, encoder: str | None, batch: int, queue: int) -> Iterator[str]:
    """A server in a process of its own; yields its address."""
    command = [sys.executable, "-m", "semdpo", "serve", "--model", f"m={model}", "--port", "0", "--batch", str(batch)]
    command += ["--queue", str(queue), "--time-limit", "600"] + ([] if encoder is None else ["--encoder", encoder])
    environment = {name: value for name, value in os.environ.items() if name != "SEMDPO_TOKEN"}
    with tempfile.NamedTemporaryFile("w+", encoding="utf-8") as log:
        process = subprocess.Popen(command, stderr=log, env=environment)
        try:
            while not (found := re.search(r" on (http://\S+) ", Path(log.name).read_text(encoding="utf-8"))):
                if process.poll() is not None:
                    sys.exit(Path(log.name).read_text(encoding="utf-8"))
                time.sleep(0.1)
            yield found[1]
        finally:
            process.terminate()
            process.wait()


async def load(url: str, prompts: list[str], clients: int, seconds: float) -> tuple[list[float], list[int]]:
    """The seconds of every answer, and the statuses of those that are not 200."""
    latencies: list[float] = []
    errors: list[int] = []
    number, end = count(), time.perf_counter() + seconds
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)

    async def one(client: httpx.AsyncClient) -> None:
        while time.perf_counter() < end:
            index = next(number)
            body = {"prompt": prompts[index % len(prompts)], "seed": index}
            began = time.perf_counter()
            answer = await client.post("/v1/optimize", json=body)
            latencies.append(time.perf_counter() - began)
            if answer.status_code != 200:
                errors.append(answer.status_code)

    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits, verify=False, trust_env=False) as client:
        await asyncio.gather(*(one(client) for _ in range(clients)))
    return latencies, errors


def summary(latencies: list[float], errors: list[int], seconds: float) -> dict[str, Any]:
    """Percentiles in milliseconds, and answers per second."""
    cuts = statistics.quantiles(latencies, n=100, method="inclusive")
    found = {f"p{p}_ms": round(1000 * cuts[p - 1], 1) for p in (50, 95, 99)}
    return {**found, "per_second": round(len(latencies) / seconds, 2), "answers": len(latencies), "errors": len(errors)}


def main() -> int:
    """Measures, and prints the numbers; 1 where an answer was an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds of load for each server")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--model", default="tiny:gpt2", help="a trained rewriter")
    parser.add_argument("--encoder", default=None)
    asked = parser.parse_args()
    prompts = [json.loads(line)["prompt"] for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    latencies: dict[int, list[float]] = {asked.batch: [], 1: []}
    errors: dict[int, list[int]] = {asked.batch: [], 1: []}
    spent = dict.fromkeys(latencies, 0.0)
    with (
        server(asked.model, asked.encoder, asked.batch, asked.clients) as batched,
        server(asked.model, asked.encoder, 1, asked.clients) as single,
    ):
        for url in (batched, single):  # the first answers are slower: torch and the kernels start
            asyncio.run(load(url, prompts, 2, 0.5))
        for _ in range(SLICES):
            for batch, url in ((asked.batch, batched), (1, single)):
                began = time.perf_counter()
                found, wrong = asyncio.run(load(url, prompts, asked.clients, asked.seconds / SLICES))
                spent[batch] += time.perf_counter() - began
                latencies[batch] += found
                errors[batch] += wrong
    result: dict[str, Any] = {
        f"batch_{batch}": summary(latencies[batch], errors[batch], spent[batch]) for batch in latencies
    }
    first, other = (result[f"batch_{batch}"]["per_second"] for batch in latencies)
    result |= {"clients": asked.clients, "seconds": asked.seconds, "throughput_ratio": round(first / other, 2)}
    for batch in latencies:
        print(f"--batch {batch}: {result[f'batch_{batch}']}")
    print(f"throughput with --batch {asked.batch} / with --batch 1: {result['throughput_ratio']}")
    print(json.dumps(result))
    return int(any(errors.values()))


if __name__ == "__main__":
    sys.exit(main())
