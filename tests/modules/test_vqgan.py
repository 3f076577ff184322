"""The VQGAN: names, numbers, training and refusals.

`golden/vqgan` holds what the original network gives for the same weights, which are a function of their names.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unival_plugin.errors import ConfigError, DataError
from unival_plugin.modules.vqgan import VQGAN, ImageTokenizer, VQGANConfig

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "vqgan"
GOLDEN_CONFIG = VQGANConfig(
    embed_dim=16, n_embed=24, z_channels=16, resolution=32, ch=32, ch_mult=(1, 2, 2), num_res_blocks=1,
    attn_resolutions=(16,),
)  # fmt: skip
TINY = VQGANConfig(
    embed_dim=8, n_embed=12, z_channels=8, resolution=16, ch=8, ch_mult=(1, 2, 2), num_res_blocks=1,
    attn_resolutions=(4,), num_groups=4,
)  # fmt: skip


def fill(network: nn.Module) -> None:
    """Weights as a function of their names: both sides of a comparison get the same."""
    for name, tensor in network.state_dict().items():
        drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(tensor.shape)).astype("float32")
        if drawn.ndim > 1:
            drawn = drawn / np.sqrt(np.prod(drawn.shape[1:]))
        else:
            drawn = 1 + 0.1 * drawn if name.endswith("weight") else 0.02 * drawn
        tensor.copy_(torch.from_numpy(np.asarray(drawn, dtype="float32")))


def tiny(**changes: Any) -> VQGAN:
    torch.manual_seed(1)
    return VQGAN(VQGANConfig(**{**vars(TINY), **changes})).eval()


def made_pictures(number: int = 2, height: int = 16, width: int = 16) -> Tensor:
    return torch.rand(number, 3, height, width, generator=torch.Generator().manual_seed(2)) * 2 - 1


def test_the_released_network_has_the_released_names_and_shapes() -> None:
    with torch.device("meta"):
        state = VQGAN().state_dict()
    lines = (GOLDEN / "released.tsv").read_text().splitlines()
    wanted = {name: tuple(map(int, shape.split())) for name, shape in (line.split("\t") for line in lines)}
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == wanted
    assert wanted["quantize.embed.weight"] == (8192, 256)
    assert "decoder.up.3.attn.2.proj_out.weight" in wanted
    assert sum(tensor.numel() for tensor in state.values()) == 68_995_971


def test_a_code_of_the_released_network_spans_eight_pixels() -> None:
    with torch.device("meta"):
        network = VQGAN()
        logits = network.logits(torch.zeros(1, 3, 256, 256))
        drawn = network.draw(network.quantize.vectors(torch.zeros(1, 32, 32, dtype=torch.long)))
    assert (network.factor, network.codes) == (8, 8192)
    assert logits.shape == (1, 8192, 32, 32)
    assert drawn.shape == (1, 3, 256, 256)


class TestNumbersOfTheOriginal:
    @pytest.fixture(scope="class")
    def network(self) -> VQGAN:
        network = VQGAN(GOLDEN_CONFIG).eval()
        fill(network)
        return network

    @pytest.fixture(scope="class")
    def golden(self) -> dict[str, Tensor]:
        with np.load(GOLDEN / "tiny.npz") as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays}

    @pytest.fixture(scope="class")
    def pictures(self) -> Tensor:
        drawn = np.random.default_rng(5).uniform(-1, 1, (2, 3, 32, 24))
        return torch.from_numpy(drawn.astype("float32"))

    def test_codes(self, network: VQGAN, golden: dict[str, Tensor], pictures: Tensor) -> None:
        with torch.no_grad():
            torch.testing.assert_close(network.logits(pictures), golden["logits"], rtol=1e-4, atol=1e-4)
        assert torch.equal(network.encode(pictures), golden["codes"].long())

    def test_pictures(self, network: VQGAN, golden: dict[str, Tensor]) -> None:
        decoded = network.decode(golden["codes"].long())
        torch.testing.assert_close(decoded, golden["decoded"].clamp(-1, 1), rtol=1e-4, atol=1e-4)

    def test_divergence_from_equally_probable_codes(self, network: VQGAN, golden: dict[str, Tensor]) -> None:
        _, kl = network.quantise(golden["logits"])
        torch.testing.assert_close(kl, golden["kl"], rtol=1e-4, atol=1e-5)


class TestRoundTrip:
    @pytest.mark.parametrize(("height", "width"), [(16, 16), (8, 24)])
    def test_shapes_types_and_range(self, height: int, width: int) -> None:
        network = tiny()
        codes = network.encode(made_pictures(3, height, width))
        assert codes.shape == (3, height // 4, width // 4)
        assert codes.dtype == torch.int64
        pictures = network.decode(codes)
        assert pictures.shape == (3, 3, height, width)
        assert pictures.dtype == torch.float32
        assert float(pictures.abs().max()) <= 1

    def test_pictures_are_clamped(self) -> None:
        network = tiny()
        network.decoder.conv_out.bias.data.fill_(5.0)
        assert bool((network.decode(torch.zeros(1, 2, 2, dtype=torch.long)) == 1).all())

    def test_the_same_comes_out_each_time_and_for_each_picture_alone(self) -> None:
        network, pictures = tiny(), made_pictures(3)
        codes = network.encode(pictures)
        assert torch.equal(codes, network.encode(pictures))
        assert torch.equal(codes[1:2], network.encode(pictures[1:2]))
        assert torch.equal(network.decode(codes), network.decode(codes))

    def test_it_is_an_image_tokenizer_without_gradients(self) -> None:
        network = tiny()
        assert isinstance(network, ImageTokenizer)
        assert not network.decode(network.encode(made_pictures())).requires_grad

    def test_half_precision_gives_float32_pictures(self) -> None:
        network = tiny().to(torch.bfloat16)
        assert network.decode(network.encode(made_pictures())).dtype == torch.float32


class TestTraining:
    def test_the_loss_falls(self) -> None:
        network = tiny().train()
        shades = torch.tensor([-0.8, -0.3, 0.3, 0.8])
        pictures = shades[:, None, None, None].expand(4, 3, 16, 16).contiguous()
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        losses = []
        for _ in range(40):
            reconstruction, kl = network(pictures, temperature=1.0)
            loss = (reconstruction - pictures).square().mean() + 1e-3 * kl
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert sum(losses[-5:]) < 0.6 * sum(losses[:5])

    def test_every_weight_gets_a_gradient(self) -> None:
        network = tiny().train()
        reconstruction, kl = network(made_pictures(), 0.7)
        (reconstruction.square().mean() + kl).backward()
        assert all(weight.grad is not None for weight in network.parameters())
        assert float(network.encoder.conv_in.weight.grad.abs().max()) > 0

    def test_a_drawn_vector_is_one_of_the_book(self) -> None:
        network = tiny().train()
        vectors, _ = network.quantise(torch.randn(2, 12, 3, 3))
        book = network.quantize.embed.weight.detach()
        distances = torch.cdist(vectors.detach().permute(0, 2, 3, 1).reshape(-1, 8), book)
        assert float(distances.min(dim=1).values.max()) < 1e-5

    def test_evaluation_takes_the_most_probable_code_without_noise(self) -> None:
        network, pictures = tiny(), made_pictures()
        reconstruction, _ = network(pictures, 1.0)
        torch.testing.assert_close(reconstruction.clamp(-1, 1), network.decode(network.encode(pictures)))

    def test_the_divergence_is_zero_for_equal_and_log_n_for_certain_codes(self) -> None:
        network = tiny()
        assert float(network.quantise(torch.zeros(1, 12, 2, 2))[1]) == pytest.approx(0, abs=1e-6)
        certain = torch.zeros(1, 12, 2, 2)
        certain[:, 3] = 1e4
        assert float(network.quantise(certain)[1]) == pytest.approx(math.log(12))

    @pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
    def test_a_temperature_that_is_not_above_zero_is_refused(self, temperature: float) -> None:
        with pytest.raises(ConfigError, match="temperature"):
            tiny()(made_pictures(), temperature)


class TestRefusals:
    @pytest.mark.parametrize("code", [-1, 12, 2**40])
    def test_codes_outside_the_book(self, code: int) -> None:
        codes = torch.zeros(2, 2, 3, dtype=torch.long)
        codes[1, 0, 2] = code
        with pytest.raises(DataError, match=rf"code {code} of picture 1, row 0, column 2 .*codes 0 to 11"):
            tiny().decode(codes)

    @pytest.mark.parametrize("codes", [torch.zeros(1, 2, 2), torch.zeros(4).long(), torch.zeros(1, 0, 2).long()])
    def test_codes_of_another_type_or_shape(self, codes: Tensor) -> None:
        with pytest.raises(DataError, match="codes must be integers"):
            tiny().decode(codes)

    @pytest.mark.parametrize(
        ("pictures", "message"),
        [
            (torch.zeros(1, 3, 16, 16).byte(), "must be floats"),
            (torch.zeros(3, 16, 16), "must be floats"),
            (torch.zeros(1, 1, 16, 16), "must be floats"),
            (torch.zeros(1, 3, 16, 18), "18 x 16 pixels"),
            (torch.zeros(1, 3, 0, 16), "16 x 0 pixels"),
            (torch.full((1, 3, 16, 16), 255.0), r"\[-1, 1\]"),
            (torch.full((1, 3, 16, 16), math.nan), "NaN"),
        ],
    )
    def test_pictures_of_another_type_shape_or_range(self, pictures: Tensor, message: str) -> None:
        with pytest.raises(DataError, match=message):
            tiny().encode(pictures)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("embed_dim", 0),
            ("n_embed", True),
            ("n_embed", 2**40),
            ("ch", 8.0),
            ("z_channels", "8"),
            ("ch_mult", ()),
            ("ch_mult", [1, 2]),
            ("ch_mult", (1, 0)),
            ("ch_mult", (1,) * 40),
            ("attn_resolutions", (-4,)),
            ("resolution", 18),
            ("num_groups", 0),
            ("dropout", 1.0),
            ("dropout", math.nan),
            ("dropout", None),
        ],
    )
    def test_sizes_that_no_network_can_have(self, name: str, value: Any) -> None:
        with pytest.raises(ConfigError, match=name):
            VQGANConfig(**{**vars(TINY), name: value})


def test_groups_adapt_to_the_width() -> None:
    network = VQGAN(VQGANConfig(**{**vars(TINY), "ch": 12, "num_groups": 32}))
    assert network.encoder.down[0].block[0].norm1.num_groups == 4
    assert VQGAN(GOLDEN_CONFIG).encoder.norm_out.num_groups == 32
