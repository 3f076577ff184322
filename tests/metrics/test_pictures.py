"""Scores of pictures: CLIP from every kind of local file, FID and IS against their formulas, and refusals.

CLIP is a tiny one with random weights, the features of FID and IS are made ones unless a test says otherwise.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from unival_plugin.errors import CheckpointError, ConfigError, DataError
from unival_plugin.metrics import pictures
from unival_plugin.metrics.pictures import ClipScorer, fid, inception_score, read_statistics

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
TEXTS = ["a three above a seven", "two", "a very long text that goes on and on until CLIP can read no more of it"]


def made_pictures(count: int, seed: int = 0, width: int = 40, height: int = 48) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    planes = rng.integers(0, 256, (count, height, width, 3)) * rng.random((count, 1, 1, 3))
    return [Image.fromarray(each.astype(np.uint8)) for each in planes]


# ---- CLIP


@pytest.fixture(scope="module")
def open_clip() -> Any:
    return pytest.importorskip("open_clip")


@pytest.fixture(scope="module")
def networks(open_clip: Any) -> dict[bool, Any]:
    """Two networks with the same weights, by whether they have OpenAI's activation."""
    torch.manual_seed(0)
    plain, quick = (open_clip.CLIP(**TINY, quick_gelu=kind).eval() for kind in (False, True))
    quick.load_state_dict(plain.state_dict())
    return {False: plain, True: quick}


@pytest.fixture
def clip_file(networks: dict[bool, Any], tmp_path: Path) -> Path:
    """Weights, and the configuration beside them."""
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": {}}))
    torch.save(networks[False].state_dict(), tmp_path / "clip.pt")
    return tmp_path / "clip.pt"


def expected(open_clip: Any, network: Any, images: list[Image.Image], texts: list[str]) -> torch.Tensor:
    transform = open_clip.image_transform(32, is_train=False)
    with torch.no_grad():
        left = network.encode_image(torch.stack([transform(each) for each in images]))
        right = network.encode_text(open_clip.tokenize(texts, context_length=12))
    return nn.functional.cosine_similarity(left, right)


def test_similarity_is_the_cosine_of_the_networks_features(open_clip: Any, networks: Any, clip_file: Path) -> None:
    images = made_pictures(3)
    similarity = ClipScorer(clip_file).similarity(images, TEXTS)
    assert similarity.dtype == torch.float32 and similarity.abs().max() <= 1
    torch.testing.assert_close(similarity, expected(open_clip, networks[False], images, TEXTS))
    assert len(set(similarity.tolist())) == 3


def as_safetensors(network: Any, path: Path) -> Path:
    save_file(network.state_dict(), path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def as_training_state(network: Any, path: Path) -> Path:
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, path)
    return path


def as_halves(network: Any, path: Path) -> Path:
    torch.save({name: tensor.half() for name, tensor in network.state_dict().items()}, path)
    return path


def as_openai_state(network: Any, path: Path) -> Path:
    extras = {name: torch.tensor(1) for name in ("input_resolution", "context_length", "vocab_size")}
    torch.save({**network.state_dict(), **extras}, path)
    return path


def as_openai_archive(network: Any, path: Path) -> Path:
    for name in ("input_resolution", "context_length", "vocab_size"):
        vars(network).pop(name, None)
        network.register_buffer(name, torch.tensor(1))
    inputs = (torch.zeros(1, 3, 32, 32), torch.zeros(1, 12, dtype=torch.int64))
    torch.jit.trace(network, inputs, check_trace=False).save(str(path))
    return path


@pytest.mark.parametrize(
    "write, quick",
    [
        (as_safetensors, False),
        (as_training_state, False),
        (as_halves, False),
        (as_openai_state, True),
        (as_openai_archive, True),
    ],
)
def test_every_kind_of_file_is_read(
    open_clip: Any, networks: Any, clip_file: Path, monkeypatch: Any, write: Callable[..., Path], quick: bool
) -> None:
    own = open_clip.CLIP(**TINY, quick_gelu=quick).eval()
    own.load_state_dict(networks[quick].state_dict())
    path = write(own, clip_file)
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("the program of the archive was loaded"))
    images = made_pictures(3)
    found = ClipScorer(path).similarity(images, TEXTS)
    right, wrong = (expected(open_clip, networks[kind], images, TEXTS) for kind in (quick, not quick))
    torch.testing.assert_close(found, right, atol=2e-3 if write is as_halves else 1e-5, rtol=0)
    assert not torch.allclose(right, wrong, atol=1e-4)


