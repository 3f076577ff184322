"""Scores of generated pictures: CLIP's similarity with texts, Fréchet inception distance (FID), inception score (IS).

Sources: Radford et al. 2021, "Learning transferable visual models from natural language supervision" (CLIP); Hessel et
al. 2021, "CLIPScore"; Heusel et al. 2017, "GANs trained by a two time-scale update rule" (FID); Salimans et al. 2016,
"Improved techniques for training GANs" (IS); UnIVAL, ``tasks/mm_tasks/image_gen.py``.

The networks are those of open_clip and torch-fidelity, the formulas those of torchmetrics (extra ``images``). Weights
are local files, read without executing anything in them; nothing is ever downloaded.
"""

from __future__ import annotations

import importlib
import io
import json
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..checkpoints.reading import read_checkpoint, weights_of
from ..checkpoints.torchscript import is_torchscript, read_torchscript
from ..data.image import read_cell_image, to_rgb
from ..errors import CheckpointError, ConfigError, DataError

CLIP_REWARD_WEIGHT = 2.5
"""What UnIVAL's reward and CLIPScore multiply the cosine by."""

Pictures = str | Path | Sequence[Image.Image]
"""A folder of picture files, in the order of their names, or pictures."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")

CLIP_SOURCE = "give OpenAI's ViT-B-16.pt (github.com/openai/CLIP) or weights of open_clip; nothing is downloaded"
INCEPTION_SOURCE = (
    "give pt_inception-2015-12-05-6726825d.pth (github.com/mseitzer/pytorch-fid, releases; also in "
    "github.com/toshas/torch-fidelity, releases, as weights-inception-2015-12-05-6726825d.pth); nothing is downloaded"
)

INCEPTION_LAYERS = {"2048": 2048, "logits_unbiased": 1008}
"""Numbers of features of the layers for FID and IS."""

DEFAULT_CLIP = "ViT-B-16"
CLIP_CONFIG = "open_clip_config.json"
OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")
"""Numbers among OpenAI's weights that are no weights; open_clip's own files lack them."""

FOREIGN = ("timm_model_name", "hf_model_name", "hf_tokenizer_name", "tokenizer_kwargs", "multimodal_cfg", "custom_text")
"""Entries of open_clip's configurations that ask for other networks and tokenizers than CLIP's own."""

STATISTICS_BYTES = 2**28


def _library(name: str, package: str, purpose: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(f"{purpose} needs {package}: pip install 'unival-plugin[images]'") from None


def _progress(batches: Iterable[Any], total: int, what: str, progress: bool) -> Iterator[Any]:
    """The batches, with a bar that counts pictures; none if ``progress`` is false or nobody looks at a terminal."""
    from tqdm import tqdm

    with tqdm(total=total, desc=what, disable=None if progress else True) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch))


# ---- CLIP


class ClipScorer:
    """Says how well pictures fit texts: the cosine between CLIP's features of both.

    Args:
        path: OpenAI's archive ``ViT-B-16.pt``, or weights of open_clip (``.pt``, ``.bin``, ``.safetensors``).
        device: where the network runs, always in float32.
        architecture: open_clip's name of the network, e.g. ``"ViT-L-14"``; None: what an ``open_clip_config.json``
            beside the file describes, else ``"ViT-B-16"``. Weights of OpenAI get OpenAI's activation with every name.
        batch_size: pictures or texts that go through the network together.

    Raises:
        ConfigError: no such file, no such network, or open_clip is missing.
        CheckpointError: the file is unsafe, damaged, or of another network.
    """

    def __init__(
        self,
        path: str | Path,
        device: str | torch.device = "cpu",
        architecture: str | None = None,
        batch_size: int = 64,
    ) -> None:
        path = Path(path)
        open_clip = _library("open_clip", "open_clip_torch", "CLIP")
        if not path.is_file():
            raise ConfigError(f"{path}: no such file; {CLIP_SOURCE}")
        weights = read_torchscript(path) if is_torchscript(path) else _weights(path)
        model, preprocess = _clip_configuration(open_clip, path, architecture)
        if all(name in weights for name in OPENAI_EXTRAS):
            model["quick_gelu"] = True
        self.device, self.batch_size = torch.device(device), batch_size
        self.network = _clip_network(open_clip, model, weights, path).to(self.device)
        self._width: int = model["embed_dim"]
        self._tokenize = open_clip.SimpleTokenizer(context_length=self.network.context_length)
        visual: Any = self.network.visual
        size = preprocess.pop("size", None) or visual.image_size
        self._transform = open_clip.image_transform(size, is_train=False, **preprocess)

    def images(self, pictures: Sequence[Image.Image], progress: bool = False) -> Tensor:
        """Features of pictures, fp32 (N, D) of length 1, on the CPU."""
        parts = (pictures[start : start + self.batch_size] for start in range(0, len(pictures), self.batch_size))
        batches = _progress(parts, len(pictures), "CLIP", progress)
        return self._features(
            self.network.encode_image,
            (torch.stack([self._transform(to_rgb(each)) for each in part]) for part in batches),
        )

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Features of texts, fp32 (N, D) of length 1, on the CPU; what is longer than CLIP can read is cut off."""
        parts = (list(texts[start : start + self.batch_size]) for start in range(0, len(texts), self.batch_size))
        return self._features(self.network.encode_text, (self._tokenize(part) for part in parts))

    def similarity(self, pictures: Sequence[Image.Image], texts: Sequence[str], progress: bool = False) -> Tensor:
        """Cosine of every picture with its text, fp32 (N,), on the CPU.

        Raises:
            DataError: not one text a picture.
        """
        if len(pictures) != len(texts):
            raise DataError(f"{len(pictures)} pictures and {len(texts)} texts: give one text for each picture")
        different = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        features = self.texts(list(different))[[different[text] for text in texts]]
        return (self.images(pictures, progress) * features).sum(dim=-1)

    @torch.no_grad()
    def _features(self, encode: Any, batches: Iterable[Tensor]) -> Tensor:
        """Autocast of a training around it is left: a reward is a small difference of large numbers."""
        with torch.autocast(self.device.type, enabled=False):
            found = [encode(batch.to(self.device)).float() for batch in batches]
        nothing = torch.zeros(0, self._width, device=self.device)
        return nn.functional.normalize(torch.cat([nothing, *found]), dim=-1).cpu()


