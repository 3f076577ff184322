"""Adapters, prompts, heads, second pictures, and what each flag leaves trainable."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from full_size import drawn
from small_size import tiny
from torch import Tensor

from unival_plugin.unival.model.config import from_preset
from unival_plugin.unival.model.network import UnIVALNetwork

SOURCE = torch.tensor([[0, 5, 6, 7, 2], [0, 8, 2, 1, 1]])
PREVIOUS = torch.tensor([[0, 4, 5], [0, 6, 1]])


def pictures(seed: int = 1) -> Tensor:
    return drawn(seed, 2, 3, 32, 32)


def trainable(net: UnIVALNetwork, depth: int = 2) -> set[str]:
    return {".".join(name.split(".")[:depth]) for name, p in net.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    "flags, wanted",
    [
        ("freeze_encoder freeze_decoder freeze_image_encoder", "encoder.image_proj encoder.embed_image_positions"),
        (
            "freeze_encoder freeze_decoder",
            "encoder.image_proj encoder.embed_image_positions encoder.embed_images",
        ),
        (
            "freeze_encoder freeze_decoder freeze_image_encoder layernorm_image_embedding",
            "encoder.image_proj encoder.embed_image_positions encoder.layernorm_image_embedding",
        ),
        ("encoder_prompt", "encoder.encoder_prompt_encoder"),
        ("encoder_prompt decoder_prompt", "encoder.encoder_prompt_encoder decoder.decoder_prompt_encoder"),
        ("adapter", "encoder.layers decoder.layers"),
    ],
)
def test_freezing_leaves_what_the_flags_say(flags: str, wanted: str) -> None:
    net = tiny(**dict.fromkeys(flags.split(), True))
    assert trainable(net) == set(wanted.split())
    if flags == "adapter":
        assert {name.split(".")[3] for name, p in net.named_parameters() if p.requires_grad} == {"adapter"}


def test_only_linear_scripts_train_the_published_number_of_parameters() -> None:
    flags = dict.fromkeys(
        ("freeze_encoder", "freeze_decoder", "freeze_image_encoder", "freeze_video_encoder", "freeze_audio_encoder"),
        True,
    )
    modalities = {"image_encoder_name": "timm_resnet", "video_encoder_name": "all_resnext101"}

    def count(**more: Any) -> int:
        with torch.device("meta"):
            net = UnIVALNetwork(from_preset("unival_base", {**flags, **modalities, **more}), 59457)
        return sum(p.numel() for p in net.parameters() if p.requires_grad)

    assert count() == 5_858_304
    assert count(audio_encoder_name="pann_cnn14") == 8_787_456


def test_bitfit_trains_biases_of_norms_and_feed_forward_layers() -> None:
    names = [name for name, p in tiny(bitfit=True).named_parameters() if p.requires_grad]
    assert names
    assert all(name.endswith("bias") and ("layer_norm" in name or "fc" in name) for name in names)


def test_unfrozen_adapters_train_with_everything_but_the_token_embedding() -> None:
    net = tiny(adapter=True, unfreeze=True)
    assert {name for name, p in net.named_parameters() if not p.requires_grad} == {"encoder.embed_tokens.weight"}


def test_frozen_batch_norm_weights_are_those_called_bn() -> None:
    names = [name for name, p in tiny(freeze_batchnorm=True).named_parameters() if not p.requires_grad]
    assert names
    assert all("bn" in name and name.startswith("encoder.") for name in names)


def test_trunks_stay_in_evaluation_mode_when_asked() -> None:
    net = tiny(encoder_eval=True).train()
    assert net.encoder.layers.training
    assert not any(module.training for module in net.encoder.embed_images.modules())


def test_frozen_trunks_can_run_without_gradients() -> None:
    net = tiny(nograd=True, freeze_image_encoder=True).train()
    net(SOURCE, None, PREVIOUS, patch_images=pictures())[0].sum().backward()
    assert net.encoder.image_proj.weight.grad is not None
    assert all(p.grad is None for p in net.encoder.embed_images.parameters())


@torch.no_grad()
@pytest.mark.parametrize("kind", ["UN", "VL"])
def test_adapters_add_their_branch_to_the_feed_forward_output(kind: str) -> None:
    plain, adapted = tiny().eval(), tiny(adapter=True, adapter_type=kind, adapter_dim=8).eval()
    adapted.load_state_dict(plain.state_dict(), strict=False)
    for name, parameter in adapted.named_parameters():
        if "up_proj" in name:
            parameter.zero_()
    wanted = plain(SOURCE, None, PREVIOUS, patch_images=pictures())[0]
    torch.testing.assert_close(adapted(SOURCE, None, PREVIOUS, patch_images=pictures())[0], wanted)
    for name, parameter in adapted.named_parameters():
        if "up_proj.bias" in name and "encoder" in name:
            parameter.normal_()
    assert not torch.allclose(adapted(SOURCE, None, PREVIOUS, patch_images=pictures())[0], wanted, atol=1e-3)


PROMPTS = {
    "encoder_prompt": True,
    "decoder_prompt": True,
    "encoder_prompt_length": 3,
    "decoder_prompt_length": 4,
}


@torch.no_grad()
@pytest.mark.parametrize("projection", [False, True])
def test_prompts_work_with_padding_and_step_by_step(projection: bool) -> None:
    net = tiny(**PROMPTS, encoder_prompt_projection=projection, decoder_prompt_projection=projection).eval()
    together, _ = net(SOURCE, None, PREVIOUS, patch_images=pictures())
    alone, _ = net(SOURCE[1:, :3], None, PREVIOUS[1:, :2], patch_images=pictures()[1:])
    torch.testing.assert_close(alone[0], together[1, :2], atol=1e-5, rtol=1e-5)
    encoder_out, cache = net.encoder(SOURCE, patch_images=pictures()), {}
    steps = [net.decoder(PREVIOUS[:, : t + 1], encoder_out, cache)[0] for t in range(3)]
    torch.testing.assert_close(torch.cat(steps, dim=1)[0], together[0], atol=1e-5, rtol=1e-5)
    for name, parameter in net.named_parameters():
        if "prompt_encoder" in name:
            parameter.add_(1.0)
    assert not torch.allclose(net(SOURCE, None, PREVIOUS, patch_images=pictures())[0], together, atol=1e-3)


def test_prompts_drop_out_in_training_only() -> None:
    net = tiny(**PROMPTS)
    with torch.no_grad():
        assert not torch.equal(*(net.encoder.encoder_prompt_encoder(1)[0][0] for _ in range(2)))
        net.eval()
        assert torch.equal(*(net.encoder.encoder_prompt_encoder(1)[0][0] for _ in range(2)))


@torch.no_grad()
@pytest.mark.parametrize("mm_types", [False, True])
def test_two_pictures_come_before_the_text_second_picture_first(mm_types: bool) -> None:
    net = tiny(add_mm_type_embedding=mm_types).eval()
    types = torch.tensor([0, 0])
    first, second = pictures(1), drawn(2, 2, 3, 32, 48)

    def encode(a: Tensor, b: Tensor) -> Tensor:
        return net.encoder(SOURCE, patch_images=a, patch_images_2=b, patch_types=types)["encoder_out"][0]

    out = encode(first, second)
    assert len(out) == 2 * 3 + 2 * 2 + SOURCE.shape[1]
    assert not torch.allclose(encode(drawn(3, 2, 3, 32, 32), second), out, atol=1e-3)
    assert not torch.allclose(encode(first, drawn(3, 2, 3, 32, 48)), out, atol=1e-3)


@torch.no_grad()
def test_types_tell_modalities_apart_only_when_asked() -> None:
    kinds = torch.tensor([0, 0]), torch.tensor([1, 1])
    net = tiny(add_mm_type_embedding=True).eval()
    patches = net.encoder.embed_media("image", pictures())
    rows = [net.encoder._embed_patches(patches, net.encoder._patch_type_rows(kind)) for kind in kinds]
    assert not torch.allclose(*rows)


@pytest.mark.parametrize(
    "media, types, message",
    [
        ({"patch_images": True}, [0, 3], "0 is a picture"),
        ({"patch_images": True}, [1, 1], "give --video-encoder-name"),
        ({}, [0, 0], "2 rows of type image, but none in patch_images"),
    ],
)
def test_media_that_cannot_be_encoded_are_named(media: dict[str, bool], types: list[int], message: str) -> None:
    given = {key: pictures() for key in media}
    with pytest.raises(ValueError, match=message):
        tiny().encoder(SOURCE, patch_types=torch.tensor(types), **given)


@torch.no_grad()
@pytest.mark.parametrize("kind, width", [("mlp", 32), ("linear", 64)])
def test_classification_heads_use_the_last_target_token(kind: str, width: int) -> None:
    net = tiny(pooler_classifier=kind).eval()
    net.register_classification_head("demo", 3)
    net.register_classification_head("pairs", 3, use_two_images=True)
    scores, _ = net(SOURCE, None, PREVIOUS, classification_head_name="demo")
    longer = torch.cat([PREVIOUS, torch.ones(2, 2, dtype=torch.int64)], dim=1)
    torch.testing.assert_close(net(SOURCE, None, longer, classification_head_name="demo")[0], scores)
    assert scores.shape == (2, 3)
    assert net(SOURCE, None, PREVIOUS, classification_head_name="pairs")[0].shape == (1, 3)
    assert net(SOURCE[:1], None, PREVIOUS[:1], classification_head_name="demo")[0].shape == (1, 3)


@pytest.mark.parametrize(
    "flags", [{"scale_resids": True}, {"qk_norm": True}, PROMPTS, {"adapter": True, "unfreeze": True}]
)
def test_every_trained_parameter_of_rare_flags_gets_a_gradient(flags: dict[str, Any]) -> None:
    net = tiny(**flags, checkpoint_activations=True).train()
    net(SOURCE, None, PREVIOUS, patch_images=pictures())[0].sum().backward()
    unused = ("k_norm", "code_", "embed_images", "embed_image_positions", "image_rel_pos", "image_pos_ln")
    missing = [n for n, p in net.named_parameters() if p.requires_grad and p.grad is None]
    assert [n for n in missing if not any(part in n for part in unused)] == []
