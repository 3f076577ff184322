"""How digits_tokenizer.py trains a small image tokenizer, and measures it."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from unival_cli.light import light

CODE_SIDE = 8
CODE_WIDTH = 16
"""Numbers in a code's vector."""
GROUPS = 8
SHADE = 0.9
"""Paper is this much above the middle, ink as much below."""
NOISE_SHARE, FULL_SHARE = 0.12, 0.9
"""Shares of the contrast of a picture up to which a pixel is all paper, and from which it is all ink."""
LEAST_CONTRAST = 0.3
PAPER = 0
"""The code of places around which there is no ink. Its vector is 0."""
AROUND = 4
"""Pixels around a place in which ink counts as well; what a code draws depends on its neighbours."""
LEAST_INK = 0.3
"""From this share on ink counts there; less may be noise."""
FREE_SHARE = 0.2
"""Share of the training before there are codes."""
SPREAD, SHRINKING = 1.0, 0.003
"""Noise on the encoder's vectors before there are codes, and how much their length costs: what the decoder has no use
for vanishes from them, so that codes tell nothing else."""
START_BATCHES, START_ROUNDS = 16, 10
COMMITMENT = 0.25
BOOK_RATE = 0.03
LEAST_SHARE, NEW_SHARE = 0.0003, 0.003
"""A code that is used at less than the first share of all places starts anew as if it were used at the second."""
WARM_UP = 50
LAST_RATE = 0.02
SHOWN_EVERY = 10
MEASURED_AT_ONCE = 100


@dataclass(frozen=True)
class Plan:
    """What is trained and how; the fields are flags of the command.

    Attributes:
        image_size: side of the pictures in pixels.
        code_dict_size: number of codes.
        channels: of the network at full size; twice, four and eight times as many at the smaller sizes.
        updates, batch_size, lr: length of the training, pictures of an update, highest learning rate.
        held_out: rows at the end that are not trained on but measured.
        seed: of the first weights and all draws.
    """

    image_size: int = 64
    code_dict_size: int = 128
    channels: int = 8
    updates: int = 1600
    batch_size: int = 16
    lr: float = 3e-3
    held_out: int = 500
    seed: int = 7


# -------------------------------------------------------------------------------- pictures


def scaled(pictures: Tensor) -> Tensor:
    """Bytes as float32 in [-1, 1]."""
    return pictures.float().div(127.5).sub(1)


