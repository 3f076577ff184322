"""Adapter files: what they hold, which base they accept, and LoRA folded into plain checkpoints."""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unival_cli.main import main
from unival_plugin.checkpoints.adapters import AdapterExport, WholeExport, apply_adapter, fold_lora, read_adapter
from unival_plugin.checkpoints.reading import read_checkpoint
from unival_plugin.errors import CheckpointError, ConfigError
from unival_plugin.unival.model.config import from_preset
from unival_plugin.unival.model.network import UnIVALNetwork
from unival_plugin.unival.model.trained import start_from_adapter, trained_names

SIZES = {
    "_name": "unival_tiny", "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 32, "encoder_layers": 1,
    "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "code_image_size": 32,
    "image_bucket_size": 4, "token_bucket_size": 16, "max_source_positions": 32, "max_target_positions": 32,
}  # fmt: skip
LORA = {"lora_rank": 2, "lora_alpha": 4.0}
ONLY_LINEAR = {"freeze_encoder": True, "freeze_decoder": True, "freeze_image_encoder": True}
PROMPTS = {"encoder_prompt": True, "encoder_prompt_length": 2, "decoder_prompt": True, "decoder_prompt_length": 2}
KINDS = {
    "LoRA": LORA,
    "LoRA and norms": {**LORA, "lora_train": ".*layer_norm"},
    "only linear": ONLY_LINEAR,
    "adapters": {"adapter": True, "adapter_dim": 4},
    "prompts": PROMPTS,
    "biases": {"bitfit": True},
}


def network(seed: int = 0, symbols: int = 20, **flags: Any) -> UnIVALNetwork:
    torch.manual_seed(seed)
    return UnIVALNetwork(from_preset("unival_tiny", {**SIZES, **flags}), symbols)


@torch.no_grad()
def trained(average: bool = False, **flags: Any) -> dict[str, Any]:
    """A checkpoint of a network with the weights of :func:`network` below, whose trainable parameters have moved."""
    net = network(**flags)
    net.load_state_dict(network().state_dict(), strict=False)
    torch.manual_seed(5)
    for parameter in net.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    net.encoder.embed_images.state_dict()[next(k for k in net.encoder.embed_images.state_dict() if "mean" in k)].add_(1)
    state = {
        "args": None,
        "cfg": {"model": {**SIZES, **flags}, "task": {"_name": "caption"}},
        "model": copy.deepcopy(net.state_dict()),
        "extra_state": {},
        "last_optimizer_state": {"state": {}},
    }
    if average:
        halves = {key: value * 0.5 if value.is_floating_point() else value for key, value in state["model"].items()}
        state["extra_state"] = {"ema": halves}
    return state


def base_file(folder: Path, seed: int = 0, **changes: Any) -> Path:
    torch.save({"model": network(seed).state_dict(), **changes}, folder / f"base{seed}.pt")
    return folder / f"base{seed}.pt"


def adapter_file(folder: Path, state: dict[str, Any], **wish: Any) -> Path:
    torch.save({"adapter": AdapterExport(names=trained_names, **wish).of(state)["adapter"]}, folder / "adapter.pt")
    return folder / "adapter.pt"


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


# ---- adapter files


@pytest.mark.parametrize("kind", KINDS)
def test_base_and_adapter_file_make_the_whole_checkpoint_again(kind: str, tmp_path: Path) -> None:
    state = trained(**KINDS[kind])
    path = adapter_file(tmp_path, state)
    assert len(read_adapter(path).weights) < len(state["model"]) / 2
    assert path.stat().st_size < 0.6 * base_file(tmp_path).stat().st_size
    whole = apply_adapter(read_checkpoint(base_file(tmp_path)), path)
    assert equal(whole["model"], state["model"])
    assert whole["cfg"] == state["cfg"] and "last_optimizer_state" not in whole


def test_statistics_of_frozen_trunks_are_kept(tmp_path: Path) -> None:
    weights = read_adapter(adapter_file(tmp_path, trained(**LORA))).weights
    assert any(key.endswith("running_mean") for key in weights)
    assert not any(key.endswith("conv1.weight") for key in weights)


def test_an_average_is_written_where_asked_and_frozen_values_stay_the_models(tmp_path: Path) -> None:
    state = trained(average=True, **LORA)
    path = adapter_file(tmp_path, state, average=True)
    whole = apply_adapter(read_checkpoint(base_file(tmp_path)), path)
    name = "encoder.layers.0.fc1.lora_A"
    assert torch.equal(whole["model"][name], state["extra_state"]["ema"][name])
    assert torch.equal(whole["model"]["encoder.layers.0.fc1.weight"], state["model"]["encoder.layers.0.fc1.weight"])
    with pytest.raises(CheckpointError, match="holds no average"):
        AdapterExport(average=True, names=trained_names).of(trained(**LORA))


