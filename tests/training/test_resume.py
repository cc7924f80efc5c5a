"""Kill -9 in the middle of a training, and go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from semdpo.data.pairs import write_pairs
from tests import tiny_models
from tests.training.test_trainer import PAIRS


def _command(python: Path | str, folder: Path, output: str, objective: str) -> list[str]:
    settings = ["--batch-size", "2", "--epochs", "24", "--checkpoint-steps", "10", "--precision", "float32"]
    settings += ["--objective", objective, "--learning-rate", "1e-3", "--beta", "0.1"]
    places = [str(folder / "pairs.jsonl"), "--model", str(folder / "model"), "-o", str(folder / output)]
    return [str(python), "-m", "semdpo", "train", *places, *settings]


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["sem_dpo", "beta_dpo"])
def test_a_killed_training_goes_on_to_the_same_weights(python: Path, tmp_path: Path, objective: str) -> None:
    tiny_models.gpt2(tmp_path / "model")
    write_pairs(tmp_path / "pairs.jsonl", PAIRS)
    subprocess.run(_command(python, tmp_path, "whole", objective), check=True, capture_output=True)

    process = subprocess.Popen(_command(sys.executable, tmp_path, "killed", objective), stderr=subprocess.DEVNULL)
    checkpoints = tmp_path / "killed.partial.checkpoints"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("checkpoint-*/sha256.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed").exists()
    (checkpoints / "checkpoint-9999").mkdir()  # as when it is killed while one is being written

    again = subprocess.run(_command(python, tmp_path, "killed", objective), check=True, capture_output=True, text=True)
    assert "resuming from checkpoint-" in again.stderr
    assert "checkpoint-9999" not in again.stderr
    whole, killed = ({f.name: f.read_bytes() for f in (tmp_path / n).iterdir()} for n in ("whole", "killed"))
    assert whole == killed
    assert {each.name for each in tmp_path.iterdir()} == {"model", "pairs.jsonl", "whole", "killed"}


@pytest.mark.slow
def test_changed_settings_do_not_go_on_from_another_trainings_checkpoint(python: Path, tmp_path: Path) -> None:
    tiny_models.gpt2(tmp_path / "model")
    write_pairs(tmp_path / "pairs.jsonl", PAIRS)
    stale = tmp_path / "out.partial.checkpoints"
    (stale / "checkpoint-10").mkdir(parents=True)
    (stale / "training.json").write_text("{}")
    again = subprocess.run(_command(python, tmp_path, "out", "dpo"), check=True, capture_output=True, text=True)
    assert "resuming" not in again.stderr
    assert not stale.exists()


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from semdpo.cli import main
main()
"""


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_leaves_nothing_half(tmp_path: Path) -> None:
    """A limit on files' sizes stands in for the disk: torch and safetensors meet it in different words.

    `make coverage` does not measure this process: its file of results would not fit either.
    """
    tiny_models.gpt2(tmp_path / "model")
    write_pairs(tmp_path / "pairs.jsonl", PAIRS)
    command = [sys.executable, "-c", FULL, "200000", *_command("", tmp_path, "out", "dpo")[3:]]
    unmeasured = {name: value for name, value in os.environ.items() if name != "COVERAGE_PROCESS_CONFIG"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=unmeasured)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert "no space left" in result.stderr.splitlines()[-1]
    assert {each.name for each in tmp_path.iterdir()} == {"model", "pairs.jsonl"}
