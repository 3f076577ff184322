"""The full-size network against the outputs of the reference implementation."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from full_size import (
    CASES,
    VOCAB_IDS,
    VOCABULARY,
    check_case,
    close,
    drawn,
    fill,
    golden,
    inputs_of,
    network,
    rows_of,
)
from torch import Tensor

from unival_plugin.data.audio import SoundOptions
from unival_plugin.data.media import Sounds
from unival_plugin.data.samples import MEDIA, collate
from unival_plugin.unival.model.config import SCRIPT_FLAGS, from_preset
from unival_plugin.unival.model.network import UnIVALNetwork

ROWS = {
    "text_only": ([0, 1, 2], [1], [2, 0]),
    "image224": ([0, 1], [1], [1, 0, 1]),
    "image224_masked": ([0, 1], [0], [1], [1, 0, 0]),
    "image480": ([0], [0, 0, 0]),
    "image_gen_codes": ([0, 1], [1], [1, 0, 0]),
    "video4x224": ([0, 1], [1], [1, 0, 1]),
    "audio_rule_fill": ([0, 1], [0], [1, 1, 0]),
}


@pytest.mark.parametrize("case, rows", [(case, rows) for case, batches in ROWS.items() for rows in batches])
def test_encoder_and_logits_equal_the_reference_in_any_batch(case: str, rows: list[int]) -> None:
    check_case(network(), case, rows)


@functools.lru_cache(maxsize=1)
def rare_network() -> UnIVALNetwork:
    flags = {key: value for key, value in CASES["variants"]["config"].items() if value is not None}
    net = UnIVALNetwork(from_preset("unival_base", {**SCRIPT_FLAGS, **flags}), VOCABULARY)
    fill(net)
    return net.eval()


@pytest.mark.parametrize("rows", [[0, 1], [1], [1, 0, 1]])
def test_rare_flags_together_equal_the_reference(rows: list[int]) -> None:
    check_case(rare_network(), "variants", rows)


@torch.no_grad()
@pytest.mark.parametrize("rows", [[0, 1], [1], [0, 1, 0]])
def test_classification_head_equals_the_reference(rows: list[int]) -> None:
    arrays = golden("classification_head")
    net = network()
    net.register_classification_head("demo", 5)
    try:
        fill(net.classification_heads, "classification_heads.")
        net.eval()
        source, previous = (torch.from_numpy(arrays[name][rows]) for name in ("src_tokens", "prev_output_tokens"))
        logits, _ = net(source, None, previous, classification_head_name="demo")
    finally:
        del net.classification_heads["demo"]
    close(logits, arrays["logits"][rows])


PARTS = (("image224", 49), ("video4x224", 49), ("audio_rule_fill", 30))


@torch.no_grad()
@pytest.mark.parametrize("seed", [0, 1])
def test_a_shuffled_batch_of_all_modalities_equals_the_reference(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(6)
    arrays = [golden(case) for case, _ in PARTS]
    source, previous = (_padded([a[name] for a in arrays])[order] for name in ("src_tokens", "prev_output_tokens"))
    media = {
        "patch_images": torch.cat([inputs_of("image224")["patch_images"], torch.zeros(4, 3, 224, 224)]),
        "patch_videos": torch.zeros(6, 3, 4, 224, 224),
        "patch_audios": torch.zeros(6, 96000),
        "patch_types": torch.tensor([0, 0, 1, 1, 2, 2]),
        "patch_masks": torch.ones(6, dtype=torch.bool),
    }
    media["patch_videos"][2:4] = inputs_of("video4x224")["patch_videos"]
    media["patch_audios"][4:] = inputs_of("audio_rule_fill")["patch_audios"]
    encoder_out = network().encoder(source, **rows_of(media, order.tolist()))
    logits, _ = network().decoder(previous, encoder_out)
    padding = encoder_out["encoder_padding_mask"][0]
    for place, row in enumerate(order.tolist()):
        wanted, patches, line = arrays[row // 2], PARTS[row // 2][1], row % 2
        real = ~torch.from_numpy(wanted["encoder_padding_mask"][line])
        assert int((~padding[place]).sum()) == int(real.sum())
        got = encoder_out["encoder_out"][0][~padding[place], place, :16]
        close(got, wanted["encoder_out"][real.numpy(), line])
        assert not bool(padding[place, :patches].any())
        targets = wanted["prev_output_tokens"][line] != 1
        close(logits[place][: len(targets)][targets][:, VOCAB_IDS], wanted["logits_sel"][line][targets])


def _padded(parts: list[np.ndarray]) -> Tensor:
    longest = max(part.shape[1] for part in parts)
    return torch.from_numpy(
        np.concatenate([np.pad(part, ((0, 0), (0, longest - part.shape[1])), constant_values=1) for part in parts])
    )


@torch.no_grad()
def test_media_may_come_with_the_rows_of_their_modality_only() -> None:
    source = torch.from_numpy(golden("video4x224")["src_tokens"])
    films = inputs_of("video4x224")["patch_videos"]
    pictures, types = drawn(1, 2, 3, 64, 64), torch.tensor([1, 0])
    whole = network().encoder(source, patch_images=pictures, patch_videos=films, patch_types=types)
    parts = network().encoder(source, patch_images=pictures[1:], patch_videos=films[:1], patch_types=types)
    assert torch.equal(whole["encoder_out"][0], parts["encoder_out"][0])


@torch.no_grad()
@pytest.mark.parametrize("case, name", [("video4x224", "patch_video"), ("audio_rule_fill", "patch_audio")])
def test_batches_as_tasks_make_them_equal_the_reference(case: str, name: str) -> None:
    arrays, inputs = golden(case), inputs_of(case)
    waves = Sounds(SoundOptions(96_000), picture_size=224)

    def sample(row: int) -> dict[str, Any]:
        media = {name: inputs[MEDIA[name]][row]}
        if name == "patch_audio":
            media = waves.sample(media[name], "here", np.random.default_rng)
        texts = {key: arrays[key][row] for key in ("src_tokens", "prev_output_tokens")}
        source, previous = (torch.from_numpy(text[text != 1]) for text in texts.values())
        kind = {"patch_mask": torch.tensor([True]), "patch_type": inputs["patch_types"][row : row + 1]}
        texts = {"source": source, "prev_output_tokens": previous, "target": previous}
        return {"id": str(row), **texts, "patch_image": torch.zeros(3, 224, 224), **kind, **media}

    net_input = collate([sample(row) for row in range(2)], pad=1)["net_input"]
    logits, _ = network()(**net_input)
    real = arrays["prev_output_tokens"] != 1
    close(logits[torch.from_numpy(real)][:, VOCAB_IDS], arrays["logits_sel"][real])
