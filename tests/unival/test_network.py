"""The network against the outputs of the reference implementation, full size, and its own promises."""

from __future__ import annotations

import csv
import zlib

import numpy as np
import pytest
import torch
from full_size import (
    ALL_MODALITIES,
    CASES,
    FILM,
    GOLDEN,
    VOCAB_IDS,
    VOCABULARY,
    close,
    drawn,
    golden,
    inputs_of,
    network,
)
from small_size import tiny
from torch import Tensor

from unival_plugin.modules.positions import code_position_ids, grid_ids, image_buckets, token_buckets
from unival_plugin.unival.model.config import PRESETS, SCRIPT_FLAGS, UnIVALConfig, from_preset
from unival_plugin.unival.model.network import UnIVALNetwork

CONFIGURATIONS = {
    "in_image_caption": (FILM, 250_489_072),
    "in_video_caption": (FILM, 250_489_072),
    "in_audio_caption": (ALL_MODALITIES, 329_979_120),
    "in_pretrain_s1": ({}, 200_038_704),
    "in_pretrain_s2": (FILM, 250_489_072),
}


@pytest.mark.parametrize("column", CONFIGURATIONS)
def test_keys_shapes_and_dtypes_are_those_of_the_released_models(column: str) -> None:
    flags, parameters = CONFIGURATIONS[column]
    with (GOLDEN / "state_dict.tsv").open() as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row[column] == "1"]
    with torch.device("meta"):
        net = UnIVALNetwork(from_preset("unival_base", {**SCRIPT_FLAGS, **flags}), VOCABULARY)
    got = {
        k: (",".join(map(str, v.shape)) or "scalar", str(v.dtype).removeprefix("torch."))
        for k, v in net.state_dict().items()
    }
    assert got == {row["name"]: (row["shape"], row["dtype"]) for row in rows}
    assert sum(p.numel() for p in net.parameters()) == parameters


def test_the_large_network_has_the_released_size() -> None:
    with torch.device("meta"):
        net = UnIVALNetwork(from_preset("unival_large", SCRIPT_FLAGS), VOCABULARY)
    assert sum(p.numel() for p in net.parameters()) == 491_039_464
    assert len(net.state_dict()) == 1689


def test_bucket_tables_are_the_references() -> None:
    tables = {
        "token_rp_bucket": token_buckets(256),
        "image_rp_bucket": image_buckets(42),
        "image_position_idx": code_position_ids(128, 42),
    }
    for name, table in tables.items():
        assert zlib.crc32(table.numpy().astype("<i8").tobytes()) == CASES["buckets"]["crc32_int64_le"][name]
    arrays = golden("buckets")
    assert np.array_equal(image_buckets(3), arrays["image_bucket3"])
    assert np.array_equal(token_buckets(8, 32), arrays["token_bucket8_max32"])


@torch.no_grad()
def test_hidden_states_of_every_layer_equal_the_reference() -> None:
    arrays = golden("text_only_layers")
    source, previous = (torch.from_numpy(arrays[name]) for name in ("src_tokens", "prev_output_tokens"))
    encoder_out = network().encoder(source, return_all_hiddens=True)
    _, extra = network().decoder(previous, encoder_out)
    real, targets = source.ne(1).t(), previous.ne(1).t()
    close(torch.stack(encoder_out["encoder_states"])[:, real][..., :8], arrays["encoder_states"][:, real.numpy()])
    close(torch.stack(extra["inner_states"])[:, targets][..., :8], arrays["inner_states"][:, targets.numpy()])


@torch.no_grad()
def test_incremental_decoding_equals_the_reference() -> None:
    arrays, inputs = golden("incremental"), golden("text_only")
    source, previous = (torch.from_numpy(inputs[name]) for name in ("src_tokens", "prev_output_tokens"))
    encoder_out, state = network().encoder(source), {}
    steps = [network().decoder(previous[:, :t], encoder_out, state)[0] for t in range(1, previous.shape[1] + 1)]
    logits, targets = torch.cat(steps, dim=1), previous.ne(1)
    close(logits[..., VOCAB_IDS][targets], arrays["inc_logits_sel"][targets.numpy()])
    assert np.array_equal(logits.argmax(-1)[targets], arrays["inc_logits_argmax"][targets.numpy()])


def test_gradients_equal_the_reference() -> None:
    arrays, case = golden("grad_image224_eval"), CASES["grad_image224_eval"]
    source, previous, target = (
        torch.from_numpy(arrays[name]) for name in ("src_tokens", "prev_output_tokens", "target")
    )
    net = network()
    logits, _ = net(source, None, previous, **inputs_of("image224"))
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=1, reduction="sum")
    loss.backward()
    parameters = dict(net.named_parameters())
    norms = [float(parameters[name].grad.norm()) for name in case["grad_names"]]
    unique = {id(p): p for p in net.parameters() if p.grad is not None}.values()
    total = float(torch.stack([p.grad.norm() for p in unique]).norm())
    net.zero_grad(set_to_none=True)
    assert float(loss.detach()) == pytest.approx(float(arrays["loss"]), rel=1e-4)
    np.testing.assert_allclose(norms, arrays["grad_norms"], atol=1e-3, rtol=5e-3)
    assert total == pytest.approx(float(arrays["total_grad_norm"]), rel=5e-3)


