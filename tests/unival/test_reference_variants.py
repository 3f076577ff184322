"""Rare flags, trunks and inputs at a small size against the outputs of the original code."""

from __future__ import annotations

import pytest
import torch
from full_size import close, fill, golden
from variant_cases import CASES, FLAGS, PAD, SIZES, VOCABULARY, media, sample, texts

from unival_plugin.unival.model.config import from_preset
from unival_plugin.unival.model.network import UnIVALNetwork


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_outputs_equal_the_reference(name: str) -> None:
    case = CASES[name]
    net = UnIVALNetwork(from_preset("unival_base", {**SIZES, **FLAGS, **case.flags}), VOCABULARY)
    fill(net)
    if "audio" in net.encoder.modalities:
        net.encoder.embed_audios.recompute()
    source, previous = texts(case)
    encoder_out = net.eval().encoder(source, **media(case))
    codes = None if case.codes is None else torch.tensor(case.codes)
    logits, _ = net.decoder(previous, encoder_out, code_masks=codes)
    arrays = golden("small_variants")
    real, targets = ~encoder_out["encoder_padding_mask"][0].t(), previous.ne(PAD)
    close(
        torch.from_numpy(sample("encoder_out", encoder_out["encoder_out"][0]))[real],
        arrays[f"{name}.encoder_out"][real.numpy()],
    )
    close(torch.from_numpy(sample("logits", logits))[targets], arrays[f"{name}.logits"][targets.numpy()])