def _weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name of a file of weights, without the prefix that training with several processes puts before names.

    Raises:
        CheckpointError: the file cannot be read, or holds no weights.
    """
    state = read_checkpoint(path)
    try:
        weights = weights_of(state)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return {name.removeprefix("module."): tensor for name, tensor in weights.items()}


def _clip_configuration(open_clip: Any, path: Path, architecture: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the network and the preparation of pictures are made from; new dictionaries."""
    beside = path.with_name(CLIP_CONFIG)
    if architecture is None and beside.is_file():
        return _described_clip(beside)
    name = (architecture or DEFAULT_CLIP).replace("/", "-")
    model = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if model is None or _foreign(model):
        raise ConfigError(f"{architecture}: no network of CLIP that open_clip knows by itself; use {DEFAULT_CLIP}")
    return dict(model), {}


def _described_clip(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Contents of an ``open_clip_config.json``."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        model = {"quick_gelu": False, **content["model_cfg"]}
        prepare = content.get("preprocess_cfg") or {}
        known = {
            name: prepare[name] for name in ("size", "mean", "std", "interpolation", "resize_mode") if name in prepare
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f'{path}: no configuration of open_clip ({error}): it needs "model_cfg" and "preprocess_cfg"'
        ) from error
    if _foreign(model):
        raise ConfigError(f"{path}: {_foreign(model)} asks for more than CLIP's own networks; use {DEFAULT_CLIP}")
    return model, known


def _foreign(model: dict[str, Any]) -> str:
    """The first entry, if any, that asks for something else than CLIP's own networks."""
    parts = (model, *(model.get(part) for part in ("vision_cfg", "text_cfg")))
    return next((name for name in FOREIGN for part in parts if isinstance(part, dict) and part.get(name)), "")


def _clip_network(open_clip: Any, config: dict[str, Any], weights: dict[str, Tensor], path: Path) -> nn.Module:
    """CLIP for evaluation with the weights of ``path``, which is only named in messages."""
    try:
        network: nn.Module = open_clip.CLIP(**config)
    except (TypeError, ValueError, AssertionError, AttributeError, RuntimeError) as error:
        raise ConfigError(f"{path}: its configuration makes no network of open_clip ({_one_line(error)})") from error
    constant = {*OPENAI_EXTRAS, *(name for name, _ in network.named_buffers())} - network.state_dict().keys()
    given = {name: tensor.float() for name, tensor in weights.items() if name not in constant}
    try:
        network.load_state_dict(given)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: weights of another network ({_one_line(error)}); name its architecture, or {CLIP_SOURCE}"
        ) from error
    return network.eval().requires_grad_(False)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]


# ---- FID and IS


def fid(
    real: Pictures,
    generated: Pictures,
    weights: str | Path,
    device: str | torch.device = "cpu",
    batch_size: int = 32,
    progress: bool = True,
) -> float:
    """Fréchet distance between the features of real and generated pictures; 0 is best.

    Args:
        real: pictures, a folder, or an ``.npz`` with their mean ``mu`` (2048,) and covariance ``sigma`` (2048, 2048).
        generated: pictures or a folder.
        weights: the Inception network of FID, a local file.
        device: where the network runs, in float32; mean and covariance are float64, and the distance takes some
            seconds of a processor.
        batch_size: pictures of one size that go through the network together.
        progress: show a bar on terminals.

    Raises:
        ConfigError: weights, statistics or libraries are missing or wrong.
        CheckpointError: the weights are unsafe, damaged, or of another network.
        DataError: fewer than two pictures, or one that cannot be read.
    """
    network = inception(weights, "2048")
    fid_metric = _library("torchmetrics.image.fid", "torchmetrics", "FID").FrechetInceptionDistance
    metric = fid_metric(feature=network, normalize=False).to(device)
    if isinstance(real, (str, Path)) and Path(real).suffix == ".npz":
        _set_statistics(metric, *read_statistics(real))
    else:
        _update(metric, real, batch_size, progress, "real pictures", real=True)
    _update(metric, generated, batch_size, progress, "generated pictures", real=False)
    return float(metric.compute())


