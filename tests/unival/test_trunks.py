"""The three trunks: the references' numbers, names and grids, and what training adds."""

from __future__ import annotations

import copy
import csv
import functools
from typing import Any

import numpy as np
import pytest
import torch
from full_size import GOLDEN, drawn, fill, golden
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from unival_plugin.errors import ConfigError, DataError
from unival_plugin.modules.logmel import MEL_KEY, REAL_KEY
from unival_plugin.unival.model.pann import Pann, stripes
from unival_plugin.unival.model.resnext3d import ResNeXt3D
from unival_plugin.unival.model.trunks import (
    FrozenBatchNorm,
    build_audio_trunk,
    build_image_trunk,
    build_video_trunk,
)

CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def filled(trunk: Any, name: str) -> Any:
    """The golden files' weights depend on whole names, so the trunk is filled inside of a hull."""
    hull, encoder = nn.Module(), nn.Module()
    hull.add_module("encoder", encoder)
    encoder.add_module(name, trunk)
    fill(hull)
    return trunk.eval()


@functools.lru_cache(maxsize=1)
def films() -> ResNeXt3D:
    return filled(build_video_trunk("all_resnext101"), "embed_videos")


@functools.lru_cache(maxsize=1)
def sounds() -> Pann:
    return filled(build_audio_trunk("pann_cnn14", 64, 200), "embed_audios")


@functools.lru_cache(maxsize=1)
def small_sounds() -> Pann:
    """With constructed filters, in evaluation mode; not to be changed."""
    torch.manual_seed(0)
    return build_audio_trunk("pann_cnn6", 64, 480).eval()


def waveforms(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy((np.random.default_rng(seed).standard_normal(shape) * 0.1).astype("float32"))


def mean_and_deviation(tensor: Tensor) -> list[float]:
    return [float(tensor.mean()), float(tensor.std())]


@functools.lru_cache(maxsize=1)
def golden_sound() -> Tensor:
    return waveforms(51, 2, 96000)


# ---- the references' numbers and names


@torch.no_grad()
def test_film_features_are_the_references() -> None:
    out, wanted = films().forward_features(drawn(41, 2, 3, 4, 224, 224)), golden("video4x224")
    np.testing.assert_allclose(out[:, :8].numpy(), wanted["resnext_out"], **CLOSE)
    np.testing.assert_allclose(mean_and_deviation(out), wanted["resnext_out_mean_std"], **CLOSE)


@torch.no_grad()
def test_spectrogram_and_log_mel_with_loaded_filters_are_the_references() -> None:
    wanted = golden("audio_rule_fill")
    power = sounds().spectrogram_extractor(golden_sound())
    np.testing.assert_allclose(mean_and_deviation(power), wanted["spectrogram_mean_std"], **CLOSE)
    log_mel = sounds().log_mel(golden_sound())
    np.testing.assert_allclose(log_mel[:, ::20, ::8].numpy(), wanted["logmel"], **CLOSE)
    np.testing.assert_allclose(mean_and_deviation(log_mel), wanted["logmel_mean_std"], **CLOSE)


@torch.no_grad()
def test_sound_features_are_the_references() -> None:
    out, wanted = sounds().forward_features(golden_sound()), golden("audio_rule_fill")
    np.testing.assert_allclose(out[:, :8].numpy(), wanted["cnn_out"], **CLOSE)
    np.testing.assert_allclose(mean_and_deviation(out), wanted["cnn_out_mean_std"], **CLOSE)


@pytest.mark.parametrize(("prefix", "build"), [("encoder.embed_videos.", films), ("encoder.embed_audios.", sounds)])
def test_keys_shapes_dtypes_and_kinds_are_those_of_the_released_models(prefix: str, build: Any) -> None:
    with (GOLDEN / "state_dict.tsv").open() as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["name"].startswith(prefix)]
    trunk = build()
    parameters = dict(trunk.named_parameters())
    got = {
        prefix + name: (
            ",".join(map(str, value.shape)) or "scalar",
            str(value.dtype).removeprefix("torch."),
            "param" if name in parameters else "buffer",
        )
        for name, value in trunk.state_dict().items()
    }
    assert got == {row["name"]: (row["shape"], row["dtype"], row["kind"]) for row in rows}


# ---- films


@torch.no_grad()
def test_a_film_has_the_same_features_in_any_batch() -> None:
    batch = drawn(3, 3, 3, 4, 64, 96)
    together = films().forward_features(batch)
    for row, film in zip(together, batch, strict=True):
        torch.testing.assert_close(films().forward_features(film[None])[0], row, **CLOSE)


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((4, 224, 224), (1, 7, 7)),
        ((8, 224, 224), (1, 7, 7)),
        ((16, 384, 384), (1, 12, 12)),
        ((32, 64, 96), (2, 2, 3)),
        ((1, 40, 33), (1, 2, 2)),
    ],
)
def test_grids_of_films(size: tuple[int, int, int], grid: tuple[int, int, int]) -> None:
    with torch.device("meta"):
        trunk = build_video_trunk("all_resnext50")
        assert trunk.forward_features(torch.empty(2, 3, *size)).shape == (2, 2048, *grid)


