"""How digits_clip.py trains a small CLIP."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from digits_wrong_captions import all_captions, exchanged, lead, rearranged
from PIL import Image
from tokenizer_training import drawings, scaled
from torch import Tensor, nn
from tqdm import tqdm

HALVINGS = 32
"""By how much the picture tower, open_clip's residual network, makes pictures smaller."""
HEAD_WIDTH = 16
CONTEXT_LENGTH = 12
"""Tokens of the longest caption."""
VOCABULARY = 49408
FIRST_SCALE, HIGHEST_SCALE = 4.0, 100.0
"""What cosines are multiplied by. CLIP starts at 14: then the first features, which mean nothing, cost so much that
both towers learn to give everything the same feature, and stay there."""
DRAWN_SHARE, BLURRED_SHARE = 0.5, 0.4
ONE_DIGIT_SHARE, TWO_DIGITS_SHARE = 0.08, 0.28
"""Shares of the training in which pictures have one digit, and after which they have any number."""
TEXTS_SHARE = 0.3
"""Weight of telling pictures apart for a text; the rest is telling texts apart for a picture."""
WRONG_CAPTIONS = 3
"""Captions of each kind of wrong ones for a picture with three digits."""
WARM_UP = 50
WEIGHT_DECAY = 0.05


@dataclass(frozen=True)
class Plan:
    """What is trained and how; the fields are flags of the command.

    Attributes:
        image_size: side of the pictures in pixels.
        width: channels of the picture tower at first; 32 times as many at the end.
        text_width: of the text tower.
        updates, batch_size, lr: length of the training, pictures of an update, highest learning rate.
        seed: of the first weights and all draws.
    """

    image_size: int = 64
    width: int = 16
    text_width: int = 64
    updates: int = 1800
    batch_size: int = 64
    lr: float = 2e-3
    seed: int = 7


