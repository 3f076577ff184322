"""The CPU kernels give torch's results, and step aside where they do not apply."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unival_plugin.modules.cpu_kernels import fast_cpu_kernels, have_large_cpu_layers


@torch.no_grad()
def assert_same_as_torch(layer: nn.Module, x: Tensor) -> None:
    with fast_cpu_kernels():
        ours = layer(x)
    torch.testing.assert_close(ours, layer(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "x",
    [
        torch.randn(9, 600),
        torch.randn(600, 9).t(),
        torch.randn(4, 5, 600)[:, -1],
        torch.randn(3, 2, 4, 600),
        torch.randn(4, 3, 600).transpose(0, 1),
        torch.randn(1, 600),
        torch.randn(0, 600),
    ],
    ids=["rows", "transposed", "strided", "four dimensions", "batch second", "small", "empty"],
)
def test_linear_layers_are_torchs(x: Tensor, bias: bool) -> None:
    assert_same_as_torch(nn.Linear(600, 700, bias=bias), x)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"bias": False}, {"padding": 1}, {"groups": 2}])
def test_convolutions_of_one_pixel_are_torchs(layout: torch.memory_format, options: dict) -> None:
    assert_same_as_torch(nn.Conv2d(64, 128, 1, **options), torch.randn(2, 64, 15, 14).to(memory_format=layout))


def test_larger_convolutions_are_torchs() -> None:
    assert_same_as_torch(nn.Conv2d(32, 64, 3, padding=1), torch.randn(2, 32, 16, 16))


def test_gradients_are_torchs() -> None:
    layer, x = nn.Linear(600, 700), torch.randn(9, 600, requires_grad=True)
    with fast_cpu_kernels():
        (ours,) = torch.autograd.grad(layer(x).square().sum(), x)
    (theirs,) = torch.autograd.grad(layer(x).square().sum(), x)
    assert torch.equal(ours, theirs)


def test_autocast_keeps_its_precision() -> None:
    with torch.autocast("cpu", torch.bfloat16), fast_cpu_kernels():
        assert nn.Linear(600, 700)(torch.randn(9, 600)).dtype == torch.bfloat16


def test_other_precisions_are_left_to_torch() -> None:
    layer = nn.Linear(600, 700).double()
    assert_same_as_torch(layer, torch.randn(9, 600, dtype=torch.float64))


def test_unwanted_kernels_change_nothing() -> None:
    assert not isinstance(fast_cpu_kernels(wanted=False), TorchFunctionMode)


def test_only_networks_with_wide_layers_are_large() -> None:
    assert have_large_cpu_layers([nn.Linear(8, 8), nn.Sequential(nn.Linear(512, 512))])
    assert not have_large_cpu_layers([nn.Linear(64, 64), nn.Embedding(1000, 1000)])