@pytest.mark.parametrize(("depth", "blocks"), [("50", (3, 4, 6, 3)), ("101", (3, 4, 23, 3)), ("152", (3, 8, 36, 3))])
def test_depths_of_film_trunks(depth: str, blocks: tuple[int, ...]) -> None:
    with torch.device("meta"):
        trunk = build_video_trunk(f"all_resnext{depth}")
        three = build_video_trunk(f"resnext{depth}")
    assert tuple(len(trunk.get_submodule(stage)) for stage in trunk.stages) == blocks
    assert tuple(len(three.get_submodule(stage)) for stage in three.stages) == blocks[:3]
    assert (trunk.num_features, three.num_features) == (2048, 1024)
    assert three.forward_features(torch.empty(1, 3, 8, 64, 64, device="meta")).shape == (1, 1024, 1, 4, 4)


def test_initial_weights_of_film_trunks() -> None:
    trunk = build_video_trunk("resnext50")
    weight = trunk.get_submodule("layer2.1.conv2").weight
    assert isinstance(weight, Tensor)
    assert float(weight.detach().std()) == pytest.approx((2 / (3 * 3 * 256)) ** 0.5, rel=0.02)
    assert all(m.weight.eq(1).all() and m.bias.eq(0).all() for m in trunk.modules() if isinstance(m, nn.BatchNorm3d))


# ---- frozen batch norm


@pytest.mark.parametrize(("norm", "grid"), [(nn.BatchNorm2d, (4, 5)), (nn.BatchNorm3d, (2, 4, 5))])
@pytest.mark.parametrize("with_gradient", [False, True])
def test_frozen_batch_norm_is_batch_norm_in_evaluation(norm: Any, grid: tuple[int, ...], with_gradient: bool) -> None:
    trained, frozen = norm(6).eval(), FrozenBatchNorm(6).train()
    fill(trained)
    frozen.load_state_dict(trained.state_dict(), strict=True)  # drops num_batches_tracked
    x = drawn(5, 2, 6, *grid).requires_grad_(with_gradient)
    torch.testing.assert_close(frozen(x), trained(x))
    if with_gradient:
        gradients = [torch.autograd.grad(module(x).square().sum(), x)[0] for module in (frozen, trained)]
        torch.testing.assert_close(*gradients)


def test_frozen_batch_norm_has_buffers_only() -> None:
    frozen = FrozenBatchNorm(6)
    assert list(frozen.state_dict()) == ["weight", "bias", "running_mean", "running_var"]
    assert not list(frozen.parameters())