@torch.no_grad()
def test_a_row_does_not_depend_on_the_other_rows_of_its_batch() -> None:
    net = tiny().eval()
    pictures = drawn(1, 3, 3, 64, 64)
    source = torch.tensor([[0, 5, 6, 7, 2], [0, 8, 2, 1, 1], [0, 9, 10, 2, 1]])
    previous = torch.tensor([[0, 4, 5], [0, 6, 1], [0, 7, 8]])
    together, _ = net(source, None, previous, patch_images=pictures)
    for row in range(3):
        words, targets = int(source[row].ne(1).sum()), int(previous[row].ne(1).sum())
        alone, _ = net(
            source[row : row + 1, :words], None, previous[row : row + 1, :targets], patch_images=pictures[row : row + 1]
        )
        torch.testing.assert_close(alone[0], together[row, :targets], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_hypotheses_of_a_sentence_share_one_encoder_row() -> None:
    net = tiny().eval()
    encoder_out = net.encoder(torch.tensor([[0, 5, 2], [0, 6, 2]]), patch_images=drawn(2, 2, 3, 32, 32))
    previous = torch.tensor([[0, 4, 5], [0, 6, 7], [0, 8, 9], [0, 10, 11]])
    shared, _ = net.decoder(previous, encoder_out)
    repeated, _ = net.decoder(previous, net.encoder.reorder_encoder_out(encoder_out, torch.tensor([0, 0, 1, 1])))
    torch.testing.assert_close(shared, repeated, atol=1e-5, rtol=1e-5)


def test_patch_sampling_happens_in_training_only_and_follows_torchs_seed() -> None:
    net = tiny(sample_patch_num=3)
    arguments = (torch.tensor([[0, 5, 2]]), None)
    pictures = drawn(3, 1, 3, 64, 64)

    def length(seed: int) -> tuple[int, Tensor]:
        torch.manual_seed(seed)
        out = net.encoder(*arguments, patch_images=pictures)["encoder_out"][0]
        return len(out), out.detach()

    assert length(1)[0] == 3 + 3
    assert torch.equal(length(1)[1], length(1)[1])
    net.eval()
    assert length(1)[0] == 16 + 3
    net.config.sample_patches_in_eval = True
    assert length(1)[0] == 3 + 3


def test_activation_checkpointing_changes_memory_only() -> None:
    source, previous = torch.tensor([[0, 5, 6, 2]]), torch.tensor([[0, 4, 5]])
    gradients = []
    for flag in (False, True):
        net = tiny(checkpoint_activations=flag).train()
        net(source, None, previous, patch_images=drawn(4, 1, 3, 32, 32))[0].square().sum().backward()
        gradients.append(net.encoder.layers[0].fc1.weight.grad)
    torch.testing.assert_close(*gradients)


def test_interpolated_positions_follow_the_grid() -> None:
    net = tiny(interpolate_position=True, orig_patch_image_size=32).eval()
    out = net.encoder(torch.tensor([[0, 2]]), patch_images=drawn(5, 1, 3, 96, 64))
    assert out["encoder_out"][0].shape[0] == 6 * 4 + 2


def test_a_picture_beyond_the_position_table_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        grid_ids(43, 2, 42)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_valid_configuration(name: str) -> None:
    config = from_preset(name, {"dropout": 0.25, "encoder_layers": None})
    assert config.dropout == 0.25
    assert config.encoder_layers == {"unival_large": 12, "unival_tiny": 2}.get(name, 6)


def test_flags_that_contradict_each_other_are_named() -> None:
    with pytest.raises(ValueError, match="--decoder-embed-dim must equal"):
        UnIVALConfig(decoder_embed_dim=7)


@torch.no_grad()
@pytest.mark.parametrize("compact", [False, True])
def test_media_that_rows_share_go_through_the_trunk_once_and_change_nothing(compact: bool) -> None:
    net = tiny(video_encoder_name="timm_tiny").eval()
    pictures, films = drawn(4, 5, 3, 64, 64), drawn(5, 5, 3, 2, 32, 32)
    pictures[3], films[2] = pictures[1], films[0]
    types = torch.tensor([1, 0, 1, 0, 0])
    source = torch.tensor([[0, 5, 6, 2], [0, 7, 8, 2], [0, 9, 2, 1], [0, 10, 2, 1], [0, 11, 12, 2]])
    seen: list[int] = []
    for modality in ("image", "video"):
        trunk = net.encoder.trunk(modality)
        kept = trunk.forward_features
        trunk.forward_features = lambda x, kept=kept: seen.append(len(x)) or kept(x)
    media = {"patch_images": pictures, "patch_videos": films[[0, 2]] if compact else films, "patch_types": types}
    plain = net.encoder(source, **media)["encoder_out"][0]
    shared = net.encoder(source, **media, patch_first=torch.tensor([0, 1, 0, 1, 4]))["encoder_out"][0]
    assert seen == [3, 2, 2, 1]
    torch.testing.assert_close(shared, plain, atol=1e-5, rtol=1e-5)


def test_rows_that_share_a_picture_draw_patches_of_their_own() -> None:
    net = tiny(sample_patch_num=3)
    source, pictures = torch.tensor([[0, 5, 2], [0, 5, 2]]), drawn(3, 1, 3, 64, 64).expand(2, -1, -1, -1)
    torch.manual_seed(1)
    out = net.encoder(source, patch_images=pictures, patch_first=torch.tensor([0, 0]))["encoder_out"][0]
    assert not torch.equal(out[:3, 0], out[:3, 1])
