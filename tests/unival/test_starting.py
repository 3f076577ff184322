"""Starting a network from BART, from UnIVAL checkpoints and from trunk files, and when not to."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from unival_plugin.errors import CheckpointError, ConfigError
from unival_plugin.unival.model.config import SCRIPT_FLAGS, from_preset
from unival_plugin.unival.model.network import UnIVALNetwork
from unival_plugin.unival.model.starting import is_bart, start_from_files, without_start_files
from unival_plugin.unival.model.state import fit_state_dict

WIDTH, HEADS = 16, 2
SYMBOLS, MASK = 59457, 50264
BART_ROWS, POSITIONS = 51201, 1026
State = dict[str, Tensor]


def tiny(symbols: int = SYMBOLS, seed: int = 0, **overrides: object) -> UnIVALNetwork:
    sizes = {
        "encoder_embed_dim": WIDTH, "encoder_ffn_embed_dim": 24, "encoder_attention_heads": HEADS,
        "decoder_attention_heads": HEADS, "image_bucket_size": 6, "code_image_size": 16, "token_bucket_size": 8,
    }  # fmt: skip
    flags = {key: value for key, value in SCRIPT_FLAGS.items() if key != "image_encoder_name"}
    torch.manual_seed(seed)
    return UnIVALNetwork(from_preset("unival_tiny", {**flags, **sizes, **overrides}), symbols)


def bart(layers: int = 2, rows: int = BART_ROWS, width: int = WIDTH) -> State:
    """BART's names and layout: bart.base has 6 layers, width 768, 51201 rows, 1026 positions."""
    torch.manual_seed(7)
    state: State = {}

    def linear(name: str, outgoing: int, incoming: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = torch.randn(outgoing, incoming), torch.randn(outgoing)

    def norm(name: str) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = torch.randn(width), torch.randn(width)

    tokens = torch.randn(rows, width)
    for side in ("encoder", "decoder"):
        state[f"{side}.version"] = torch.tensor([3.0])
        state[f"{side}.embed_tokens.weight"] = tokens
        state[f"{side}.embed_positions.weight"] = torch.randn(POSITIONS, width)
        norm(f"{side}.layernorm_embedding")
        for layer in range(layers):
            prefix = f"{side}.layers.{layer}"
            for attention in ["self_attn"] + ["encoder_attn"] * (side == "decoder"):
                for projection in "qkv":
                    linear(f"{prefix}.{attention}.{projection}_proj", width, width)
                linear(f"{prefix}.{attention}.out_proj", width, width)
                norm(f"{prefix}.{attention}_layer_norm")
            linear(f"{prefix}.fc1", 24, width)
            linear(f"{prefix}.fc2", width, 24)
            norm(f"{prefix}.final_layer_norm")
    return state


def copied(network: torch.nn.Module) -> State:
    return {key: value.clone() for key, value in network.state_dict().items()}


def saved(path: Path, state: Any) -> str:
    torch.save(state, path)
    return str(path)


@pytest.fixture(scope="module")
def bart_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    options = argparse.Namespace(arch="bart_base")
    return saved(tmp_path_factory.mktemp("bart.base") / "model.pt", {"args": options, "model": bart()})


def started(config_of: UnIVALNetwork, **config: object) -> State:
    for name, value in config.items():
        setattr(config_of.config, name, value)
    start_from_files(config_of, config_of.config)
    return copied(config_of)


class TestBart:
    @pytest.fixture(scope="class")
    def got(self, bart_file: str) -> State:
        return started(tiny(), init_from=bart_file)

    @pytest.fixture(scope="class")
    def verbatim(self, bart_file: str) -> State:
        return started(tiny(), init_from=bart_file, init_from_verbatim=True)

    def test_words_and_the_mask_symbol_get_their_rows(self, got: State) -> None:
        rows, own = bart()["encoder.embed_tokens.weight"], got["encoder.embed_tokens.weight"]
        assert torch.equal(own[:MASK], rows[:MASK])
        assert torch.equal(own[MASK], rows[-1])

    def test_image_codes_and_bins_get_new_rows(self, got: State) -> None:
        own = got["encoder.embed_tokens.weight"][MASK + 1 :]
        assert own.std().item() == pytest.approx(WIDTH**-0.5, rel=0.01)
        assert not torch.equal(own[:100], bart()["encoder.embed_tokens.weight"][MASK + 1 :][:100])

    @pytest.mark.parametrize("side", ["encoder", "decoder"])
    def test_positions_count_from_the_first_token(self, got: State, side: str) -> None:
        key = f"{side}.embed_positions.weight"
        assert torch.equal(got[key][:1024], bart()[key][2:])
        assert torch.equal(got[key][1024:], copied(tiny())[key][1024:])

    def test_rows_by_number_as_the_original_copies_them(self, verbatim: State) -> None:
        own, file = verbatim, bart()
        assert torch.equal(own["encoder.embed_tokens.weight"][:BART_ROWS], file["encoder.embed_tokens.weight"])
        assert torch.equal(own["decoder.output_projection.weight"][:BART_ROWS], file["encoder.embed_tokens.weight"])
        assert own["encoder.embed_tokens.weight"][BART_ROWS:].std().item() == pytest.approx(WIDTH**-0.5, rel=0.01)
        for side in ("encoder", "decoder"):
            key = f"{side}.embed_positions.weight"
            assert torch.equal(own[key], file[key])

    def test_everything_else_is_the_same_either_way(self, got: State, verbatim: State) -> None:
        tables = ("embed_tokens.weight", "embed_positions.weight", "output_projection.weight")
        others = [key for key in got if not key.endswith(tables)]
        assert len(others) > 100
        assert all(torch.equal(got[key], verbatim[key]) for key in others)

    def test_layers_and_their_norms_are_taken_by_name(self, got: State) -> None:
        file = bart()
        taken = [key for key in file if ".layers." in key or "layernorm_embedding" in key]
        assert all(torch.equal(got[key], file[key]) for key in taken)

    def test_what_bart_does_not_have_keeps_its_initial_values(self, got: State) -> None:
        before, file = copied(tiny()), bart()
        new = [key for key in before if key not in file and key != "decoder.output_projection.weight"]
        assert {"encoder.layer_norm.weight", "decoder.layers.0.self_attn_ln.bias"} <= set(new)
        assert all(torch.equal(got[key], before[key]) for key in new)

    def test_output_and_input_embeddings_stay_one_tensor(self, bart_file: str) -> None:
        network = tiny()
        started(network, init_from=bart_file)
        assert network.decoder.output_projection.weight is network.encoder.embed_tokens.weight

    def test_a_bart_without_padding_rows_is_taken_as_it_is(self, tmp_path: Path) -> None:
        state = bart(rows=MASK + 1)
        got = started(tiny(), init_from=saved(tmp_path / "model.pt", {"model": state}))
        assert torch.equal(got["encoder.embed_tokens.weight"][: MASK + 1], state["encoder.embed_tokens.weight"])

    def test_restoring_it_copies_rows_by_number_and_loads_strictly(self, verbatim: State) -> None:
        network, state = tiny(), bart()
        report = fit_state_dict(network, state)
        network.load_state_dict(state, strict=True)
        assert all(torch.equal(value, verbatim[key]) for key, value in copied(network).items())
        assert "encoder.embed_images.conv1.0.weight" in report.kept

    def test_one_line_says_what_was_taken_and_one_what_is_new(
        self, bart_file: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO):
            started(tiny(), init_from=bart_file)
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 2
        assert "model.pt (BART): " in lines[0] and "tensors taken" in lines[0]
        assert lines[1].startswith("new weights: ") and "encoder.embed_images (" in lines[1]

    def test_another_dictionary_is_refused(self, bart_file: str) -> None:
        with pytest.raises(ConfigError, match="this model's dictionary has 50; use --bpe gpt2"):
            started(tiny(symbols=50), init_from=bart_file)

    def test_a_bart_without_the_mask_symbol_is_refused(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "model.pt", {"model": bart(rows=MASK)})
        with pytest.raises(CheckpointError, match="has 50264 rows, a BART with <mask> at least 50265"):
            started(tiny(), init_from=path)

    def test_another_width_is_refused_with_the_file_named(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "large.pt", {"model": bart(width=24)})
        with pytest.raises(CheckpointError, match="--init-from .*large.pt: the checkpoint is of another size"):
            started(tiny(), init_from=path)

    def test_it_is_told_from_a_unival_checkpoint(self) -> None:
        assert is_bart(bart())
        assert not is_bart(copied(tiny(50)))


class TestUnival:
    def test_only_weights_of_a_checkpoint_are_taken(self, tmp_path: Path) -> None:
        source = tiny(50, seed=1)
        path = saved(tmp_path / "best.pt", {"model": source.state_dict(), "extra_state": {"epoch": 3}, "cfg": {"a": 1}})
        got = started(tiny(50, seed=2), init_from=path)
        assert all(torch.equal(got[key], value) for key, value in copied(source).items())

    def test_sizes_may_differ_as_in_restoring(self, tmp_path: Path) -> None:
        source = tiny(40, seed=1, image_bucket_size=4)
        got = started(tiny(50, seed=2), init_from=saved(tmp_path / "plain.pt", source.state_dict()))
        key = "encoder.embed_image_positions.weight"
        assert torch.equal(got[key][1:5], copied(source)[key][1:5])
        assert torch.equal(got[key][7:11], copied(source)[key][5:9])

    def test_a_missing_file_is_named_with_its_flag(self) -> None:
        with pytest.raises(ConfigError, match="gone.pt: no such file; --init-from needs a BART or UnIVAL checkpoint"):
            started(tiny(50), init_from="gone.pt")


class TestTrunkFiles:
    def test_the_picture_trunk_starts_from_its_file(self, tmp_path: Path) -> None:
        source = tiny(50, seed=1)
        path = saved(tmp_path / "resnet.pth", source.encoder.embed_images.state_dict())
        network = tiny(50, seed=2)
        before = copied(network)
        got = started(network, resnet_model_path=path)
        trunk = [key for key in got if key.startswith("encoder.embed_images.")]
        assert all(torch.equal(got[key], copied(source)[key]) for key in trunk)
        assert all(torch.equal(got[key], before[key]) for key in got if key not in trunk)

    def test_a_checkpoints_own_trunk_comes_last(self, tmp_path: Path) -> None:
        trunk, checkpoint = tiny(50, seed=1), tiny(50, seed=2)
        files = {
            "resnet_model_path": saved(tmp_path / "resnet.pth", trunk.encoder.embed_images.state_dict()),
            "init_from": saved(tmp_path / "model.pt", {"model": checkpoint.state_dict()}),
        }
        got = started(tiny(50, seed=3), **files)
        assert all(torch.equal(got[key], value) for key, value in copied(checkpoint).items())

    def test_the_small_film_trunk_starts_from_the_picture_trunk_of_a_checkpoint(self, tmp_path: Path) -> None:
        source, network = tiny(50, seed=1), tiny(50, seed=2, video_encoder_name="timm_tiny")
        before = copied(network)
        got = started(network, video_model_path=saved(tmp_path / "captioner.pt", {"model": source.state_dict()}))
        frames, pictures = "encoder.embed_videos.frames.", "encoder.embed_images."
        for key, value in got.items():
            start = copied(source)[key.replace(frames, pictures)] if key.startswith(frames) else before[key]
            assert torch.equal(value, start), key

    @pytest.mark.parametrize("modality", ["video", "audio"])
    def test_a_file_for_a_trunk_that_is_not_built_is_refused(self, modality: str) -> None:
        with pytest.raises(ConfigError, match=f"--{modality}-model-path: .* give --{modality}-encoder-name"):
            started(tiny(50), **{f"{modality}_model_path": "any.pth"})

    @pytest.mark.parametrize("recompute", [False, True])
    def test_mel_filters_of_a_sound_file_are_taken_unless_recomputed(
        self, recompute: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        sounds = {"audio_encoder_name": "pann_cnn6", "recompute_mel_filters": recompute}
        source, network = tiny(50, seed=1, **sounds), tiny(50, seed=2, **sounds)
        before = copied(network)
        trunk: Any = source.encoder.embed_audios
        trunk.logmel_extractor.melW.data.mul_(2)
        path = saved(tmp_path / "Cnn6.pth", {"model": trunk.state_dict()})
        with caplog.at_level(logging.INFO):
            got = started(network, audio_model_path=path)
        key = "encoder.embed_audios.logmel_extractor.melW"
        assert torch.equal(got[key], before[key] if recompute else 2 * before[key])
        assert ("--recompute-mel-filters" in caplog.text) != recompute
        key = "encoder.embed_audios.conv_block1.conv1.weight"
        assert torch.equal(got[key], copied(source)[key])

    @pytest.mark.parametrize("recompute", [False, True])
    def test_mel_filters_of_a_checkpoint_likewise(self, recompute: bool) -> None:
        sounds = {"audio_encoder_name": "pann_cnn6", "recompute_mel_filters": recompute}
        source, network = tiny(50, seed=1, **sounds), tiny(50, seed=2, **sounds)
        state = copied(source)
        key = "encoder.embed_audios.logmel_extractor.melW"
        state[key] = 2 * state[key]
        report = fit_state_dict(network, state)
        assert torch.equal(state[key], copied(source)[key] * (1 if recompute else 2))
        assert (key in report.kept) == recompute

    def test_mel_filters_of_another_shape_are_not_taken(self) -> None:
        sounds = {"audio_encoder_name": "pann_cnn6"}
        network, state = tiny(50, **sounds), copied(tiny(50, seed=1, **sounds))
        key = "encoder.embed_audios.logmel_extractor.melW"
        own = state[key]
        state[key] = torch.zeros(257, 64)
        report = fit_state_dict(network, state)
        assert key in report.kept
        assert torch.equal(state[key], own)


class TestModelsFromCheckpoints:
    PATHS = {
        name: f"/gone/{name}" for name in ("resnet_model_path", "video_model_path", "audio_model_path", "init_from")
    }

    @pytest.mark.parametrize("make", [lambda values: argparse.Namespace(**values), OmegaConf.create])
    def test_they_name_no_files_to_start_from(self, make: Any) -> None:
        original = make({**self.PATHS, "arch": "unival_base", "dropout": 0.1})
        config = without_start_files(original)
        assert all(getattr(config, name) is None for name in self.PATHS)
        assert (config.arch, config.dropout) == ("unival_base", 0.1)
        assert original.init_from == "/gone/init_from"

    def test_options_without_such_fields_stay_without(self) -> None:
        config = without_start_files(argparse.Namespace(arch="unival_base"))
        assert vars(config) == {"arch": "unival_base"}

    def test_options_of_fixed_structure_are_copied_too(self) -> None:
        options = OmegaConf.create({"init_from": "/gone/model.pt"})
        OmegaConf.set_struct(options, True)
        assert without_start_files(options).init_from is None


class Payload:
    """A pickled object that makes a folder when it is executed."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("flag", ["init_from", "resnet_model_path", "video_model_path", "audio_model_path"])
def test_files_with_a_payload_are_refused_and_nothing_is_executed(tmp_path: Path, flag: str, zipped: bool) -> None:
    path, mark = tmp_path / "x.pt", tmp_path / "executed"
    torch.save({"model": Payload(mark)}, path, _use_new_zipfile_serialization=zipped)
    net = tiny(60, video_encoder_name="resnext50", audio_encoder_name="pann_cnn6")
    setattr(net.config, flag, str(path))
    with pytest.raises(CheckpointError, match=r"x\.pt: asks for posix\.mkdir, which safe reading does not allow"):
        start_from_files(net, net.config)
    assert not mark.exists()