def drawings(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """What is drawn in pictures ``(B, 3, s, s)`` in [-1, 1], as dark ink on light paper without noise and tint.

    The paper is the median colour of the border; what differs from it is ink.

    Returns:
        The drawings, ``(B, 3, s, s)`` in [-1, 1], and the ink, ``(B, 1, s, s)`` in 0..1.
    """
    sides = (pictures[:, :, 0], pictures[:, :, -1], pictures[:, :, :, 0], pictures[:, :, :, -1])
    paper = torch.cat(sides, dim=2).median(dim=2).values[:, :, None, None]
    distance = (pictures - paper).square().mean(1, keepdim=True).sqrt()
    contrast = distance.flatten(1).quantile(0.99, dim=1).clamp(min=LEAST_CONTRAST)[:, None, None, None]
    ink = ((distance / contrast - NOISE_SHARE) / (FULL_SHARE - NOISE_SHARE)).clamp(0, 1)
    return (SHADE * (1 - 2 * ink)).expand_as(pictures), ink


def inked(ink: Tensor) -> Tensor:
    """Which places of the codes have ink, ``(B, 1, s, s)``, in or around them: bool ``(B h w,)``."""
    around = F.max_pool2d(F.pad(ink, (AROUND,) * 4), CODE_SIDE + 2 * AROUND, CODE_SIDE)
    return (around > LEAST_INK).flatten()


# -------------------------------------------------------------------------------- training


def new_tokenizer(plan: Plan) -> Any:
    """An untrained tokenizer."""
    vqgan = light("modules.vqgan")
    sizes = {"embed_dim": CODE_WIDTH, "z_channels": CODE_WIDTH, "num_groups": GROUPS, "attn_resolutions": ()}
    sizes |= {"ch": plan.channels, "ch_mult": (1, 2, 4, 8), "num_res_blocks": 1}
    return vqgan.VQGAN(vqgan.VQGANConfig(n_embed=plan.code_dict_size, resolution=plan.image_size, **sizes))


class CodeBook:
    """Codes as running means of the encoder's vectors that are nearest to them; only the code of paper stays as it is.

    "Neural discrete representation learning" (van den Oord et al. 2017), appendix A.1. Codes start as the means of
    groups of vectors (k-means); those that are hardly used start anew, so that the book does not collapse.

    Args:
        vectors: of places with ink, ``(n, D)``.
        codes: number of codes.
        draws: randomness of starts.
    """

    def __init__(self, vectors: Tensor, codes: int, draws: torch.Generator) -> None:
        self._draws = draws
        self.vectors = self._drawn(vectors, codes)
        for _ in range(START_ROUNDS):
            self._shares, self._sums = self._use(vectors, self.nearest(vectors))
            self._settle(vectors, 0.0)

    def nearest(self, vectors: Tensor) -> Tensor:
        """The codes ``(n,)`` nearest to vectors ``(n, D)``."""
        return (vectors @ self.vectors.T - self.vectors.square().sum(1) / 2).argmax(1)

    def follow(self, vectors: Tensor, codes: Tensor) -> None:
        """Move the codes towards the vectors, of places with ink, for which they were used."""
        shares, sums = self._use(vectors, codes)
        self._shares.lerp_(shares, BOOK_RATE)
        self._sums.lerp_(sums, BOOK_RATE)
        self._settle(vectors, LEAST_SHARE)

    def put_into(self, tokenizer: Any) -> None:
        """Make the tokenizer choose, with scores that are higher the nearer a code is, and draw these codes."""
        quantize = tokenizer.quantize
        with torch.no_grad():
            quantize.embed.weight.copy_(self.vectors)
            quantize.proj.weight.copy_(self.vectors[:, :, None, None])
            quantize.proj.bias.copy_(-self.vectors.square().sum(1) / 2)

    def _use(self, vectors: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """For each code its share of the vectors, and their sum divided by the number of all vectors."""
        used = F.one_hot(codes, len(self.vectors)).float() / len(vectors)
        return used.sum(0), used.T @ vectors

    def _settle(self, vectors: Tensor, least: float) -> None:
        unused = self._shares <= least
        self._shares[unused] = NEW_SHARE
        self._sums[unused] = self._drawn(vectors, int(unused.sum())) * NEW_SHARE
        self._shares[PAPER], self._sums[PAPER] = 1.0, 0.0
        self.vectors = self._sums / self._shares[:, None]

    def _drawn(self, vectors: Tensor, number: int) -> Tensor:
        return vectors[torch.randint(len(vectors), (number,), generator=self._draws)].clone()


class Training:
    """Brings an untrained tokenizer to draw pictures as well as it can, first without codes, then with them.

    Args:
        pictures: uint8 ``(N, 3, s, s)``.
        plan: how; ``held_out`` does not count here.
    """

    def __init__(self, pictures: Tensor, plan: Plan) -> None:
        self._plan, self._draws = plan, torch.Generator().manual_seed(plan.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            self._tokenizer = new_tokenizer(plan).to(memory_format=torch.channels_last)
        self._batches = _batches(pictures, plan.batch_size, self._draws)
        self._book: Optional[CodeBook] = None

    def run(self) -> Any:
        """The trained tokenizer."""
        plan, parameters = self._plan, list(self._tokenizer.parameters())
        optimizer = torch.optim.AdamW(parameters, plan.lr, betas=(0.9, 0.99), weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: _rate(update, plan.updates))
        with tqdm(range(plan.updates), desc="tokenizer", unit="update", disable=None) as bar:
            for update in bar:
                if update == int(FREE_SHARE * plan.updates):
                    self._book = self._new_book()
                loss, error = self._loss(next(self._batches))
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                schedule.step()
                if update % SHOWN_EVERY == 0:
                    bar.set_postfix(error=f"{127.5 * float(error):.1f}")
        assert self._book is not None
        self._book.put_into(self._tokenizer)
        return self._tokenizer.to(memory_format=torch.contiguous_format)

    def _new_book(self) -> CodeBook:
        found = []
        with torch.no_grad():
            for _ in range(START_BATCHES):
                pictures = next(self._batches)
                found.append(self._vectors(pictures)[inked(drawings(pictures)[1])])
        vectors = torch.cat(found)
        if not len(vectors):
            raise light("errors").DataError("the pictures are empty: give some on which something is drawn")
        return CodeBook(vectors, self._plan.code_dict_size, self._draws)

    def _vectors(self, pictures: Tensor) -> Tensor:
        """What the encoder finds at each place, line by line: ``(B h w, D)``."""
        vectors: Tensor = self._tokenizer.quant_conv(self._tokenizer.encoder(pictures))
        return vectors.permute(0, 2, 3, 1).flatten(0, 2)

    def _loss(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Loss, and the mean absolute error of it."""
        wanted, ink = drawings(pictures)
        vectors, drawn_on = self._vectors(pictures), inked(ink)
        if self._book is None:
            rounded, cost = self._unsure(vectors)
        else:
            rounded, cost = self._rounded(vectors, drawn_on, self._book)
        paper = vectors[~drawn_on].square().sum() / vectors.numel()
        side = pictures.shape[2] // CODE_SIDE
        drawn = self._tokenizer.draw(rounded.unflatten(0, (-1, side, side)).permute(0, 3, 1, 2))
        error = F.l1_loss(drawn, wanted)
        return error + F.mse_loss(drawn, wanted) + cost + paper, error.detach()

    def _unsure(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors with noise, and what their length costs."""
        noise = torch.empty_like(vectors).normal_(0, SPREAD, generator=self._draws)
        return vectors + noise, SHRINKING * vectors.square().mean()

    def _rounded(self, vectors: Tensor, drawn_on: Tensor, book: CodeBook) -> tuple[Tensor, Tensor]:
        """The codes' vectors, and what their distance costs. The codes follow the vectors."""
        with torch.no_grad():
            codes = book.nearest(vectors).where(drawn_on, PAPER)
            chosen = book.vectors[codes]
            if drawn_on.any():
                book.follow(vectors[drawn_on], codes[drawn_on])
        # Gradients of the codes go to the encoder's vectors as if there were no rounding (straight-through).
        return vectors + (chosen - vectors).detach(), COMMITMENT * F.mse_loss(vectors, chosen)


def train(pictures: Tensor, plan: Plan) -> Any:
    """A tokenizer that brings the drawings of these pictures, uint8 ``(N, 3, s, s)``, back as well as it can.

    Raises:
        DataError: nothing is drawn on the pictures.
    """
    return Training(pictures, plan).run()


def _batches(pictures: Tensor, size: int, draws: torch.Generator) -> Iterator[Tensor]:
    """Batches in [-1, 1] without end, in a new order each time round."""
    while True:
        order = torch.randperm(len(pictures), generator=draws)
        for chosen in order.split(size):
            if len(chosen) == size:
                yield scaled(pictures[chosen]).contiguous(memory_format=torch.channels_last)


def _rate(update: int, updates: int) -> float:
    """Share of the highest learning rate: a short rise, then half a cosine."""
    rise = min(1.0, (update + 1) / min(WARM_UP, updates))
    return rise * (LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * update / updates)) / 2)


# -------------------------------------------------------------------------------- measuring


def measure(tokenizer: Any, pictures: Tensor) -> dict[str, Any]:
    """How well pictures (uint8) come back, and which codes they use.

    Returns:
        ``error``: mean absolute error, from the drawing, of a colour in 0..255; ``codes_used``; ``perplexity``: the
        number of codes that, equally often used, would carry as much information.
    """
    tokenizer.eval()
    errors, counts = 0.0, torch.zeros(tokenizer.codes)
    for batch in pictures.split(MEASURED_AT_ONCE):
        originals = scaled(batch)
        codes = tokenizer.encode(originals)
        errors += float((tokenizer.decode(codes) - drawings(originals)[0]).abs().sum(dtype=torch.float64))
        counts += codes.flatten().bincount(minlength=tokenizer.codes)
    shares = counts[counts > 0] / counts.sum()
    return {
        "error": round(errors / pictures.numel() * 127.5, 2),
        "codes_used": len(shares),
        "perplexity": round(math.exp(-float((shares * shares.log()).sum())), 1),
    }