def test_batches_change_nothing_and_none_is_fine(open_clip: Any, clip_file: Path) -> None:
    scorer, images = ClipScorer(clip_file, batch_size=2), made_pictures(5)
    texts = [TEXTS[place] for place in (0, 1, 0, 2, 0)]
    single = torch.cat([scorer.similarity([image], [text]) for image, text in zip(images, texts, strict=True)])
    torch.testing.assert_close(scorer.similarity(images, texts), single)
    assert scorer.similarity([], []).shape == (0,)
    assert scorer.images([]).shape == scorer.texts([]).shape == (0, 16)


def test_features_have_length_one_and_are_the_same_inside_a_training(open_clip: Any, clip_file: Path) -> None:
    scorer, images = ClipScorer(clip_file), made_pictures(2)
    features = scorer.images(images)
    assert not features.requires_grad
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(scorer.images(images), features)


def test_pictures_of_every_mode_are_scored(open_clip: Any, clip_file: Path) -> None:
    image = made_pictures(1)[0].convert("L")
    scorer = ClipScorer(clip_file)
    assert torch.equal(scorer.images([image]), scorer.images([image.convert("RGB")]))


def test_a_text_for_each_picture(open_clip: Any, clip_file: Path) -> None:
    with pytest.raises(DataError, match="2 pictures and 3 texts"):
        ClipScorer(clip_file).similarity(made_pictures(2), TEXTS)


