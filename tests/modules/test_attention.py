"""The attention kernels give the same result, in the layouts that their packages take."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from unival_plugin.errors import ConfigError
from unival_plugin.modules import attention
from unival_plugin.modules.attention import MultiheadAttention


def inputs(queries: int = 5, keys: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """Two rows of width 16, and a bias that forbids some pairs."""
    torch.manual_seed(0)
    bias = torch.randn(1, 4, queries, keys)
    bias[..., -1] = float("-inf")
    return torch.randn(2, queries, 16), torch.randn(2, keys, 16), bias


def build(backend: str, **options: bool) -> MultiheadAttention:
    torch.manual_seed(1)
    return MultiheadAttention(16, 4, scale_factor=2, scale_heads=True, backend=backend, **options)


def by_hand(module: MultiheadAttention, x: Tensor, memory: Tensor, bias: Tensor) -> Tensor:
    """One head after the other, straight from the formula."""
    if module.q_norm is not None:
        x, memory = module.q_norm(x), module.q_norm(memory)
    query, keys, values = module.q_proj(x), module.k_proj(memory), module.v_proj(memory)
    heads = []
    for head in range(4):
        part = slice(4 * head, 4 * head + 4)
        scores = query[..., part] @ keys[..., part].transpose(1, 2) * (4 * 2) ** -0.5 + bias[:, head]
        heads.append(scores.softmax(-1) @ values[..., part] * module.c_attn[head])
    return module.out_proj(torch.cat(heads, dim=-1))


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("backend", ["sdpa", "plain"])
def test_kernels_follow_the_formula(backend: str, qk_norm: bool) -> None:
    x, memory, bias = inputs()
    module = build(backend, qk_norm=qk_norm)
    got = module(x, *module.keys_values(memory), bias)
    torch.testing.assert_close(got, by_hand(module, x, memory, bias), atol=1e-6, rtol=1e-5)


def test_weights_are_those_that_the_kernels_use() -> None:
    x, memory, bias = inputs()
    module = build("sdpa")
    keys, values = module.keys_values(memory)
    context = module.weights(x, keys, bias).to(values.dtype) @ values * module.c_attn[:, None, None]
    torch.testing.assert_close(module.out_proj(context.transpose(1, 2).flatten(2)), module(x, keys, values, bias))


@pytest.mark.parametrize("keys", [7, 8])
def test_xformers_gets_its_own_layout(keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def stand_in(query: Tensor, key: Tensor, value: Tensor, attn_bias: Tensor, p: float, scale: float) -> Tensor:
        """What the package documents: rows x length x heads x width, bias rows at multiples of eight elements."""
        assert query.shape == (2, 5, 4, 4) and key.shape == (2, keys, 4, 4)
        assert attn_bias.shape == (2, 4, 5, keys) and attn_bias.stride(-2) % 8 == 0 and p == 0
        return attention.plain_attention(
            *(t.transpose(1, 2) for t in (query, key, value)), attn_bias, scale, p
        ).transpose(1, 2)

    monkeypatch.setattr(attention, "_load_xformers", lambda: SimpleNamespace(memory_efficient_attention=stand_in))
    x, memory, bias = inputs(keys=keys)
    module = build("xformers")
    got = module(x, *module.keys_values(memory), bias)
    torch.testing.assert_close(got, by_hand(module, x, memory, bias), atol=1e-6, rtol=1e-5)


@pytest.mark.skipif(torch.cuda.is_available() and importlib.util.find_spec("xformers") is not None, reason="it loads")
def test_a_backend_that_does_not_load_is_a_clear_error() -> None:
    x, memory, bias = inputs()
    module = build("xformers")
    with pytest.raises(ConfigError, match="--attention-backend xformers: .*use --attention-backend sdpa"):
        module(x, *module.keys_values(memory), bias)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_the_gpu_stays_close(dtype: torch.dtype) -> None:
    x, memory, bias = (tensor.cuda() for tensor in inputs())
    module = build("sdpa").cuda()
    wanted = module(x, *module.keys_values(memory), bias)
    module, x, memory = module.to(dtype), x.to(dtype), memory.to(dtype)
    got = module(x, *module.keys_values(memory), bias)
    assert float((got.float() - wanted).norm() / wanted.norm()) < 0.02
