"""Two processes learn what one does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType
from safetensors.torch import load_file

from semdpo.data.pairs import write_pairs
from semdpo.data.records import Curve
from semdpo.engine.parquet import read_file
from tests import tiny_models
from tests.training.test_trainer import PAIRS

SETTINGS = ["--batch-size", "4", "--epochs", "2", "--learning-rate", "1e-3", "--beta", "0.1", "--precision", "float32"]
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]


def _run(python: Path, *command: str, **more: str) -> str:
    """Runs Python, as every process that it launches is run, and gives what it said."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHON_EXEC": str(python)} | more
    asked = [str(python), *command]
    done = subprocess.run(asked, capture_output=True, text=True, env=environment, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stderr


def _train(python: Path, folder: Path, output: str, objective: str, launch: list[str], more: list[str]) -> list[Curve]:
    places = [str(folder / "pairs.jsonl"), "--model", str(folder / "model"), "-o", str(folder / output)]
    said = _run(python, *launch, "-m", "semdpo", "train", *places, *SETTINGS, "--objective", objective, *more)
    assert said.count("wrote ") == 1  # one of them speaks
    return read_file(folder / output / "curves.parquet", Curve)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "more"), [("sem_dpo", ["--micro-batch-size", "1"]), ("kto", []), ("beta_dpo", [])]
)
def test_two_processes_take_the_same_way_as_one(python: Path, tmp_path: Path, objective: str, more: list[str]) -> None:
    tiny_models.gpt2(tmp_path / "model")
    write_pairs(tmp_path / "pairs.jsonl", PAIRS)  # ten: the last batch is a short one
    one = _train(python, tmp_path, "one", objective, [], [])
    two = _train(python, tmp_path, "two", objective, LAUNCH, more)
    assert [(c.step, c.name) for c in one] == [(c.step, c.name) for c in two]
    for a, b in zip(one, two, strict=True):
        assert a.value == pytest.approx(b.value, abs=1e-5), (a.step, a.name)
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("one", "two")]
    assert max(float((weights[0][k] - weights[1][k]).abs().max()) for k in weights[0]) < 1e-5


@pytest.mark.parametrize("name", ["fsdp2", "zero3"])
def test_accelerate_reads_the_files_that_ship(name: str) -> None:
    path = Path(__file__).parents[2] / "recipes" / "accelerate" / f"{name}.yaml"
    found = load_config_from_file(str(path))
    assert found.num_processes == 2
    assert found.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)


SHARDED = """
import os
import sys

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from semdpo.objectives import dpo
from semdpo.models.rewriter import load_causal
from semdpo.training.logps import group_logps
from semdpo.training.prepare import prepare
from semdpo.training.packing import Group

model, _ = load_causal(sys.argv[1])
assert prepare(model)
rank = 0
if len(sys.argv) > 3:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
    for block in model.transformer.h:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert all(isinstance(each, DTensor) for each in model.parameters())
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
groups = [Group((k, 2), ((3, 4 + k), (5,))) for k in range(4)]
own = groups[2 * rank : 2 * rank + 2] if len(sys.argv) > 3 else groups
for _ in range(3):
    chosen, rejected = group_logps(model, own, True).view(-1, 2).T
    loss = dpo(chosen, rejected, torch.full_like(chosen, -9), torch.full_like(chosen, -8), beta=0.1).losses.mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
weights = {name: (p.full_tensor() if isinstance(p, DTensor) else p).detach() for name, p in model.named_parameters()}
if rank == 0:
    torch.save(weights, sys.argv[2])
if len(sys.argv) > 3:
    dist.barrier()
    os._exit(0)  # gloo's threads may abort a Python that closes in the usual way
"""


@pytest.mark.slow
def test_a_sharded_model_learns_the_same(python: Path, tmp_path: Path) -> None:
    """FSDP2 over gloo. accelerate offers FSDP for accelerators only, so torch's own call is tested here."""
    model = str(tiny_models.gpt2(tmp_path / "model"))
    script = tmp_path / "sharded.py"
    script.write_text(SHARDED)
    for launch, out, more in (([], "one", []), (TORCHRUN, "two", ["sharded"])):
        _run(python, *launch, str(script), model, str(tmp_path / out), *more)
    one, two = (torch.load(tmp_path / name, weights_only=True) for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-5)


PUBLIC = """
import os, sys
import torch.distributed as dist
from semdpo import PreferenceConfig, PreferenceTrainer
processes = int(sys.argv[3])
rows = [
    {"prompt": f"a {w} cat", "chosen": f"a {w} cat, oil", "rejected": "a dog", "distance": 0.1 * k}
    for k, w in enumerate(("red", "blue", "green", "white", "black", "pink", "gold", "grey"))
]
quiet = {"report_to": "none", "disable_tqdm": True, "bf16": False, "learning_rate": 1e-3, "num_train_epochs": 2}
every = {"save_strategy": "epoch", "eval_strategy": "epoch", "per_device_train_batch_size": 4 // processes}
args = PreferenceConfig(output_dir=sys.argv[2], **quiet, **every)
trainer = PreferenceTrainer(sys.argv[1], args=args, train_dataset=rows, eval_dataset=rows[:3])
trainer.train()
trainer.save_model(sys.argv[2] + "/final")
if processes > 1:
    dist.barrier()
    os._exit(0)  # gloo's threads may abort a Python that closes in the usual way
"""


@pytest.mark.slow
def test_the_public_trainer_learns_the_same_in_two_processes(python: Path, tmp_path: Path) -> None:
    model = str(tiny_models.gpt2(tmp_path / "model"))
    (tmp_path / "public.py").write_text(PUBLIC)
    script, cache = str(tmp_path / "public.py"), str(tmp_path / "cache")
    for launch, out, count in (([], "one", "1"), (TORCHRUN, "two", "2")):
        _run(python, *launch, script, model, str(tmp_path / out), count, SEMDPO_CACHE=cache)
    one, two = (load_file(tmp_path / name / "final/model.safetensors") for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-5)
    assert (tmp_path / "two/checkpoint-4/semdpo.json").is_file()
