"""LoRA in the network, biases and patterns of names, and what is told about trained parameters."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from full_size import drawn
from hypothesis import given, settings
from hypothesis import strategies as st
from small_size import tiny
from torch import Tensor, nn

from unival_plugin.errors import CheckpointError, ConfigError
from unival_plugin.modules.cpu_kernels import fast_cpu_kernels
from unival_plugin.modules.lora import LoRALinear, folded, is_lora, matching
from unival_plugin.unival.model.config import SCRIPT_FLAGS, from_preset
from unival_plugin.unival.model.network import UnIVALNetwork
from unival_plugin.unival.model.registration import UnIVALModel
from unival_plugin.unival.model.state import fit_state_dict
from unival_plugin.unival.model.trained import table, trainable_parts, trained_names

SOURCE = torch.tensor([[0, 5, 6, 7, 2], [0, 8, 2, 1, 1]])
PREVIOUS = torch.tensor([[0, 4, 5], [0, 6, 1]])
NAMES = ["encoder.layers.0.fc1", "encoder.layers.1.fc1", "encoder.layers.1.self_attn.q_proj", "decoder.pos_q_linear"]


def scores(net: UnIVALNetwork) -> Tensor:
    return net(SOURCE, None, PREVIOUS, patch_images=drawn(1, 2, 3, 32, 32))[0]


def trainable(net: UnIVALNetwork) -> set[str]:
    return {name for name, parameter in net.named_parameters() if parameter.requires_grad}


def stirred(**flags: Any) -> UnIVALNetwork:
    """A network whose updates are not zero."""
    net = tiny(lora_rank=3, **flags).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if is_lora(name):
                parameter.normal_(std=0.1)
    return net


# ---- the layer


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.booleans(), st.floats(0.1, 32))
def test_a_folded_layer_computes_the_same(inputs: int, outputs: int, rank: int, bias: bool, alpha: float) -> None:
    layer = LoRALinear(nn.Linear(inputs, outputs, bias=bias), rank, alpha)
    nn.init.normal_(layer.lora_B)
    plain = nn.Linear(inputs, outputs, bias=bias)
    state = {f"x.{key}": value for key, value in layer.state_dict().items()}
    plain.load_state_dict({key[2:]: value for key, value in folded(state, alpha / rank).items()})
    x = torch.randn(5, inputs)
    torch.testing.assert_close(plain(x), layer(x), atol=1e-4, rtol=1e-4)


def test_the_update_sees_dropped_inputs_in_training_only() -> None:
    layer = LoRALinear(nn.Linear(16, 4), 2, dropout=0.5)
    nn.init.normal_(layer.lora_B)
    x = torch.ones(1, 16)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_an_update_begins_with_zero_and_uses_the_layers_own_parameters() -> None:
    linear = nn.Linear(4, 3)
    layer = LoRALinear(linear, 2)
    assert layer.weight is linear.weight and layer.bias is linear.bias
    assert torch.equal(layer(torch.ones(2, 4)), linear(torch.ones(2, 4)))
    assert "rank=2, scale=8" in repr(layer)


# ---- patterns


@pytest.mark.parametrize(
    "pattern, wanted",
    [
        ("fc1", NAMES[:2]),
        ("q_proj, encoder.layers.0", [NAMES[0], NAMES[2]]),
        ("encoder", NAMES[:3]),
        (r"layers\.1\.", NAMES[1:3]),
        (".*q", NAMES[2:]),
    ],
)
def test_names_or_an_expression_choose(pattern: str, wanted: list[str]) -> None:
    assert matching(pattern, NAMES) == wanted


@pytest.mark.parametrize("pattern", ["q_porj", "fc1,q_porj", "fc", "(q|v)x", "(", "", " , "])
def test_what_fits_nothing_is_an_error(pattern: str) -> None:
    with pytest.raises(ValueError, match="no regular expression|there are decoder, encoder, fc1, layers, pos_q_linear"):
        matching(pattern, NAMES)
    with pytest.raises(ValueError, match="nothing to choose from"):
        matching("x", [])


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"lora_rank": 2, "lora_targets": "q_porj"}, "--lora-targets: nothing is called 'q_porj'; there are .*q_proj"),
        ({"lora_rank": 2, "lora_targets": "output_projection"}, "nothing is called 'output_projection'"),
        ({"lora_rank": 2, "lora_train": "nothing"}, "--lora-train: nothing is called 'nothing'"),
        ({"bitfit": True, "bitfit_train": "nothing"}, "--bitfit-train: nothing is called"),
        ({"lora_train": "fc1"}, "--lora-train needs --lora-rank"),
        ({"bitfit_train": "fc1"}, "--bitfit-train needs --bitfit"),
        ({"lora_rank": -1}, "--lora-rank must not be negative"),
        ({"lora_rank": 1, "lora_alpha": 0.0}, "--lora-alpha must be positive"),
        ({"lora_rank": 1, "lora_dropout": 1.0}, "--lora-dropout must be at least 0 and less than 1"),
        ({"lora_rank": 1, "bitfit": True}, "--bitfit trains biases only"),
    ],
)
def test_wrong_flags_are_named(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**flags)


# ---- the network


def test_the_base_keeps_its_names_and_initial_weights() -> None:
    plain, updated = tiny().state_dict(), tiny(lora_rank=2).state_dict()
    assert [key for key in updated if not is_lora(key)] == list(plain)
    assert all(torch.equal(updated[key], value) for key, value in plain.items())
    assert any(is_lora(key) for key in updated)


@torch.no_grad()
def test_fresh_updates_change_nothing_and_a_base_loads_below_them() -> None:
    torch.manual_seed(1)
    plain, updated = tiny().eval(), tiny(lora_rank=2).eval()
    for parameter in plain.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.01)
    report = fit_state_dict(updated, state := plain.state_dict())
    updated.load_state_dict(state)
    assert report.kept and all(is_lora(key) for key in report.kept)
    torch.testing.assert_close(scores(updated), scores(plain))


@torch.no_grad()
@pytest.mark.parametrize("targets", ["q_proj,k_proj,v_proj,out_proj,fc1,fc2", ".*", "image_proj,cross_pos_q_linear"])
def test_a_folded_network_gives_the_same_scores(targets: str) -> None:
    updated, plain = stirred(lora_targets=targets), tiny().eval()
    before = scores(plain)
    plain.load_state_dict(folded(updated.state_dict(), updated.config.lora_alpha / 3))
    assert not torch.allclose(scores(plain), before, atol=1e-2)
    torch.testing.assert_close(scores(plain), scores(updated), atol=1e-6, rtol=0)


@torch.no_grad()
def test_step_by_step_decoding_and_fast_kernels_use_the_updates() -> None:
    net = stirred()
    together = scores(net)
    encoder_out, cache = net.encoder(SOURCE, patch_images=drawn(1, 2, 3, 32, 32)), {}
    steps = [net.decoder(PREVIOUS[:, : t + 1], encoder_out, cache)[0] for t in range(3)]
    torch.testing.assert_close(torch.cat(steps, dim=1)[0], together[0], atol=1e-4, rtol=1e-4)
    with fast_cpu_kernels():
        torch.testing.assert_close(scores(net), together, atol=1e-4, rtol=1e-4)


def test_only_the_updates_and_what_is_named_are_trained() -> None:
    net = tiny(lora_rank=2, lora_targets="q_proj,fc1")
    assert all(is_lora(name) for name in trainable(net))
    assert {name.split(".")[-2] for name in trainable(net)} == {"q_proj", "fc1"}
    more = tiny(lora_rank=2, lora_targets="q_proj", lora_train=r"layer_norm\.|image_proj")
    assert {name for name in trainable(more) if not is_lora(name)} == {
        name for name, _ in more.named_parameters() if "layer_norm." in name or "image_proj" in name
    }


def test_every_update_gets_a_gradient_and_nothing_else() -> None:
    net = tiny(lora_rank=2, lora_dropout=0.1, checkpoint_activations=True, encoder_layers=1).train()
    scores(net).sum().backward()
    assert {name for name, parameter in net.named_parameters() if parameter.grad is not None} == trainable(net)


def test_updates_go_with_adapters_and_with_everything_unfrozen() -> None:
    both = trainable(tiny(lora_rank=2, adapter=True))
    assert all(is_lora(name) or ".adapter." in name for name in both) and any(".adapter." in name for name in both)
    assert not any("adapter" in name and is_lora(name) for name in both)
    net = tiny(lora_rank=2, unfreeze=True)
    assert set(dict(net.named_parameters())) - trainable(net) == {"encoder.embed_tokens.weight"}


def test_bitfit_trains_all_biases_where_asked() -> None:
    net = tiny(bitfit=True, bitfit_train=".*bias")
    assert trainable(net) == {name for name, _ in net.named_parameters() if "bias" in name}


def test_half_precision_networks_have_half_precision_updates() -> None:
    net = stirred().half()
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float16}
    assert folded(net.state_dict(), 2.0)["encoder.layers.0.fc1.weight"].dtype == torch.float16


@pytest.mark.parametrize(
    "flags, message",
    [
        ({}, "give --lora-rank and --lora-targets as in its training .or fold them"),
        ({"lora_rank": 5}, "lora_A has shape .* give --lora-rank and --lora-targets"),
        ({"lora_rank": 3, "lora_targets": "q_proj"}, "give --lora-rank and --lora-targets"),
    ],
)
def test_a_checkpoint_with_other_updates_tells_the_flags(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        fit_state_dict(tiny(**flags), stirred().state_dict())


ONLY_LINEAR = {"freeze_encoder": True, "freeze_decoder": True, "freeze_image_encoder": True}


@pytest.mark.parametrize(
    "flags, numbers",
    [
        # rank 8: 18 attentions of 4 layers, 12 feed-forward blocks
        ({"lora_rank": 8}, 18 * 4 * 8 * 2 * 768 + 12 * 2 * 8 * (768 + 3072)),
        ({"lora_rank": 8}, 1_622_016),
        ({"bitfit": True}, 71_656),
        ({"bitfit": True, "bitfit_train": ".*bias"}, 241_832),
        ({"adapter": True}, 3_698_016),
        ({"encoder_prompt": True, "decoder_prompt": True}, 1_843_200),
        (ONLY_LINEAR, 2_929_152),
    ],
)
def test_the_documented_numbers_are_trained(flags: dict[str, Any], numbers: int) -> None:
    with torch.device("meta"):
        net = UnIVALNetwork(from_preset("unival_base", {**SCRIPT_FLAGS, **flags}), 59457)
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == numbers


# ---- what is told


def test_training_begins_with_the_table_and_refuses_an_adapter_file_without_its_base(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = tiny(lora_rank=2).config
    with caplog.at_level("INFO"):
        model = UnIVALModel(config, 50, 1)
        model.eval()
        assert not caplog.messages
        model.train().train()
    assert [line.split()[0] for line in caplog.messages].count("all") == 1
    with pytest.raises(ConfigError, match="--init-adapter needs --init-from"):
        UnIVALModel(dataclasses.replace(config, init_adapter="x.pt"), 50, 1).train()


def test_the_table_counts_every_tensor_once() -> None:
    net = tiny(lora_rank=2)
    parts = {part.name: part for part in trainable_parts(net)}
    total = parts["all"]
    assert total.parameters == sum(p.numel() for p in net.parameters())
    assert total.trainable == sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert total.tensors == sum(part.tensors for part in parts.values()) - total.tensors
    assert parts["encoder.embed_images"].trainable == 0 < parts["encoder.layers"].trainable
    lines = list(table(list(parts.values())))
    assert lines[0].split() == ["part", "tensors", "parameters", "trainable", "share"]
    assert lines[-1].split()[:2] == ["all", str(total.tensors)] and lines[-1].endswith("%")


def test_names_of_what_is_trained_come_from_the_options() -> None:
    net = tiny(lora_rank=2, lora_train="embed_tokens")
    options = {**vars(net.config), "_name": "unival_tiny"}
    names = trained_names(options, 50)
    assert trainable(net) <= set(names)
    assert "decoder.output_projection.weight" in names, "the other names of a tied tensor are trained too"
    others = {name.rpartition(".")[2] for name in set(names) - trainable(net) if "embed_images" in name}
    assert others == {"running_mean", "running_var", "num_batches_tracked"}
