"""What the second device catches; where it would not, no test in ``test_devices.py`` could."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tests.second_device.build import NO_COMPILER, needs_second_device
from tests.second_device.cuda import as_cuda

TWO_DEVICES = r"two devices|same device"


@pytest.fixture
def gpu() -> Iterator[None]:
    with as_cuda():
        yield


@needs_second_device
def test_tensors_of_two_devices_do_not_mix(gpu: None) -> None:
    here, left = torch.ones(2, 2, device="cuda"), torch.ones(2, 2)
    faults: list[Callable[[], object]] = [
        lambda: here + left,
        lambda: left @ here,
        lambda: left.add_(here),
        lambda: torch.stack([here, left]),
        lambda: torch.where(left > 0, here, 0.0),
        lambda: torch.nn.functional.embedding(torch.tensor([0]), here),
        lambda: torch.nn.functional.linear(left, here),
        lambda: torch.nn.functional.layer_norm(here, (2,), left[0]),
        lambda: torch.nn.functional.scaled_dot_product_attention(here[None], here[None], here[None], left[None]),
        lambda: here.gather(0, torch.zeros(1, 1, dtype=torch.long)),
        lambda: torch.ones(()).add_(here.sum()),
    ]
    for number, fault in enumerate(faults):
        with pytest.raises(RuntimeError, match=TWO_DEVICES):
            raise AssertionError(f"fault {number} gave {fault()}")
    assert (here + torch.ones(()))[torch.tensor([0])].tolist() == [[2, 2]]  # numbers and indices may, as on CUDA
    assert here.device == torch.device("cuda:0")
    assert (here.is_cuda, left.is_cuda, left.to(here).is_cuda, here.cpu().is_cuda) == (True, False, True, False)


@needs_second_device
def test_generators_belong_to_a_device(gpu: None) -> None:
    def drawn(device: str, of: str) -> list[float]:
        return torch.rand(3, device=device, generator=torch.Generator(of).manual_seed(1)).tolist()  # type: ignore[no-any-return]

    for devices in (("cuda", "cpu"), ("cpu", "cuda")):
        with pytest.raises(RuntimeError, match=r"generator|same device"):
            drawn(*devices)
    assert drawn("cuda", "cuda") == drawn("cuda", "cuda")
    torch.manual_seed(3)
    first, on_cpu = torch.rand(2, 3, device="cuda"), torch.rand(2)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(2), on_cpu)  # a stream of its own
    assert torch.equal(torch.rand(2, 3, device="cuda"), first)
    assert len(first.unique()) == 6


@needs_second_device
def test_numpy_does_not_read_the_devices_memory(gpu: None) -> None:
    values = torch.ones(2, device="cuda")
    for fault in (values.numpy, lambda: np.asarray(values)):
        with pytest.raises(TypeError, match="convert"):
            fault()
    assert values.cpu().numpy().tolist() == [1, 1]


@needs_second_device
def test_a_module_moves_whole(gpu: None) -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=4, n_layer=1, n_head=2, n_positions=8)).to("cuda")
    assert {each.device.type for each in (*model.parameters(), *model.buffers())} == {"cuda"}
    assert model.lm_head.weight is model.transformer.wte.weight


@needs_second_device
def test_the_gpu_is_gone_afterwards() -> None:
    before = torch.cuda.is_available(), torch.Generator, torch.autocast.__init__, torch.load
    with as_cuda():
        assert torch.cuda.is_available()
        assert torch.ones(1, device="cuda").device.type == "cuda"
    assert (torch.cuda.is_available(), torch.Generator, torch.autocast.__init__, torch.load) == before
    with pytest.raises((AssertionError, RuntimeError)):
        torch.ones(1, device="cuda")


@pytest.mark.slow
def test_a_machine_without_a_compiler_is_told_what_was_not_tested() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "tests/test_second_device.py", "-k", "numpy"]
    environment = {**os.environ, "CXX": "no-compiler"}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "1 skipped" in said
    assert f"NOT TESTED: {NO_COMPILER}" in said
