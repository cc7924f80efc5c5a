from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor, nn

from semdpo.tiny_world_training.muon import Muon, orthogonalised

SHAPES = [(24, 40), (40, 24), (32, 32)]
LR = 0.02


def _weights(shape: tuple[int, int]) -> nn.Parameter:
    torch.manual_seed(sum(shape))
    return nn.Parameter(torch.randn(shape))


def _gradients(shape: tuple[int, int], steps: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(shape, generator=generator) for _ in range(steps)]


def _train(weights: nn.Parameter, optimizer: torch.optim.Optimizer, gradients: list[Tensor]) -> None:
    for gradient in gradients:
        weights.grad = gradient.clone()
        optimizer.step()


@pytest.mark.parametrize("shape", SHAPES)
def test_it_agrees_with_torch_within_the_rounding_of_bfloat16(shape: tuple[int, int]) -> None:
    ours, theirs = _weights(shape), _weights(shape)
    _train(ours, Muon([ours], LR), _gradients(shape))
    _train(theirs, torch.optim.Muon([theirs], LR, weight_decay=0.0, momentum=0.95), _gradients(shape))
    assert not torch.equal(ours, _weights(shape))
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (128, 512), (512, 128), (1, 64)])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_singular_values_come_near_one(shape: tuple[int, int], scale: float) -> None:
    torch.manual_seed(1)
    update = orthogonalised(scale * torch.randn(shape))
    values = torch.linalg.svdvals(update)
    assert update.shape == shape
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_the_directions_of_a_matrix_stay_the_same() -> None:
    torch.manual_seed(2)
    left, right = (torch.linalg.qr(torch.randn(size, 6)).Q for size in (20, 10))
    matrix = left @ torch.diag(torch.linspace(1, 2, 6)) @ right.T
    inner = left.T @ orthogonalised(matrix) @ right
    torch.testing.assert_close(inner, torch.diag(inner.diag()), atol=1e-5, rtol=0)
    assert inner.diag().min() > 0.6


def test_a_gradient_of_zero_gives_no_update() -> None:
    assert torch.equal(orthogonalised(torch.zeros(3, 5)), torch.zeros(3, 5))


def test_it_computes_in_float32() -> None:
    torch.manual_seed(3)
    matrix = torch.randn(64, 96)
    update = orthogonalised(matrix)
    assert update.dtype is torch.float32
    exact = orthogonalised(matrix.double())
    error = (update - exact).abs().max()
    assert error < 1e-5
    assert (orthogonalised(matrix.bfloat16()) - exact).abs().max() > 100 * error


def test_the_momentum_is_kept_in_float32() -> None:
    weights = _weights((6, 4))
    optimizer = Muon([weights], LR)
    _train(weights, optimizer, _gradients((6, 4), 1))
    assert optimizer.state[weights]["average"].dtype is torch.float32
    assert weights.dtype is torch.float32


def test_a_tall_matrix_moves_further() -> None:
    torch.manual_seed(4)
    gradient = torch.randn(32, 8)
    moved = []
    for one in (gradient, gradient.T.contiguous()):
        weights = nn.Parameter(torch.zeros_like(one))
        _train(weights, Muon([weights], LR), [one])
        moved.append(weights.norm().item())
    assert moved[0] == pytest.approx(2 * moved[1], rel=1e-4)  # √(32 / 8)


def test_a_parameter_without_a_gradient_is_left_alone() -> None:
    still, moving = _weights((4, 6)), _weights((4, 6))
    optimizer = Muon([still, moving], LR)
    _train(moving, optimizer, _gradients((4, 6)))
    assert torch.equal(still, _weights((4, 6)))
    assert still not in optimizer.state


@pytest.mark.parametrize("shape", SHAPES)
def test_a_saved_state_goes_on_with_the_same_bits(shape: tuple[int, int]) -> None:
    gradients = _gradients(shape)
    whole = _weights(shape)
    _train(whole, Muon([whole], LR), gradients)
    first = _weights(shape)
    optimizer = Muon([first], LR)
    _train(first, optimizer, gradients[:3])
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    second = nn.Parameter(first.detach().clone())
    resumed = Muon([second], lr=1.0, momentum=0.0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    _train(second, resumed, gradients[3:])
    assert torch.equal(second, whole)