def inception_score(
    pictures: Pictures,
    weights: str | Path,
    splits: int = 1,
    device: str | torch.device = "cpu",
    batch_size: int = 32,
    progress: bool = True,
) -> tuple[float, float]:
    """Inception score (1 is worst) and its standard deviation over ``splits`` random parts, 0 for one.

    Arguments and errors as :func:`fid`. UnIVAL's scripts use one part.
    """
    network = inception(weights, "logits_unbiased")
    library = _library("torchmetrics.image.inception", "torchmetrics", "the inception score")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it keeps all features in memory: 4 kB a picture
        metric = library.InceptionScore(feature=network, splits=splits, normalize=False).to(device)
        _update(metric, pictures, batch_size, progress, "pictures")
        mean, deviation = metric.compute()
    return float(mean), float(deviation) if splits > 1 else 0.0


def inception(weights: str | Path, layer: str) -> nn.Module:
    """The Inception network of FID, from uint8 pictures (N, 3, H, W) to fp32 features (N, D).

    It resizes pictures to 299 x 299: smaller ones as pytorch-fid does, larger ones with antialiasing, without which
    scores depend on moiré.

    Args:
        weights: a local file of the weights that FID is defined with.
        layer: "2048" for FID, "logits_unbiased" for IS.

    Raises:
        ConfigError, CheckpointError: as :func:`fid`.
    """
    path = Path(weights)
    _library("torch_fidelity", "torch-fidelity", "FID")
    library = _library("torchmetrics.image.fid", "torchmetrics", "FID")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; {INCEPTION_SOURCE}")
    # torch-fidelity unpickles its file with everything in it; so it gets what safe reading has left of the file
    checked = io.BytesIO()
    torch.save(_weights(path), checked)
    checked.seek(0)
    try:
        network = library.NoTrainInceptionV3("inception-v3-compat", [layer], feature_extractor_weights_path=checked)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: weights of another network; {INCEPTION_SOURCE}") from error
    network.num_features = INCEPTION_LAYERS[layer]
    return network


def read_statistics(path: str | Path) -> tuple[Tensor, Tensor]:
    """Mean float64 (D,) and covariance float64 (D, D) of a file that pytorch-fid or the like has written.

    Raises:
        ConfigError: no such file, or not these two arrays.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > STATISTICS_BYTES:
            raise ValueError(f"{size} bytes of numbers")
        with np.load(path, allow_pickle=False) as arrays:
            mean, covariance = (torch.from_numpy(arrays[name].astype(np.float64)) for name in ("mu", "sigma"))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"{path}: no statistics of pictures ({_one_line(error)}); give an .npz of mu and sigma"
        ) from error
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)) or not covariance.isfinite().all():
        shapes = f"mu {tuple(mean.shape)}, sigma {tuple(covariance.shape)}"
        raise ConfigError(f"{path}: {shapes}: needs numbers (D,) and (D, D)")
    return mean, covariance


def _set_statistics(metric: Any, mean: Tensor, covariance: Tensor) -> None:
    """The sums that two pictures of this mean and covariance would have left in torchmetrics' FID."""
    if metric.real_features_sum.shape != mean.shape:
        raise ConfigError(
            f"statistics of {len(mean)} features, the network has {len(metric.real_features_sum)}; use a file of the "
            "same Inception network"
        )
    sums = {"sum": 2 * mean, "cov_sum": covariance + 2 * torch.outer(mean, mean), "num_samples": torch.tensor(2)}
    for name, value in sums.items():
        getattr(metric, f"real_features_{name}").copy_(value)


def _update(metric: Any, pictures: Pictures, batch_size: int, progress: bool, what: str, **options: Any) -> None:
    files = _files(pictures) if isinstance(pictures, (str, Path)) else None
    count = len(files if files is not None else pictures)  # type: ignore[arg-type]
    if count < 2:
        raise DataError(f"{pictures if files is not None else what}: {count} pictures, at least 2 are needed")
    read = map(_read, files) if files is not None else map(to_rgb, pictures)  # type: ignore[arg-type]
    for batch in _progress(_batches(read, batch_size), count, what, progress):
        metric.update(batch.to(metric.device), **options)


def _files(folder: str | Path) -> list[Path]:
    try:
        return sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be listed ({error.strerror}); give a folder of pictures") from error


def _read(path: Path) -> Image.Image:
    return read_cell_image(path.name, str(path.parent), path.parent, from_path=True)


def _batches(pictures: Iterable[Image.Image], size: int) -> Iterator[Tensor]:
    """Neighbours of one size, uint8 (at most ``size``, 3, H, W)."""
    waiting: list[Tensor] = []
    for picture in pictures:
        pixels = torch.from_numpy(np.asarray(picture).transpose(2, 0, 1).copy())
        if waiting and (len(waiting) == size or waiting[0].shape != pixels.shape):
            yield torch.stack(waiting)
            waiting = []
        waiting.append(pixels)
    if waiting:
        yield torch.stack(waiting)