def test_the_base_is_told_and_compared(tmp_path: Path) -> None:
    base = base_file(tmp_path)
    path = adapter_file(tmp_path, trained(**LORA), base=base)
    told = read_adapter(path).base
    assert told.file == "base0.pt" and told.sha256 == hashlib.sha256(base.read_bytes()).hexdigest()
    with pytest.raises(CheckpointError, match="its training did not start from .*base1.pt: .* has other values"):
        adapter_file(tmp_path, trained(**LORA), base=base_file(tmp_path, 1))
    with pytest.raises(CheckpointError, match="gone.pt: no such file"):
        adapter_file(tmp_path, trained(**LORA), base=tmp_path / "gone.pt")


def test_what_the_base_lacks_is_written_too(tmp_path: Path) -> None:
    weights = {k: v for k, v in network().state_dict().items() if not k.startswith("encoder.embed_images.")}
    torch.save({"model": weights}, tmp_path / "text.pt")
    state = trained(**LORA)
    path = adapter_file(tmp_path, state, base=tmp_path / "text.pt")
    assert equal(apply_adapter({"model": weights}, path)["model"], state["model"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_number_format_of_the_base_does_not_matter(dtype: torch.dtype, tmp_path: Path) -> None:
    state = trained(**LORA)
    path = adapter_file(tmp_path, state)
    low = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state["model"].items()}
    apply_adapter({"model": low}, path)
    path = adapter_file(tmp_path, {**state, "model": low})
    apply_adapter(read_checkpoint(base_file(tmp_path)), path)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda w: w["decoder.layers.0.fc1.weight"].add_(1e-4), "decoder.layers.0.fc1.weight has other values"),
        (lambda w: w.pop("encoder.layers.0.fc1.bias"), "1 tensors are missing .encoder.layers.0.fc1.bias"),
        (lambda w: w.update({"encoder.layers.0.fc1.bias": torch.zeros(9)}), "has shape .9,. instead of .32,."),
    ],
)
def test_another_base_is_refused(change: Any, message: str, tmp_path: Path) -> None:
    path = adapter_file(tmp_path, trained(**LORA), base=base_file(tmp_path))
    weights = network().state_dict()
    change(weights)
    with pytest.raises(CheckpointError, match=f"belongs to another base, base0.pt .sha256 .*{message}"):
        apply_adapter({"model": weights}, path)


def test_a_base_with_fewer_words_is_left_to_the_network(tmp_path: Path) -> None:
    path = adapter_file(tmp_path, trained(**LORA))
    weights = network().state_dict()
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight"):
        weights[name] = weights[name][:15]
    assert len(apply_adapter({"model": weights}, path)["model"]["encoder.embed_tokens.weight"]) == 15


def test_files_that_cannot_become_adapter_files_are_named(tmp_path: Path) -> None:
    export = AdapterExport(names=trained_names)
    with pytest.raises(CheckpointError, match="all of the network was trained"):
        export.of(trained())
    with pytest.raises(CheckpointError, match="does not tell what was trained"):
        export.of({"model": network().state_dict()})


def test_files_that_are_no_adapter_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="base0.pt: is no adapter file; make one with"):
        read_adapter(base_file(tmp_path))
    torch.save({"adapter": {"format": "unival adapter", "version": 1}}, tmp_path / "cut.pt")
    with pytest.raises(CheckpointError, match="cut.pt: a damaged adapter file"):
        read_adapter(tmp_path / "cut.pt")


# ---- starting a training from one


def test_a_network_starts_from_an_adapter_file(tmp_path: Path) -> None:
    state = trained(**LORA)
    path = adapter_file(tmp_path, state)
    net = network(**LORA)
    start_from_adapter(net, net.config, str(path))
    assert equal(dict(net.state_dict()), state["model"])


@pytest.mark.parametrize(
    "flags, message",
    [
        ({}, "was trained with other model flags; give --lora-rank 2 --lora-alpha 4.0$"),
        ({"lora_rank": 2, "lora_alpha": 8.0}, "give --lora-alpha 4.0$"),
        ({**LORA, "adapter": True}, None),
    ],
)
def test_a_network_with_other_small_parts_is_told_the_flags(flags: Any, message: str | None, tmp_path: Path) -> None:
    path = adapter_file(tmp_path, trained(**LORA))
    net = network(**flags)
    net.load_state_dict(network().state_dict(), strict=False)
    if message is None:  # parts that the file knows nothing of start fresh
        start_from_adapter(net, net.config, str(path))
        return
    with pytest.raises(ConfigError, match=message):
        start_from_adapter(net, net.config, str(path))


def test_a_network_with_other_weights_is_refused(tmp_path: Path) -> None:
    path = adapter_file(tmp_path, trained(**LORA))
    net = network(1, **LORA)
    with pytest.raises(CheckpointError, match="belongs to another base, weights of an unknown file: .* --init-from"):
        start_from_adapter(net, net.config, str(path))