def configuration(plan: Plan) -> dict[str, Any]:
    """What open_clip makes the network and the preparation of pictures from."""
    vision = {"image_size": plan.image_size, "layers": [1, 1, 1, 1], "width": plan.width, "head_width": HEAD_WIDTH}
    text = {"context_length": CONTEXT_LENGTH, "vocab_size": VOCABULARY, "width": plan.text_width, "proj_bias": True}
    text |= {"heads": plan.text_width // HEAD_WIDTH, "layers": 2}
    half = [0.5, 0.5, 0.5]
    prepare = {"size": plan.image_size, "mean": half, "std": half, "resize_mode": "squash"}
    model = {"embed_dim": plan.text_width, "vision_cfg": vision, "text_cfg": text}
    return {"model_cfg": model, "preprocess_cfg": prepare}


# -------------------------------------------------------------------------------- towers


class Towers(nn.Module):
    """An untrained CLIP, both of whose features are kept apart by a batch norm while it learns.

    Args:
        open_clip: the library.
        plan: its sizes, and the seed of its weights.
    """

    def __init__(self, open_clip: Any, plan: Plan) -> None:
        super().__init__()
        config = configuration(plan)["model_cfg"]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            self.network = open_clip.CLIP(**config, init_logit_scale=math.log(FIRST_SCALE))
        self._open_clip = open_clip
        for name, weights in self.network.visual.named_parameters():
            if name.endswith("bn3.weight"):  # 0, for networks of many layers; these few learn faster as they are
                nn.init.ones_(weights)
        self.network.visual.to(memory_format=torch.channels_last)
        self.picture_norm, self.text_norm = (nn.BatchNorm1d(config["embed_dim"], affine=False) for _ in range(2))
        self._every_word = self.network.token_embedding
        self._tokens, self._words = self._tokenized()
        # An optimizer would walk through the rows of all words of English at each update.
        self.network.token_embedding = nn.Embedding.from_pretrained(
            self._every_word.weight[self._words].detach().clone(), freeze=False
        )

    def _tokenized(self) -> tuple[dict[str, Tensor], Tensor]:
        """Tokens of all captions, numbered among those that occur, and which these are.

        The order stays: the last one ends texts, which open_clip knows by its being the largest number.
        """
        captions = list(all_captions())
        tokens = self._open_clip.SimpleTokenizer(context_length=CONTEXT_LENGTH)(captions)
        words, numbers = tokens.unique(return_inverse=True)
        return dict(zip(captions, numbers, strict=True)), words

    def pictures(self, pictures: Tensor) -> Tensor:
        """Features of length 1, ``(B, D)``, of pictures ``(B, 3, s, s)`` in [-1, 1]."""
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        return F.normalize(self.picture_norm(self.network.encode_image(pictures)), dim=-1)

    def texts(self, captions: Sequence[str]) -> Tensor:
        """Features of length 1, ``(B, D)``."""
        tokens = torch.stack([self._tokens[caption] for caption in captions])
        return F.normalize(self.text_norm(self.network.encode_text(tokens)), dim=-1)

    def finished(self) -> nn.Module:
        """The CLIP alone, with what the norms do as part of its last layers; the towers are of no more use then."""
        network: Any = self.network
        norm: Any
        with torch.no_grad():
            self._every_word.weight[self._words] = network.token_embedding.weight
            for norm, layer in (
                (self.picture_norm, network.visual.attnpool.c_proj),
                (self.text_norm, network.text_projection),
            ):
                factor = torch.rsqrt(norm.running_var + norm.eps)
                layer.weight.mul_(factor[:, None])
                layer.bias.sub_(norm.running_mean).mul_(factor)
        network.token_embedding = self._every_word
        return network.eval()  # type: ignore[no-any-return]


# -------------------------------------------------------------------------------- training


def train(open_clip: Any, pictures: Tensor, captions: Sequence[str], plan: Plan) -> nn.Module:
    """A CLIP that knows which of these pictures, uint8 ``(N, 3, s, s)``, has which caption."""
    draws = torch.Generator().manual_seed(plan.seed)
    towers = Towers(open_clip, plan).train()
    optimizer = torch.optim.AdamW(_groups(towers), plan.lr, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: _rate(update, plan.updates))
    batches = Batches(captions, plan, draws)
    with tqdm(batches, total=plan.updates, desc="CLIP", unit="update", disable=None) as bar:
        for rows, texts in bar:
            shown = varied(scaled(pictures[rows]), draws, 1.0 if batches.digits == 1 else DRAWN_SHARE)
            loss = _loss(towers, shown, [captions[row] for row in rows.tolist()], texts)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(towers.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                towers.network.logit_scale.clamp_(max=math.log(HIGHEST_SCALE))
            bar.set_postfix(loss=f"{loss.item():.2f}", refresh=False)
    return towers.finished()


def varied(pictures: Tensor, draws: torch.Generator, drawn_share: float) -> Tensor:
    """The pictures, some as the drawings that a tokenizer makes of them, some blurred."""
    drawn, blurred = (torch.rand(len(pictures), generator=draws) < share for share in (drawn_share, BLURRED_SHARE))
    pictures = torch.where(drawn[:, None, None, None], drawings(pictures)[0], pictures)
    means = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return torch.where(blurred[:, None, None, None], means, pictures)


class Batches:
    """Rows, and texts to tell from each other, update by update; pictures of one digit come first.

    Args:
        captions: of all rows.
        plan: how many updates of how many rows.
        draws: randomness.
    """

    def __init__(self, captions: Sequence[str], plan: Plan, draws: torch.Generator) -> None:
        self._captions, self._plan, self._draws = captions, plan, draws
        self._counts = torch.tensor([len(all_captions()[caption][1]) for caption in captions])
        self.digits = 0
        """The most digits that pictures of the latest batch may have."""

    def __iter__(self) -> Iterator[tuple[Tensor, list[str]]]:
        order: Iterator[Tensor] = iter(())
        for update in range(self._plan.updates):
            share = update / self._plan.updates
            digits = 1 if share < ONE_DIGIT_SHARE else 2 if share < TWO_DIGITS_SHARE else 3
            rows = next(order, None) if digits == self.digits else None
            if rows is None or len(rows) < self._plan.batch_size:
                self.digits = digits
                order = iter(self._shuffled(digits).split(self._plan.batch_size))
                rows = next(order)
            yield rows, self._texts([self._captions[row] for row in rows.tolist()])

    def _shuffled(self, digits: int) -> Tensor:
        """The rows with so many digits at most, or all if they are too few for a batch."""
        rows = torch.nonzero(self._counts <= digits)[:, 0]
        if len(rows) < self._plan.batch_size:
            rows = torch.arange(len(self._counts))
        return rows[torch.randperm(len(rows), generator=self._draws)]

    def _texts(self, captions: Sequence[str]) -> list[str]:
        """Different texts: the captions, wrong ones for three digits, and all there are for fewer."""
        wrong = chain.from_iterable(map(self._wrong, captions))
        short = (text for text, (_, labels) in all_captions().items() if len(labels) <= min(self.digits, 2))
        return list(dict.fromkeys([*captions, *wrong, *short]))

    def _wrong(self, caption: str) -> list[str]:
        if len(all_captions()[caption][1]) < 3:
            return []
        choices = (exchanged(caption), rearranged(caption)) * WRONG_CAPTIONS
        return [texts[int(torch.randint(len(texts), (), generator=self._draws))] for texts in choices]


def _loss(towers: Towers, pictures: Tensor, captions: Sequence[str], texts: Sequence[str]) -> Tensor:
    """CLIP's, except that equal captions are one text: a picture has one right text, a text may have several pictures.

    The texts begin with the captions; the rest have no picture here.
    """
    scores = towers.network.logit_scale.exp() * towers.pictures(pictures) @ towers.texts(texts).T
    place = {text: number for number, text in enumerate(texts)}
    right = torch.tensor([place[caption] for caption in captions])
    have = scores[:, : int(right.max()) + 1].T
    other = right[None] != torch.arange(len(have))[:, None]
    right_pictures = have.masked_fill(other, -torch.inf).logsumexp(1)
    of_pictures = F.cross_entropy(scores, right)
    of_texts = (have.logsumexp(1) - right_pictures).mean()
    return (1 - TEXTS_SHARE) * of_pictures + TEXTS_SHARE * of_texts


def _groups(towers: Towers) -> list[dict[str, Any]]:
    """Matrices decay, other weights do not."""
    weights = dict(towers.named_parameters())
    matrices = [name for name, value in weights.items() if value.ndim > 1 and "embedding" not in name]
    others = [value for name, value in weights.items() if name not in matrices]
    return [
        {"params": [weights[name] for name in matrices], "weight_decay": WEIGHT_DECAY},
        {"params": others, "weight_decay": 0.0},
    ]


def _rate(update: int, updates: int) -> float:
    """Share of the highest learning rate: a short rise, then half a cosine."""
    rise = min(1.0, (update + 1) / min(WARM_UP, math.ceil(updates / 4)))
    return rise * (1 + math.cos(math.pi * update / updates)) / 2


# -------------------------------------------------------------------------------- measuring


def measure(scorer: Any, pictures: Tensor, captions: Sequence[str]) -> dict[str, dict[str, float]]:
    """How well a ``ClipScorer`` tells right captions, by kind of pictures: as they are, and as drawings."""
    drawn = (drawings(scaled(pictures))[0] + 1).mul(127.5).round().to(torch.uint8)
    texts = scorer.texts(list(all_captions()))
    return {
        kind: lead(scorer.images(_images(shown)), texts, captions)
        for kind, shown in (("pictures", pictures), ("drawings", drawn))
    }


def _images(pictures: Tensor) -> list[Image.Image]:
    return [Image.fromarray(each.permute(1, 2, 0).numpy()) for each in pictures]