def test_architectures_of_open_clip_have_names(open_clip: Any, networks: Any, clip_file: Path, tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").rename(tmp_path / "unival-tiny-test.json")
    (tmp_path / "unival-tiny-test.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(tmp_path / "unival-tiny-test.json")
    found = ClipScorer(clip_file, architecture="unival/tiny-test").similarity(made_pictures(3), TEXTS)
    torch.testing.assert_close(found, expected(open_clip, networks[False], made_pictures(3), TEXTS))


def test_unknown_architectures_are_refused(open_clip: Any, clip_file: Path) -> None:
    for name in ("ViT-Z-99", "roberta-ViT-B-32", "hf-hub:somebody/some-clip"):
        with pytest.raises(ConfigError, match="no network of CLIP that open_clip knows"):
            ClipScorer(clip_file, architecture=name)


@pytest.mark.parametrize(
    "config, message",
    [
        ("{", "no configuration of open_clip"),
        ('["model_cfg"]', "no configuration of open_clip"),
        ({"preprocess_cfg": {}}, "no configuration of open_clip"),
        ({"model_cfg": {**TINY, "text_cfg": {"hf_model_name": "x"}}}, "hf_model_name asks for more than CLIP's own"),
        ({"model_cfg": {**TINY, "custom_text": True}}, "custom_text asks for more"),
        ({"model_cfg": {**TINY, "colour": 3}}, "makes no network of open_clip"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(open_clip: Any, clip_file: Path, config: Any, message: str) -> None:
    text = config if isinstance(config, str) else json.dumps(config)
    clip_file.with_name("open_clip_config.json").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        ClipScorer(clip_file)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused(open_clip: Any, clip_file: Path) -> None:
    wider = {**TINY, "embed_dim": 24}
    clip_file.with_name("open_clip_config.json").write_text(json.dumps({"model_cfg": wider}))
    with pytest.raises(CheckpointError, match="weights of another network") as caught:
        ClipScorer(clip_file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut"])
def test_damaged_weights_are_refused(open_clip: Any, clip_file: Path, content: bytes) -> None:
    clip_file.write_bytes(content)
    with pytest.raises(CheckpointError, match="clip.pt") as caught:
        ClipScorer(clip_file)
    assert "\n" not in str(caught.value)


def test_missing_weights_say_what_to_give(open_clip: Any, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"none\.pt: no such file; give OpenAI's ViT-B-16\.pt .*nothing is downloaded"
    ):
        ClipScorer(tmp_path / "none.pt")


@pytest.mark.parametrize(
    "name", ["open_clip", "torchmetrics.image.fid", "torchmetrics.image.inception", "torch_fidelity"]
)
def test_missing_libraries_give_one_line(monkeypatch: Any, tmp_path: Path, name: str) -> None:
    if name in ("torchmetrics.image.inception", "torchmetrics.image.fid"):
        pytest.importorskip("torch_fidelity")
    monkeypatch.setattr(
        pictures, "inception", pictures.inception if name != "torchmetrics.image.inception" else Colours
    )
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"pip install 'unival-plugin\[images\]'") as caught:
        if name == "open_clip":
            ClipScorer(tmp_path / "none.pt")
        else:
            inception_score(made_pictures(2), tmp_path / "none.pth")
    assert "\n" not in str(caught.value)


# ---- FID and IS


class Colours(nn.Module):
    """Made features: mean, spread and a mixture of the colours of a picture."""

    num_features = 6

    def __init__(self, *_: Any) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        assert batch.dtype == torch.uint8
        self.sizes.append(tuple(batch.shape))
        planes = batch.float().flatten(2) / 64
        return torch.cat([planes.mean(dim=2), planes.std(dim=2)], dim=1)


@pytest.fixture
def colours(monkeypatch: Any) -> Colours:
    pytest.importorskip("torchmetrics")
    network = Colours()
    monkeypatch.setattr(pictures, "inception", lambda weights, layer: network)
    return network


def features(images: list[Image.Image]) -> np.ndarray:
    batches = [torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())[None] for image in images]
    return torch.cat([Colours()(batch) for batch in batches]).double().numpy()


def frechet(left: np.ndarray, right: np.ndarray) -> float:
    linalg = pytest.importorskip("scipy.linalg")
    covariances = [np.cov(each, rowvar=False) for each in (left, right)]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    gap = left.mean(axis=0) - right.mean(axis=0)
    return float(gap @ gap + np.trace(covariances[0] + covariances[1] - 2 * root))


def saved(folder: Path, images: list[Image.Image]) -> Path:
    folder.mkdir()
    for number, image in enumerate(images):
        image.save(folder / f"{number:03}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_fid_is_the_distance_of_means_and_covariances(colours: Colours) -> None:
    real, generated = made_pictures(20), made_pictures(15, seed=1)
    found = fid(real, generated, "weights.pth", batch_size=4)
    assert found == pytest.approx(frechet(features(real), features(generated)), rel=1e-4)
    assert fid(real, real, "weights.pth") == pytest.approx(0, abs=1e-3)
    assert max(size[0] for size in colours.sizes[:8]) == 4


def test_real_pictures_may_be_a_folder_or_statistics(colours: Colours, tmp_path: Path) -> None:
    real, generated = made_pictures(20), made_pictures(15, seed=1)
    numbers = features(real)
    np.savez(tmp_path / "gt_stat.npz", mu=numbers.mean(axis=0), sigma=np.cov(numbers, rowvar=False))
    wanted = fid(real, generated, "weights.pth")
    assert fid(saved(tmp_path / "real", real), generated, "weights.pth") == wanted
    assert fid(tmp_path / "gt_stat.npz", saved(tmp_path / "made", generated), "weights.pth") == pytest.approx(wanted)


def test_pictures_of_several_sizes_go_through_in_batches_of_one_size(colours: Colours) -> None:
    real = made_pictures(3) + made_pictures(2, width=20) + made_pictures(1)
    found = fid(real, made_pictures(9, seed=2), "weights.pth")
    assert [size[0] for size in colours.sizes if size[0] != 9] == [3, 2, 1]
    assert found == pytest.approx(frechet(features(real), features(made_pictures(9, seed=2))), rel=1e-3)


def test_inception_score_is_the_exponent_of_the_mean_divergence(colours: Colours) -> None:
    images = made_pictures(12)
    scores = features(images)
    chances = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    wanted = np.exp((chances * np.log(chances / chances.mean(axis=0))).sum(axis=1).mean())
    assert inception_score(images, "weights.pth") == (pytest.approx(wanted, rel=1e-5), 0.0)
    mean, deviation = inception_score(images, "weights.pth", splits=3, batch_size=5)
    assert mean >= 1 and deviation > 0


def test_too_few_or_unreadable_pictures_are_named(colours: Colours, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="generated pictures: 1 pictures, at least 2"):
        fid(made_pictures(3), made_pictures(1), "weights.pth")
    folder = saved(tmp_path / "some", made_pictures(1))
    with pytest.raises(DataError, match="some: 1 pictures"):
        inception_score(folder, "weights.pth")
    (folder / "001.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"001\.png"):
        inception_score(folder, "weights.pth")
    with pytest.raises(ConfigError, match="none: cannot be listed"):
        inception_score(tmp_path / "none", "weights.pth")


def square(size: int, **changes: Any) -> dict[str, Any]:
    return {"mu": np.zeros(size), "sigma": np.eye(size), **changes}


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"mu": np.zeros(3)}, "no statistics of pictures"),
        (square(3, sigma=np.eye(4)), r"mu \(3,\), sigma \(4, 4\): needs"),
        (square(3, sigma=np.full((3, 3), np.nan)), "needs numbers"),
        (square(3, mu=np.array([{}, {}, {}], dtype=object)), "no statistics of pictures"),
        (square(3, mu=np.array(["a", "b", "c"])), "no statistics of pictures"),
    ],
)
def test_statistics_that_are_none_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(ConfigError, match=message):
        read_statistics(tmp_path / "x.npz")


@pytest.mark.parametrize("content", [None, b"", b"mu, sigma"])
def test_files_without_statistics_are_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.npz: no statistics of pictures"):
        read_statistics(tmp_path / "x.npz")


def test_huge_statistics_are_refused_before_they_are_read(tmp_path: Path, monkeypatch: Any) -> None:
    np.savez_compressed(tmp_path / "x.npz", **square(64))
    monkeypatch.setattr(pictures, "STATISTICS_BYTES", 1000)
    with pytest.raises(ConfigError, match="bytes of numbers"):
        read_statistics(tmp_path / "x.npz")


def test_statistics_of_another_network_are_refused(colours: Colours, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **square(3))
    with pytest.raises(ConfigError, match="statistics of 3 features, the network has 6"):
        fid(tmp_path / "x.npz", made_pictures(2), "weights.pth")


# ---- the Inception network


def test_missing_inception_weights_say_where_they_are(tmp_path: Path) -> None:
    pytest.importorskip("torchmetrics")
    pytest.importorskip("torch_fidelity")
    with pytest.raises(
        ConfigError, match=r"none\.pth: no such file; give pt_inception-2015-12-05.*nothing is downloaded"
    ):
        fid(made_pictures(2), made_pictures(2), tmp_path / "none.pth")


def test_other_weights_than_inceptions_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("torchmetrics")
    pytest.importorskip("torch_fidelity")
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"x\.pth: weights of another network; give pt_inception") as caught:
        fid(made_pictures(2), made_pictures(2), tmp_path / "x.pth")
    assert "\n" not in str(caught.value)


class Payload:
    """A pickled object that makes a file when it is executed, as torch-fidelity would."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(self.mark)!r}, 'w').close()",)


@pytest.mark.parametrize("kind", ["clip", "inception"])
def test_payloads_in_weights_are_not_executed(open_clip: Any, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("torchmetrics")
    pytest.importorskip("torch_fidelity")
    torch.save({"state_dict": Payload(tmp_path / "mark")}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="asks for builtins.exec, which safe reading does not allow"):
        ClipScorer(tmp_path / "x.pt") if kind == "clip" else pictures.inception(tmp_path / "x.pt", "2048")
    assert not (tmp_path / "mark").exists()


def test_inception_is_torch_fidelitys_with_the_files_weights(tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("torchmetrics")
    library = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    torch.save({}, tmp_path / "none.pth")
    with monkeypatch.context() as patch:  # random weights instead of the file's
        patch.setattr(nn.Module, "load_state_dict", lambda *_, **__: None)
        own = library.FeatureExtractorInceptionV3("x", ["2048"], str(tmp_path / "none.pth"))
    torch.save(own.state_dict(), tmp_path / "inception.pth")
    batch = torch.randint(0, 256, (1, 3, 299, 299), dtype=torch.uint8)
    network = pictures.inception(tmp_path / "inception.pth", "2048")
    torch.testing.assert_close(network(batch), own(batch)[0])
    mean, deviation = inception_score(made_pictures(2), tmp_path / "inception.pth", batch_size=2)
    assert mean >= 1 and deviation == 0
