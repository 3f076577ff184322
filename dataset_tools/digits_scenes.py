"""Scenes of one to three scanned handwritten digits: placing, drawing and describing them.

The digits are scikit-learn's copy of the UCI set "Optical Recognition of Handwritten Digits": 1,797 scans of 8x8 pixels
with 17 grey levels. A scene keeps everything that a row writer may need (labels, source scans, boxes, layout), so that
questions, referring expressions or codes can be added without drawing anew. All randomness of a scene is a function of
(seed, stream, row): rows may be built in any order.
"""

from __future__ import annotations

import base64
import io
import itertools
from dataclasses import dataclass, field

import numpy as np
from digits_plan import MAX_ROWS, Numbered
from PIL import Image

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels of the canvas; x1 and y1 are exclusive

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPLITS = ("train", "val", "test")
HELD_OUT_PER_CLASS = {"val": 15, "test": 30}  # source scans of each digit class that training never sees

# One digit is left of or above another only if that distance wins by this share of the canvas; near-ties are redrawn.
MARGIN = 0.1
GAP = 1  # pixels between neighbouring tiles and to the border
ATTEMPTS = 1000


@dataclass(frozen=True)
class Layout:
    """How digits stand together: relations of the pairs (0,1), (0,2), (1,2), the wording and how often it is drawn.

    ``sizes`` are the smallest and largest side of a digit as shares of the canvas.
    """

    relations: tuple[str, ...]
    wording: str
    weight: float
    sizes: tuple[float, float]

    @property
    def count(self) -> int:
        """Number of digits: 1, 2 or 3 for 0, 1 or 3 pairs."""
        return {0: 1, 1: 2, 3: 3}[len(self.relations)]


LAYOUTS = {
    "single": Layout((), "{0}", 0.25, (0.28, 0.41)),
    "row": Layout(("left",), "{0} left of {1}", 0.225, (0.28, 0.41)),
    "column": Layout(("above",), "{0} above {1}", 0.225, (0.28, 0.41)),
    "row3": Layout(("left", "left", "left"), "{0} left of {1} left of {2}", 0.075, (0.25, 0.3)),
    "column3": Layout(("above", "above", "above"), "{0} above {1} above {2}", 0.075, (0.25, 0.3)),
    "one_above_two": Layout(("above", "above", "left"), "{0} above {1} and {2}", 0.075, (0.27, 0.36)),
    "two_above_one": Layout(("left", "above", "above"), "{0} and {1} above {2}", 0.075, (0.27, 0.36)),
}


@dataclass(frozen=True)
class Digit:
    """One digit of a scene: its class 0..9, the number of its scan in ``load_digits()`` and the box of its ink."""

    label: int
    source: int
    box: Box


@dataclass(frozen=True)
class Scene(Numbered):
    """A picture and all that is known about it. ``digits`` stand in the order in which the caption names them."""

    canvas: int
    layout: str
    digits: tuple[Digit, ...]
    picture: bytes = field(repr=False)  # the encoded PNG or JPEG file

    @property
    def caption(self) -> str:
        """The one right sentence: a function of the labels and the layout only."""
        return describe(self.layout, [digit.label for digit in self.digits])


@dataclass(frozen=True)
class DigitSource:
    """All scans (n, 8, 8) uint8 in 0..255, their labels, and for every split the scan numbers of each class."""

    scans: np.ndarray
    labels: np.ndarray
    pools: dict[str, list[np.ndarray]]