def test_a_frozen_film_trunk_loads_a_released_state_and_keeps_it_while_training() -> None:
    plain = build_video_trunk("resnext50")
    fill(plain)
    frozen = build_video_trunk("resnext50", frozen=True)
    frozen.load_state_dict(plain.state_dict(), strict=True)
    before = frozen.get_submodule("bn1").running_mean.clone()
    film = drawn(1, 1, 3, 2, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(frozen.train().forward_features(film), plain.eval().forward_features(film), **CLOSE)
    assert torch.equal(frozen.get_submodule("bn1").running_mean, before)


# ---- sounds


@torch.no_grad()
def test_a_sound_has_the_same_features_in_any_batch() -> None:
    batch = waveforms(3, 3, 48000)
    together = sounds().forward_features(batch)
    for row, one in zip(together, batch, strict=True):
        torch.testing.assert_close(sounds().forward_features(one[None])[0], row, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize(
    ("samples", "hop", "frames"), [(96000, 200, 15), (150000, 200, 23), (480000, 480, 31), (480000, 200, 75)]
)
def test_grids_of_sounds(samples: int, hop: int, frames: int) -> None:
    trunk = build_audio_trunk("pann_cnn10", 64, hop).eval()
    assert trunk.forward_features(waveforms(0, 1, samples)).shape == (1, 1024, frames, 2)


@torch.no_grad()
def test_cnn6_pools_once_less_and_keeps_its_unused_classifier() -> None:
    trunk = small_sounds()
    state = {name: tuple(value.shape) for name, value in trunk.state_dict().items()}
    assert trunk.forward_features(waveforms(0, 1, 96000)).shape == (1, 512, 12, 4)
    assert state["conv_block1.conv1.weight"] == (64, 1, 5, 5)
    assert state["fc1.weight"] == (512, 512)
    assert state["fc_audioset.weight"] == (527, 512)
    assert not any("conv2" in name or "bn2" in name for name in state)


def test_cnn10_has_five_blocks_and_no_classifier() -> None:
    with torch.device("meta"):
        state = build_audio_trunk("pann_cnn10", 64, 480).state_dict()
    assert len(state) == 3 + 5 + 5 * 12
    assert not any(name.startswith("fc") for name in state)


def test_initial_weights_of_sound_trunks() -> None:
    trunk = build_audio_trunk("pann_cnn6", 64, 480)
    bound = (6 / (25 * (64 + 128))) ** 0.5  # xavier uniform
    assert float(trunk.get_submodule("conv_block2.conv1").weight.detach().abs().max()) == pytest.approx(bound, rel=1e-3)
    assert trunk.fc1.bias.eq(0).all()
    assert trunk.bn0.weight.eq(1).all()


def test_sounds_of_too_few_frames_are_refused() -> None:
    with pytest.raises(DataError, match="7199 samples is too short: the sound trunk needs at least 7200"):
        small_sounds().forward_features(torch.zeros(1, 15 * 480 - 1))
    assert small_sounds().forward_features(torch.zeros(1, 15 * 480)).shape == (1, 512, 1, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_cast_sound_trunk_keeps_its_filters_and_gives_features_of_its_format(dtype: torch.dtype) -> None:
    trunk = copy.deepcopy(small_sounds()).to(dtype)
    assert torch.equal(trunk.logmel_extractor.melW, small_sounds().logmel_extractor.melW)
    assert trunk.get_submodule("conv_block1.conv1").weight.dtype == dtype
    sound = waveforms(1, 1, 24000)
    with torch.no_grad():
        features, wanted = trunk.forward_features(sound.to(dtype)), small_sounds().forward_features(sound)
    assert features.dtype == dtype
    assert float((features.float() - wanted).abs().mean() / wanted.abs().mean()) < 0.05


def test_recompute_brings_back_the_constructed_filters() -> None:
    trunk = copy.deepcopy(small_sounds())
    for parameter in (trunk.logmel_extractor.melW, trunk.spectrogram_extractor.stft.conv_imag.weight):
        parameter.data.fill_(7)
    trunk.recompute()
    for name, value in small_sounds().state_dict().items():
        assert torch.equal(trunk.state_dict()[name], value), name


def test_a_sound_trunk_loads_torchaudios_filters_strictly() -> None:
    trunk, state = copy.deepcopy(small_sounds()), copy.deepcopy(small_sounds().state_dict())
    del state[MEL_KEY], state[REAL_KEY], state[REAL_KEY.replace("real", "imag")]
    state |= {"mel.mel_scale.fb": torch.full((513, 64), 0.5), "mel.spectrogram.window": torch.ones(1024)}
    hull = nn.ModuleDict({"trunk": trunk})
    hull.load_state_dict({f"trunk.{name}": value for name, value in state.items()}, strict=True)
    assert trunk.logmel_extractor.melW.eq(0.5).all()
    assert trunk.spectrogram_extractor.stft.conv_real.weight[0].eq(1).all()


def test_filters_of_another_size_do_not_keep_a_sound_trunk_from_loading(caplog: pytest.LogCaptureFixture) -> None:
    trunk, state = copy.deepcopy(small_sounds()), copy.deepcopy(small_sounds().state_dict())
    state[MEL_KEY] = torch.zeros(257, 80)
    trunk.load_state_dict(state, strict=True)
    assert torch.equal(trunk.logmel_extractor.melW, small_sounds().logmel_extractor.melW)
    assert "(257, 80) instead of (513, 64)" in caplog.text


def test_training_augments_repeatably_and_evaluation_does_not() -> None:
    trunk, sound = copy.deepcopy(small_sounds()), waveforms(2, 2, 48000)

    def features(seed: int, training: bool) -> Tensor:
        torch.manual_seed(seed)
        return trunk.train(training).forward_features(sound).detach()

    with torch.no_grad():
        assert torch.equal(features(1, True), features(1, True))
        assert not torch.equal(features(1, True), features(2, True))
        assert torch.equal(features(1, False), features(2, False))


def test_sound_trunks_train_all_but_the_filters_and_the_unused_classifier() -> None:
    trunk = copy.deepcopy(small_sounds()).train()
    trunk.forward_features(waveforms(2, 2, 24000)).sum().backward()
    without = {name for name, parameter in trunk.named_parameters() if parameter.grad is None}
    assert {name.split(".")[0] for name in without} == {
        "spectrogram_extractor",
        "logmel_extractor",
        "fc1",
        "fc_audioset",
    }


@settings(max_examples=50, deadline=None)
@given(length=st.integers(1, 200), limit=st.integers(1, 64), seed=st.integers(0, 2**31))
def test_stripes_cover_less_than_their_limits(length: int, limit: int, seed: int) -> None:
    torch.manual_seed(seed)
    covered = stripes(5, length, 2, limit, torch.device("cpu"))
    assert covered.shape == (5, length)
    assert int(covered.sum(1).max()) <= 2 * (limit - 1)
    starts = covered.int().diff(dim=1, prepend=torch.zeros(5, 1, dtype=torch.int)).eq(1).sum(1)
    assert int(starts.max()) <= 2


def test_stripes_reach_both_ends_and_differ_between_samples() -> None:
    torch.manual_seed(0)
    covered = stripes(2000, 100, 2, 64, torch.device("cpu"))
    assert bool(covered[:, 0].any())
    assert bool(covered[:, -2].any())
    assert len(covered.unique(dim=0)) > 1000


# ---- pictures


def rates(trunk: Any) -> list[list[float]]:
    return [[b.drop_path.rate if b.drop_path else 0.0 for b in s] for s in (trunk.layer1, trunk.layer2, trunk.layer3)]


def test_drop_path_of_the_three_stage_trunk_grows_from_zero_in_every_stage() -> None:
    trunk = build_image_trunk("resnet", "resnet50", drop_path=0.3)
    assert rates(trunk) == [torch.linspace(0, 0.3, blocks).tolist() for blocks in (3, 4, 6)]
    assert all(stage[0].drop_path is None for stage in (trunk.layer1, trunk.layer2, trunk.layer3))


def test_the_three_stage_trunk_drops_paths_only_while_training() -> None:
    trunk = build_image_trunk("resnet", "resnet50", drop_path=0.9, frozen=True)
    picture = drawn(0, 1, 3, 64, 64)
    with torch.no_grad():
        still = [trunk.eval().forward_features(picture) for _ in range(2)]
        moving = [trunk.train().forward_features(picture) for _ in range(2)]
    assert still[0].shape == (1, 1024, 4, 4)
    assert torch.equal(*still)
    assert not torch.equal(*moving)


def test_state_of_the_three_stage_trunk_ends_with_stage_three() -> None:
    trunk = build_image_trunk("resnet", "resnet101")
    assert trunk.num_features == 1024
    assert {name.split(".")[0] for name in trunk.state_dict()} == {"conv1", "bn1", "layer1", "layer2", "layer3"}
    assert all(block.bn3.weight.eq(1).all() for block in trunk.layer1)


@pytest.mark.parametrize(("frozen", "expected"), [(False, 0), (True, 1)])
def test_blocks_of_the_four_stage_trunk_start_as_identities_unless_frozen(frozen: bool, expected: int) -> None:
    trunk = build_image_trunk("timm_resnet", "resnet50", drop_path=0.5, frozen=frozen)
    assert trunk.layer2[1].bn3.weight.eq(expected).all()
    assert trunk.layer3[5].drop_path is None
    assert isinstance(trunk.bn1, FrozenBatchNorm) == frozen


def test_the_light_trunk_has_a_grid_of_sixteenths() -> None:
    trunk = build_image_trunk("timm_tiny", "resnet101").eval()
    assert trunk.forward_features(drawn(0, 1, 3, 64, 96)).shape == (1, trunk.num_features, 4, 6)


# ---- wrong names


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: build_image_trunk("resnext", "resnet50"),
            "--image-encoder-name resnext: .* timm_resnet, resnet, timm",
        ),
        (lambda: build_image_trunk("timm_resnet", "resnet18"), "--resnet-type resnet18: .* resnet50, resnet101"),
        (lambda: build_video_trunk("all_resnext34"), "--video-encoder-name all_resnext34: .* all_resnext101"),
        (
            lambda: build_audio_trunk("cnn14", 64, 480),
            "--audio-encoder-name cnn14: choose one of pann_cnn14, pann_cnn10",
        ),
        (lambda: build_audio_trunk("pann_cnn14", 16, 480), "--mel-bins must be at least 32"),
        (lambda: build_audio_trunk("pann_cnn14", 64, 0), "--hop-size at least 1"),
    ],
)
def test_unknown_names_and_sizes_are_refused(build: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


def test_the_small_film_trunk_sees_every_frame_and_their_order() -> None:
    torch.manual_seed(0)
    trunk = build_video_trunk("timm_tiny").eval()
    film = torch.randn(2, 3, 5, 32, 48)
    features = trunk.forward_features(film)
    assert features.shape == (2, trunk.num_features, 2, 2, 3)
    assert not torch.allclose(features, trunk.forward_features(film.flip(2)))
    still = film[:, :, :1].expand(-1, -1, 5, -1, -1)
    torch.testing.assert_close(trunk.frames.forward_features(film[:, :, 0]), _first_frame(trunk, still))


def _first_frame(trunk: Any, film: torch.Tensor) -> torch.Tensor:
    return trunk.frames.forward_features(film.transpose(1, 2).flatten(0, 1))[:: film.shape[2]]
