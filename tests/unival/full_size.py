"""The full-size network under the weight-fill rule of the golden files, and their inputs."""

from __future__ import annotations

import functools
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unival_plugin.unival.model.config import SCRIPT_FLAGS, from_preset
from unival_plugin.unival.model.network import UnIVALNetwork

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "unival_model"
CASES: dict[str, Any] = json.loads((GOLDEN / "cases.json").read_text())
VOCAB_IDS = CASES["_meta"]["logits_vocab_ids"]
VOCABULARY = 59457
FILM = {"video_encoder_name": "all_resnext101"}
ALL_MODALITIES = {**FILM, "audio_encoder_name": "pann_cnn14", "hop_size": 200}


def fill(network: nn.Module, prefix: str = "") -> None:
    """Weights as a function of their names (after ``prefix``): both sides of a comparison get the same."""
    state = network.state_dict(prefix=prefix)
    for name in sorted(state):
        tensor = state[name]
        if not tensor.is_floating_point():
            continue
        drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(tensor.shape)).astype("float32")
        tensor.copy_(torch.from_numpy(np.asarray(_scaled(name, drawn), dtype="float32")))


def _scaled(name: str, drawn: np.ndarray) -> np.ndarray:
    if name.endswith("running_var"):
        return 1 + 0.1 * np.abs(drawn)
    if name.endswith("running_mean"):
        return 0.1 * drawn
    if drawn.ndim <= 1:
        return 1 + 0.1 * drawn if name.endswith("weight") else 0.02 * drawn
    return drawn / np.sqrt(np.prod(drawn.shape[1:]))


@functools.lru_cache(maxsize=1)
def network() -> UnIVALNetwork:
    """``unival_base`` with all modalities and the flags of every released script, filled, in evaluation mode."""
    built = UnIVALNetwork(from_preset("unival_base", {**SCRIPT_FLAGS, **ALL_MODALITIES}), VOCABULARY)
    fill(built)
    return built.eval()


def drawn(seed: int, *shape: int) -> Tensor:
    """Standard normal float32 input."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype("float32"))


def golden(name: str) -> dict[str, np.ndarray]:
    """Arrays of a case."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays.files if key != "allow_pickle"}


def inputs_of(case: str) -> dict[str, Tensor]:
    """What a case feeds the encoder beside ``src_tokens``."""
    everything = torch.tensor([True, True])
    inputs: dict[str, Any] = {
        "image224": lambda: {"patch_images": drawn(21, 2, 3, 224, 224), "patch_masks": everything},
        "image224_masked": lambda: {
            "patch_images": drawn(21, 2, 3, 224, 224),
            "patch_masks": torch.tensor([True, False]),
            "patch_types": torch.tensor([0, 0]),
        },
        "image480": lambda: {"patch_images": drawn(31, 1, 3, 480, 480), "patch_masks": torch.tensor([True])},
        "video4x224": lambda: {
            "patch_images": torch.zeros(2, 3, 224, 224),
            "patch_masks": everything,
            "patch_videos": drawn(41, 2, 3, 4, 224, 224),
            "patch_types": torch.tensor([1, 1]),
        },
        "audio_rule_fill": lambda: {
            "patch_images": torch.zeros(2, 3, 224, 224),
            "patch_masks": everything,
            "patch_audios": torch.from_numpy(
                (np.random.default_rng(51).standard_normal((2, 96000)) * 0.1).astype("float32")
            ),
            "patch_types": torch.tensor([2, 2]),
        },
        "variants": lambda: {"patch_images": drawn(111, 2, 3, 96, 96), "patch_types": torch.tensor([0, 0])},
    }
    return inputs.get(case, dict)()


def close(got: Tensor, wanted: np.ndarray) -> None:
    """Equal within the tolerance of the golden cases."""
    np.testing.assert_allclose(got.detach().numpy(), wanted, atol=1e-4, rtol=1e-4)


def rows_of(inputs: dict[str, Tensor], rows: list[int]) -> dict[str, Tensor]:
    """The same inputs with some rows, in another order or repeated."""
    return {key: value[rows] for key, value in inputs.items()}


@torch.no_grad()
def check_case(net: UnIVALNetwork, case: str, rows: list[int]) -> None:
    """Compares encoder output, positions and scores of ``rows`` of a case with the reference's, where not padding."""
    arrays = {
        key: value if value.ndim < 2 or key.startswith("encoder_out") else value[rows]
        for key, value in golden(case).items()
    }
    source, previous = (torch.from_numpy(arrays[name]) for name in ("src_tokens", "prev_output_tokens"))
    encoder_out = net.encoder(source, **rows_of(inputs_of(case), rows))
    code_masks = torch.ones(len(rows), dtype=torch.bool) if case == "image_gen_codes" else None
    logits, extra = net.decoder(previous, encoder_out, code_masks=code_masks)
    padding = encoder_out["encoder_padding_mask"][0]
    assert np.array_equal(padding, arrays["encoder_padding_mask"])
    real, targets = ~padding.t(), previous.ne(1)
    close(encoder_out["encoder_out"][0][..., :16][real], arrays["encoder_out"][:, rows][real.numpy()])
    close(encoder_out["encoder_out"][0].norm(dim=2)[real], arrays["encoder_out_l2"][:, rows][real.numpy()])
    close(encoder_out["position_embeddings"][0][:, :64, :8], arrays["position_embeddings"])
    close(logits[..., VOCAB_IDS][targets], arrays["logits_sel"][targets.numpy()])
    close(logits.logsumexp(-1)[targets], arrays["logits_logsumexp"][targets.numpy()])
    assert np.array_equal(logits.argmax(-1)[targets], arrays["logits_argmax"][targets.numpy()])
    if "attn" in arrays:
        close(extra["attn"][0][targets], arrays["attn"][targets.numpy()])