def load_source(seed: int) -> DigitSource:
    """Load the scans and split them by scan, class by class, so that no scan of one split appears in another."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    labels = bunch.target.astype(np.int64)
    scans = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    rng = np.random.default_rng([seed, 0])
    pools: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for label in range(10):
        numbers = rng.permutation(np.flatnonzero(labels == label))
        first = 0
        for split, count in HELD_OUT_PER_CLASS.items():
            pools[split].append(np.sort(numbers[first : first + count]))
            first += count
        pools["train"].append(np.sort(numbers[first:]))
    return DigitSource(scans, labels, pools)


# -------------------------------------------------------------------------------- wording


def article(label: int) -> str:
    """``a three``, ``an eight``."""
    return f"{'an' if NAMES[label].startswith('e') else 'a'} {NAMES[label]}"


def describe(layout: str, labels: list[int]) -> str:
    """The caption of digits that stand in ``layout``, given in the order of the layout."""
    return LAYOUTS[layout].wording.format(*map(article, labels))


def relation(first: Box, second: Box, margin: float) -> str | None:
    """``left`` or ``above`` if ``first`` clearly is that of ``second``, else None; the larger distance counts."""
    dx = (second[0] + second[2] - first[0] - first[2]) / 2
    dy = (second[1] + second[3] - first[1] - first[3]) / 2
    if dx - abs(dy) >= margin:
        return "left"
    if dy - abs(dx) >= margin:
        return "above"
    return None


def layout_of(boxes: list[Box], canvas: int) -> tuple[str, tuple[int, ...]] | None:
    """Name of the layout in which the boxes stand and their order in the caption; None if no layout fits clearly."""
    margin = MARGIN * canvas
    for name, layout in LAYOUTS.items():
        if layout.count != len(boxes):
            continue
        for order in itertools.permutations(range(len(boxes))):
            pairs = itertools.combinations(order, 2)
            if all(
                relation(boxes[a], boxes[b], margin) == want
                for (a, b), want in zip(pairs, layout.relations, strict=True)
            ):
                return name, order
    return None


# -------------------------------------------------------------------------------- placing


def _spread(rng: np.random.Generator, sizes: list[int], length: int) -> list[int]:
    """Random starts of consecutive, not overlapping intervals of these sizes in [0, length)."""
    free = length - sum(sizes) - GAP * (len(sizes) + 1)
    cuts = np.sort(rng.integers(0, free + 1, len(sizes))).tolist()
    return [GAP * (i + 1) + cuts[i] + sum(sizes[:i]) for i in range(len(sizes))]


def _anywhere(rng: np.random.Generator, sizes: list[int], length: int) -> list[int]:
    return [_spread(rng, [size], length)[0] for size in sizes]


def _propose(rng: np.random.Generator, layout: str, sizes: list[int], canvas: int) -> list[tuple[int, int]]:
    """Corners (x, y) of tiles that do not overlap and that often, but not always, stand in the wanted layout."""
    if layout.startswith("row") or layout == "single":
        return list(zip(_spread(rng, sizes, canvas), _anywhere(rng, sizes, canvas), strict=True))
    if layout.startswith("column"):
        return list(zip(_anywhere(rng, sizes, canvas), _spread(rng, sizes, canvas), strict=True))
    groups = [[0], [1, 2]] if layout == "one_above_two" else [[0, 1], [2]]
    heights = [max(sizes[i] for i in group) for group in groups]
    corners = [(0, 0)] * 3
    for group, top, height in zip(groups, _spread(rng, heights, canvas), heights, strict=True):
        lefts = _spread(rng, [sizes[i] for i in group], canvas)
        for i, left in zip(group, lefts, strict=True):
            corners[i] = (left, top + int(rng.integers(0, height - sizes[i] + 1)))
    return corners


def _place(
    rng: np.random.Generator, layout: str, masks: list[np.ndarray], canvas: int
) -> tuple[list[tuple[int, int]], list[Box]]:
    """Corners of the tiles and boxes of the ink, in the order of the layout."""
    sizes = [mask.shape[0] for mask in masks]
    inks = [ink_box(mask) for mask in masks]
    order = tuple(range(len(masks)))
    for _ in range(ATTEMPTS):
        corners = _propose(rng, layout, sizes, canvas)
        boxes = [(x + b[0], y + b[1], x + b[2], y + b[3]) for (x, y), b in zip(corners, inks, strict=True)]
        if layout_of(boxes, canvas) == (layout, order):
            return corners, boxes
    raise ValueError(
        f"no place found for {len(masks)} digits ({layout}) on a canvas of {canvas} px; use a larger canvas"
    )


# -------------------------------------------------------------------------------- drawing


def ink_box(mask: np.ndarray) -> Box:
    """Smallest box around the clearly visible ink (more than a third) of a mask (h, w) in 0..1."""
    ys, xs = np.nonzero(mask > 1 / 3)
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def scan_mask(scan: np.ndarray, size: int, angle: float) -> np.ndarray:
    """The scan (8, 8) enlarged to (size, size) and turned by ``angle`` degrees; float32 in 0..1."""
    tile = Image.fromarray(scan).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(tile.rotate(angle, Image.Resampling.BICUBIC), dtype=np.float32) / 255


def draw_colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Background and ink colours (3,) float32: one dark, one light, both slightly tinted."""
    dark = rng.uniform(0, 60) + rng.uniform(0, 40, 3)
    light = rng.uniform(195, 255) - rng.uniform(0, 40, 3)
    pair = (dark, light) if rng.random() < 0.5 else (light, dark)
    return pair[0].astype(np.float32), pair[1].astype(np.float32)