# ---- folding


def test_a_folded_checkpoint_is_a_plain_one() -> None:
    state = trained(average=True, **LORA)
    before = copy.deepcopy(state)
    plain = fold_lora(state)
    assert plain["model"].keys() == network().state_dict().keys() == plain["extra_state"]["ema"].keys()
    assert plain["cfg"]["model"]["lora_rank"] == 0 and "last_optimizer_state" not in plain
    assert equal(state["model"], before["model"]) and state["cfg"] == before["cfg"]
    name = "decoder.layers.0.fc2"
    for weights, source in (
        (plain["model"], state["model"]),
        (plain["extra_state"]["ema"], state["extra_state"]["ema"]),
    ):
        expected = source[f"{name}.weight"] + 2.0 * source[f"{name}.lora_B"] @ source[f"{name}.lora_A"]
        torch.testing.assert_close(weights[f"{name}.weight"], expected)


def test_options_in_a_namespace_fold_too() -> None:
    state = trained(**LORA)
    state["cfg"]["model"] = argparse.Namespace(**state["cfg"]["model"])
    assert fold_lora(state)["cfg"]["model"].lora_rank == 0


@pytest.mark.parametrize(
    "state, message",
    [
        (lambda: trained(adapter=True), "holds no LoRA matrices to fold"),
        (lambda: {"model": trained(**LORA)["model"]}, "does not tell --lora-alpha"),
    ],
)
def test_what_cannot_be_folded_is_named(state: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        fold_lora(state())


def test_sums_are_rounded_once() -> None:
    state = trained(**LORA)
    state["model"] = {k: v.half() if v.is_floating_point() else v for k, v in state["model"].items()}
    name = "encoder.layers.0.fc1.weight"
    precise = WholeExport(fold=True, dtype="fp32").of(state)["model"][name]
    rough = WholeExport(fold=True).of(state)["model"][name]
    assert precise.dtype == torch.float32 and torch.equal(precise.half(), rough)


# ---- the commands


def convert(*words: str | Path) -> int:
    return main(["convert", *map(str, words)])


def test_the_commands_go_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = trained(**LORA)
    torch.save(state, tmp_path / "trained.pt")
    base = base_file(tmp_path)
    for suffix in (".pt", ".safetensors"):
        small, whole = tmp_path / f"adapter{suffix}", tmp_path / f"whole{suffix}"
        assert convert(tmp_path / "trained.pt", small, "--only-trained", "--base", base) == 0
        assert "numbers; the other" in capsys.readouterr().err
        assert convert(base, whole, "--adapter", small) == 0
        assert equal(read_checkpoint(whole)["model"], state["model"])
    assert convert(base, tmp_path / "plain.pt", "--adapter", small, "--fold-adapters") == 0
    assert equal(read_checkpoint(tmp_path / "plain.pt")["model"], fold_lora(state)["model"])
    assert main(["inspect", str(tmp_path / "plain.pt")]) == 0


def test_adapter_files_are_small_and_explain_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = trained(lora_rank=2, lora_train="embed_tokens")
    torch.save(state, tmp_path / "trained.pt")
    small, base = tmp_path / "adapter.pt", base_file(tmp_path)
    assert convert(tmp_path / "trained.pt", small, "--only-trained", "--base", base) == 0
    capsys.readouterr()
    assert main(["inspect", str(small)]) == 0
    facts = json.loads(capsys.readouterr().out)
    weights = read_adapter(small).weights
    assert facts["tensors"] == len(weights) and facts["base"]["file"] == "base0.pt"
    names = ("encoder.embed_tokens.weight", "decoder.output_projection.weight")
    assert len({weights[name].data_ptr() for name in names}) == 1, "a tied tensor is written once"
    assert small.stat().st_size < base.stat().st_size / 2


def test_inspect_tells_what_was_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(trained(**LORA), tmp_path / "trained.pt")
    assert main(["inspect", str(tmp_path / "trained.pt"), "--trainable"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("all "))
    net = network(**LORA)
    assert int(row.split()[-1].replace(",", "")) == sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert main(["inspect", str(base_file(tmp_path)), "--trainable"]) == 2
    assert "does not tell what was trained" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--base", "b.pt"], "--base goes with --only-trained"),
        (["--only-trained", "--fold-adapters"], "--fold-adapters does not go with --only-trained"),
        (["--only-trained", "--adapter", "a.pt"], "--adapter does not go with --only-trained"),
        (["--only-trained", "--keep-optimizer"], "--keep-optimizer does not go with --only-trained"),
    ],
)
def test_wishes_that_do_not_go_together_are_named(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(base_file(tmp_path), tmp_path / "out.pt", *flags) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.pt").exists()
