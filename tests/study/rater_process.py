"""A rater as a process of its own: answers every trial, and prints the id of each answer that was acknowledged.

It needs the standard library only, so that fifty of them start at once.
"""

from __future__ import annotations

import http.client
import json
import random
import sys
import time
from typing import Any

PATIENCE = 240  # seconds without an answer after which a rater gives up


def ask(host: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """The status and the JSON of an answer; asks again while the server does not answer or cannot store."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            connection = http.client.HTTPConnection(host, timeout=10)
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = json.loads(answer.read())
            connection.close()
            if answer.status < 500:
                return answer.status, content
        except (OSError, http.client.HTTPException, ValueError):
            pass
        if time.monotonic() > end:
            sys.exit("the server never came back")
        time.sleep(0.05 + random.random() / 10)


def main(host: str, link: str, seed: int) -> None:
    generator = random.Random(seed)
    ask(host, "POST", f"{link}/consent", {"agreed": True})
    _, sheet = ask(host, "GET", f"{link}/sheet")
    for trial in sheet["trials"]:
        answer = {
            "answer": f"{generator.getrandbits(128):032x}", "trial": trial["id"], "question": "match",
            "choice": generator.choice(["left", "right"]), "seconds": 1.0,
            "left": trial["left"], "right": trial["right"],
        }  # fmt: skip
        status, said = ask(host, "POST", f"{link}/votes", answer)
        if (status, said) != (200, {"stored": answer["answer"]}):
            sys.exit(f"refused: {status} {said}")
        print(json.dumps(answer), flush=True)
        time.sleep(generator.random() / 50)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
