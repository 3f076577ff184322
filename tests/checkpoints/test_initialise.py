"""Published trunk files, in small: same names and layouts, narrow layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models import resnet
from torch import Tensor, nn

from unival_plugin.checkpoints.initialise import (
    load_trunk,
    pann_weights,
    read_weights,
    resnet_weights,
    resnext3d_weights,
)
from unival_plugin.errors import CheckpointError, ConfigError
from unival_plugin.unival.model.trunks import FrozenBatchNorm

DEPTHS = {"50": (3, 4, 6, 3), "101": (3, 4, 23, 3)}


def small_resnet(depth: str = "50", classes: int = 10, seed: int = 0, norm_layer: Any = nn.BatchNorm2d) -> nn.Module:
    torch.manual_seed(seed)
    make: Any = resnet.ResNet
    return make(resnet.Bottleneck, DEPTHS[depth], classes, channels=(2, 4, 4, 8), norm_layer=norm_layer)


def three_stages(trunk: Any) -> nn.Module:
    trunk.layer4, trunk.fc = nn.Identity(), nn.Identity()
    return trunk


class SmallPann(nn.Module):
    """Names of a PANN with its front end."""

    def __init__(self, mel_bins: int = 64, frame: int = 16, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        filters = nn.ModuleDict({part: nn.Conv1d(1, 3, frame, bias=False) for part in ("conv_real", "conv_imag")})
        self.spectrogram_extractor = nn.ModuleDict({"stft": filters})
        self.logmel_extractor = nn.Module()
        self.logmel_extractor.melW = nn.Parameter(torch.rand(3, mel_bins))
        self.bn0 = nn.BatchNorm2d(mel_bins)
        self.conv_block1 = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[key], second[key]) for key in first if key in second)


class TestPictures:
    def test_a_plain_resnet_file_is_taken_whole(self, tmp_path: Path) -> None:
        source, trunk = small_resnet(seed=1), small_resnet(seed=2)
        path = saved(tmp_path / "resnet50.pth", source.state_dict())
        load_trunk(trunk, resnet_weights(path), path)
        assert equal(copied(source), copied(trunk))

    def test_a_classifier_of_other_classes_does_not_matter(self) -> None:
        source, trunk = small_resnet(classes=7, seed=1), small_resnet(seed=2)
        before = copied(trunk)
        load_trunk(trunk, copied(source), "file")
        after = copied(trunk)
        assert torch.equal(after["fc.weight"], before["fc.weight"])
        assert torch.equal(after["layer4.2.conv3.weight"], copied(source)["layer4.2.conv3.weight"])

    def test_a_trunk_of_three_stages_takes_the_first_three(self) -> None:
        source, trunk = small_resnet(seed=1), three_stages(small_resnet(seed=2))
        load_trunk(trunk, copied(source), "file")
        assert equal(copied(trunk), copied(source))

    def test_frozen_batch_norm_needs_no_counts(self) -> None:
        source, trunk = small_resnet(seed=1), small_resnet(seed=2, norm_layer=FrozenBatchNorm)
        source.get_buffer("bn1.running_mean").fill_(3)
        load_trunk(trunk, copied(source), "file")
        assert copied(trunk)["bn1.running_mean"].mean() == 3

    @pytest.mark.parametrize("found, wanted", [("50", "101"), ("101", "50")])
    def test_another_depth_is_named(self, found: str, wanted: str) -> None:
        with pytest.raises(CheckpointError, match=rf"^some.pth: .*depth {found} .*has one with depth {wanted} \("):
            load_trunk(small_resnet(wanted), copied(small_resnet(found)), "some.pth")

    def test_another_kind_of_resnet_is_refused(self) -> None:
        weights = {**copied(small_resnet()), "layer1.0.se.fc1.weight": torch.zeros(2)}
        with pytest.raises(CheckpointError, match=r"another kind: 1 tensors are not in the trunk \(layer1.0.se"):
            load_trunk(small_resnet(), weights, "file")

    def test_an_incomplete_file_is_refused(self) -> None:
        weights = copied(small_resnet())
        del weights["layer2.1.bn2.weight"]
        with pytest.raises(CheckpointError, match=r"1 of the trunk's are not in the file \(layer2.1.bn2.weight\)"):
            load_trunk(small_resnet(), weights, "file")

    def test_another_width_is_refused(self) -> None:
        weights = copied(small_resnet())
        weights["conv1.weight"] = torch.zeros(32, 3, 7, 7)
        with pytest.raises(CheckpointError, match=r"conv1.weight has shape \(32, 3, 7, 7\), the trunk needs \(64,"):
            load_trunk(small_resnet(), weights, "file")

    def test_a_file_that_shares_nothing_is_refused(self) -> None:
        with pytest.raises(CheckpointError, match="no tensor fits the trunk"):
            load_trunk(small_resnet(), copied(nn.Sequential(nn.Linear(2, 2))), "file")

    def test_a_refused_file_changes_nothing(self) -> None:
        trunk = small_resnet(seed=2)
        before = copied(trunk)
        with pytest.raises(CheckpointError):
            load_trunk(trunk, copied(small_resnet("101", seed=1)), "file")
        assert equal(before, copied(trunk))


def test_a_kinetics_file_is_unpacked(tmp_path: Path) -> None:
    source = small_resnet(seed=1)
    state = {f"module.{key}": value for key, value in source.state_dict().items()}
    path = saved(tmp_path / "resnext.pth", {"epoch": 3, "arch": "resnext-101", "state_dict": state})
    trunk = small_resnet(seed=2)
    load_trunk(trunk, resnext3d_weights(path), path)
    assert equal(copied(source), copied(trunk))


class TestSounds:
    @pytest.mark.parametrize("prefix", ["", "module.", "sed_model.", "module.audio_branch."])
    def test_prefixes_and_container_are_unpacked(self, prefix: str, tmp_path: Path) -> None:
        source, trunk = SmallPann(seed=1), SmallPann(seed=2)
        state = {prefix + key: value for key, value in source.state_dict().items()}
        state[prefix + "fc_audioset.weight"] = torch.zeros(527, 2)
        path = saved(tmp_path / "Cnn14.pth", {"iteration": 600000, "model": state})
        load_trunk(trunk, pann_weights(path, 64), path)
        assert equal(copied(source), copied(trunk))

    def test_a_file_without_container_is_read(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "Cnn14.pth", copied(SmallPann()))
        assert equal(pann_weights(path, 64), copied(SmallPann()))

    def test_another_number_of_bands_keeps_the_trunks_front_end(self, tmp_path: Path) -> None:
        source, trunk = SmallPann(seed=1), SmallPann(mel_bins=32, seed=2)
        before = copied(trunk)
        path = saved(tmp_path / "Cnn14.pth", {"model": source.state_dict()})
        load_trunk(trunk, pann_weights(path, 32), path)
        after = copied(trunk)
        assert torch.equal(after["logmel_extractor.melW"], before["logmel_extractor.melW"])
        assert torch.equal(after["conv_block1.0.weight"], copied(source)["conv_block1.0.weight"])

    def test_filters_of_another_frame_length_are_not_taken(self) -> None:
        source, trunk = SmallPann(frame=8, seed=1), SmallPann(seed=2)
        load_trunk(trunk, copied(source), "file")
        assert copied(trunk)["spectrogram_extractor.stft.conv_real.weight"].shape[-1] == 16
        assert torch.equal(copied(trunk)["conv_block1.0.weight"], copied(source)["conv_block1.0.weight"])


class TestBadFiles:
    @pytest.mark.parametrize(
        "read, flag",
        [
            (resnet_weights, "--resnet-model-path"),
            (resnext3d_weights, "--video-model-path"),
            (lambda path: pann_weights(path, 64), "--audio-model-path"),
        ],
    )
    def test_a_missing_file_is_named_with_its_flag(self, read: Any, flag: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=rf"gone.pth: no such file; {flag} needs"):
            read(tmp_path / "gone.pth")

    def test_a_file_without_tensors_is_refused(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "options.pt", {"lr": 1.0})
        with pytest.raises(CheckpointError, match="options.pt: holds no weights.*--init-from needs"):
            read_weights(path, "--init-from", "a checkpoint")

    def test_a_damaged_file_is_refused(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "resnet.pth", copied(small_resnet()))
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(CheckpointError, match=r"resnet.pth: "):
            resnet_weights(path)

    def test_messages_have_one_line(self) -> None:
        with pytest.raises(CheckpointError) as caught:
            load_trunk(small_resnet("101"), copied(small_resnet()), "file")
        assert "\n" not in str(caught.value)