def _draw(
    rng: np.random.Generator, masks: list[np.ndarray], corners: list[tuple[int, int]], canvas: int
) -> Image.Image:
    ink = np.zeros((canvas, canvas, 1), dtype=np.float32)
    for mask, (x, y) in zip(masks, corners, strict=True):
        ink[y : y + mask.shape[0], x : x + mask.shape[1], 0] = mask
    background, foreground = draw_colours(rng)
    noise = rng.normal(0, rng.uniform(2, 8), (canvas, canvas, 1))
    pixels = background * (1 - ink) + foreground * ink + noise
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def encode_picture(picture: Image.Image, file_format: str) -> bytes:
    """The picture as a ``png`` (lossless, about 9 kB at 64 px) or ``jpeg`` file (about 2 kB)."""
    buffer = io.BytesIO()
    if file_format == "png":
        picture.save(buffer, "PNG", optimize=False, compress_level=6)
    else:
        picture.save(buffer, "JPEG", quality=90, subsampling=0)
    return buffer.getvalue()


def encoded_picture(scene: Scene) -> str:
    """The picture as a cell of a row: base64 of its file."""
    return base64.b64encode(scene.picture).decode("ascii")


def joined_names(scene: Scene) -> str:
    """The objects of the picture as a cell of a row: ``three&&seven``, in the order of the caption."""
    return "&&".join(NAMES[digit.label] for digit in scene.digits)


# -------------------------------------------------------------------------------- scenes


@dataclass(frozen=True)
class SceneMaker:
    """Makes scene number ``row`` of a stream (= one output file); the same arguments always give the same bytes."""

    source: DigitSource
    seed: int
    canvas: int = 64
    max_digits: int = 3
    file_format: str = "jpeg"

    def make(self, split: str, stream: int, row: int) -> Scene:
        """Scene ``row`` of ``stream`` (1, 2, ...: one number per file) with digits of ``split`` only."""
        rng = np.random.default_rng([self.seed, stream, row])
        name = self._draw_layout(rng)
        digits, masks = self._draw_digits(rng, split, LAYOUTS[name])
        corners, boxes = _place(rng, name, masks, self.canvas)
        picture = encode_picture(_draw(rng, masks, corners, self.canvas), self.file_format)
        placed = tuple(Digit(label, source, box) for (label, source), box in zip(digits, boxes, strict=True))
        number = stream * MAX_ROWS + row
        return Scene(number, f"digits_{split}_{number}", split, self.canvas, name, placed, picture)

    def _draw_layout(self, rng: np.random.Generator) -> str:
        names = [name for name, layout in LAYOUTS.items() if layout.count <= self.max_digits]
        weights = np.array([LAYOUTS[name].weight for name in names])
        return names[int(rng.choice(len(names), p=weights / weights.sum()))]

    def _draw_digits(
        self, rng: np.random.Generator, split: str, layout: Layout
    ) -> tuple[list[tuple[int, int]], list[np.ndarray]]:
        """(label, scan number) and the mask of every digit; classes are equally likely."""
        low, high = (round(share * self.canvas) for share in layout.sizes)
        digits, masks = [], []
        for label in rng.integers(0, 10, layout.count).tolist():
            scan = int(rng.choice(self.source.pools[split][label]))
            digits.append((label, scan))
            size = int(rng.integers(low, high + 1))
            masks.append(scan_mask(self.source.scans[scan], size, float(rng.uniform(-8, 8))))
        return digits, masks
