"""Pictures as codes and back: the interface of image tokenizers, and the VQGAN with a Gumbel quantiser.

The network is that of "Taming transformers for high-resolution image synthesis" (Esser et al. 2021) with the quantiser
of "Categorical reparameterization with Gumbel-softmax" (Jang et al. 2017). Names in its state dict are those of the
released file with 8192 codes, each for 8 x 8 pixels, with which UnIVAL draws pictures.

Legend: B pictures, H x W pixels, f pixels that a code spans along a side, h = H / f, w = W / f, N codes in the book,
D numbers in a code's vector.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, DataError
from .vqgan_layers import CHANNELS, Decoder, Encoder, VQGANConfig

RANGE_TOLERANCE = 1e-3


class ImageTokenizer(nn.Module, ABC):
    """Turns pictures into codes and codes into pictures.

    Attributes:
        codes: number of codes in the book.
        factor: pixels that a code spans along a side.
    """

    codes: int
    factor: int

    @abstractmethod
    def encode(self, pictures: Tensor) -> Tensor:
        """Codes of pictures; no gradients.

        Args:
            pictures: B x 3 x H x W floats in [-1, 1]; sides are multiples of ``factor``.

        Returns:
            B x h x w int64 from 0 to ``codes`` - 1.

        Raises:
            DataError: pictures of another type, shape or range.
        """

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Pictures of codes; no gradients.

        Args:
            codes: B x h x w int64 from 0 to ``self.codes`` - 1.

        Returns:
            B x 3 x H x W float32 in [-1, 1].

        Raises:
            DataError: codes of another type or shape, or outside the book.
        """


class VQGAN(ImageTokenizer):
    """Convolutional encoder and decoder with a book of codes between them.

    ``encode`` and ``decode`` use the most probable code and are deterministic in evaluation mode. ``forward`` trains:
    it draws codes with Gumbel noise.

    Args:
        config: sizes; the released ones if None.
    """

    def __init__(self, config: VQGANConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VQGANConfig()
        self.codes, self.factor = config.n_embed, config.factor
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = CodeBook(config.embed_dim, config.n_embed)
        self.quant_conv = nn.Conv2d(config.z_channels, config.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.z_channels, 1)

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """See :meth:`ImageTokenizer.encode`."""
        _check_pictures(pictures, self.factor)
        if not bool((pictures.abs() <= 1 + RANGE_TOLERANCE).all()):
            raise DataError("pictures must lie in [-1, 1], without NaN; turn bytes into byte / 127.5 - 1")
        return self.logits(pictures).argmax(dim=1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """See :meth:`ImageTokenizer.decode`."""
        _check_codes(codes, self.codes)
        return self.draw(self.quantize.vectors(codes)).float().clamp(-1, 1)

    def forward(self, pictures: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Pictures through the bottleneck of codes, for training.

        Args:
            pictures: B x 3 x H x W floats in [-1, 1].
            temperature: of the Gumbel softmax; unused in evaluation mode.

        Returns:
            The reconstruction, B x 3 x H x W, not clamped, and the second value of :meth:`quantise`.

        Raises:
            DataError: pictures of another type or shape.
            ConfigError: the temperature is not above 0.
        """
        vectors, kl = self.quantise(self.logits(pictures), temperature)
        return self.draw(vectors), kl

    def logits(self, pictures: Tensor) -> Tensor:
        """Scores of all codes at every place, B x N x h x w, of B x 3 x H x W pictures."""
        _check_pictures(pictures, self.factor)
        return self.quantize.proj(self.quant_conv(self.encoder(pictures.to(self.quant_conv.weight.dtype))))

    def quantise(self, logits: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Vectors of one code per place, drawn with Gumbel noise in training mode and the most probable otherwise.

        The gradient of a drawn code is that of the softmax with the same noise (straight-through estimator).

        Args:
            logits: B x N x h x w.
            temperature: of the softmax, above 0; the lower, the nearer is the gradient's softmax to the draw.

        Returns:
            B x D x h x w vectors, and the mean over places of the Kullback-Leibler divergence in nats of the codes'
            distribution from the uniform one, a scalar of at least 0 that is 0 if all codes are equally probable.

        Raises:
            ConfigError: the temperature is not above 0.
        """
        if not temperature > 0:
            raise ConfigError(f"the temperature of the Gumbel softmax must be above 0, not {temperature:g}")
        logits = logits.float()
        log_shares = logits.log_softmax(dim=1)
        kl = (log_shares.exp() * (log_shares + math.log(self.codes))).sum(dim=1).mean()
        if not self.training:
            return self.quantize.vectors(logits.argmax(dim=1)), kl
        book = self.quantize.embed.weight
        chosen = F.gumbel_softmax(logits, tau=temperature, hard=True, dim=1).to(book.dtype)
        return torch.einsum("bnhw,nd->bdhw", chosen, book), kl

    def draw(self, vectors: Tensor) -> Tensor:
        """Pictures, B x 3 x H x W and not clamped, of B x D x h x w vectors."""
        return self.decoder(self.post_quant_conv(vectors))


def _check_pictures(pictures: Tensor, factor: int) -> None:
    shape = tuple(pictures.shape)
    if not pictures.is_floating_point() or len(shape) != 4 or shape[1] != CHANNELS:
        raise DataError(
            f"pictures must be floats, batch x {CHANNELS} x height x width, not {pictures.dtype} of shape {shape}"
        )
    if any(side == 0 or side % factor for side in shape[2:]):
        raise DataError(
            f"pictures of {shape[3]} x {shape[2]} pixels cannot be cut into codes of {factor} x {factor}; resize them"
        )


def _check_codes(codes: Tensor, size: int) -> None:
    if codes.dtype not in (torch.int64, torch.int32) or codes.ndim != 3 or 0 in codes.shape[1:]:
        raise DataError(
            f"codes must be integers, batch x height x width, not {codes.dtype} of shape {tuple(codes.shape)}"
        )
    outside = (codes < 0) | (codes >= size)
    if bool(outside.any()):
        picture, row, column = outside.nonzero()[0].tolist()
        raise DataError(
            f"code {int(codes[picture, row, column])} of picture {picture}, row {row}, column {column} is not in the "
            f"book, which has codes 0 to {size - 1}; use the tokenizer that made the codes"
        )


class CodeBook(nn.Module):
    """Scores of codes (``proj``) and their vectors (``embed``)."""

    def __init__(self, width: int, codes: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(width, codes, 1)
        # drawn outside of nn.Embedding, whose own way on the meta device first loads torch's compiler, a second's work
        self.embed = nn.Embedding.from_pretrained(torch.randn(codes, width), freeze=False)

    def vectors(self, codes: Tensor) -> Tensor:
        """B x D x h x w vectors of B x h x w codes."""
        return self.embed(codes).permute(0, 3, 1, 2)
