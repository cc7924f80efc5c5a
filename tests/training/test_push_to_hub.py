"""``push_to_hub`` uploads a whole rewriter, here to a server on this machine that speaks the hub's protocol."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests import tiny_models

SCRIPT = """
import sys
from semdpo import PreferenceConfig, PreferenceTrainer
words = "red", "blue"
rows = [{"prompt": f"a {w} cat", "chosen": f"a {w} cat, oil", "rejected": "a dog", "distance": 0.1} for w in words]
quiet = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no"}
args = PreferenceConfig(output_dir="out", hub_model_id="me/rewriter", **quiet)
trainer = PreferenceTrainer(sys.argv[1], args=args, train_dataset=rows)
trainer.train()
trainer.push_to_hub()
"""


class Hub:
    """What was committed: path → content."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Nothing goes to the terminal."""

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/api/repos/create":
                    self._answer({"url": f"{hub.address}/me/rewriter", "name": "me/rewriter"})
                elif self.path == "/api/validate-yaml":
                    self._answer({"errors": [], "warnings": []})
                elif "/preupload/" in self.path:
                    asked = json.loads(body)["files"]
                    modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]
                    self._answer({"files": modes})
                else:
                    lines = [json.loads(line) for line in body.splitlines() if line]
                    for line in lines:
                        if line["key"] == "file":
                            hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                    url = f"{hub.address}/me/rewriter/commit/{'0' * 40}"
                    self._answer({"success": True, "commitOid": "0" * 40, "commitUrl": url})

            def do_GET(self) -> None:
                self._answer({"id": "me/rewriter", "name": "me", "type": "user", "sha": "0" * 40})

            def _answer(self, answer: dict[str, object]) -> None:
                data = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def hub() -> Iterator[Hub]:
    found = Hub()
    thread = threading.Thread(target=found.server.serve_forever, daemon=True)
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()


@pytest.mark.slow
def test_what_is_pushed_is_a_whole_rewriter_with_its_card(hub: Hub, tmp_path: Path) -> None:
    model = tiny_models.gpt2(tmp_path / "start")
    more = {"HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_none", "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_XET": "1"}
    environment = os.environ | more | {"SEMDPO_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
    asked = [sys.executable, "-c", SCRIPT, str(model)]
    done = subprocess.run(asked, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"config.json", "model.safetensors", "semdpo.json", "tokenizer.json", "README.md"} <= hub.files.keys()
    card = hub.files["README.md"].decode()
    assert "# Prompt rewriter (sem_dpo)" in card
    assert "| objective | " in card
    assert json.loads(hub.files["semdpo.json"])["template"]
