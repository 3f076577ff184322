"""Films of scanned digits: one or two digits move, stay, or turn into another digit.

What happens takes the whole film, so that four frames, one from the middle of each quarter, show it. A film has one
right sentence. All digits of a film, also those that others turn into, are of different classes: "the seven" is one.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
from digits_plan import MAX_ROWS, Numbered
from digits_scenes import (
    ATTEMPTS,
    GAP,
    MARGIN,
    Box,
    DigitSource,
    article,
    draw_colours,
    ink_box,
    relation,
    scan_mask,
)

MEDIUM_NUMBER = 11  # keeps the randomness of films apart from that of pictures
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
STAYS, TURNS = "stays", "turns"
RATE = 8  # frames a second
# Several threads, and x264's macroblock tree even with one, give other bytes now and then.
ENCODING = {"preset": "veryfast", "crf": "18", "threads": "1", "x264-params": "mbtree=0"}
MIN_FRAMES = 8  # so that each quarter has frames of its own
LONE_SHARE = 0.45  # films with one digit
SIZES = {1: (0.28, 0.41), 2: (0.25, 0.3)}  # side of a digit as a share of the canvas, by the number of digits
REACH = {1: (0.3, 0.5), 2: (0.25, 0.4)}  # how far a digit moves, likewise
FADE = (0.3, 0.45), 0.2  # when a digit begins to turn into another and how long that takes, as shares of the film
# How often a digit of films with one or two digits moves, turns into another, or stays.
ACTION_SHARES = {1: (0.5, 0.35, 0.15), 2: (0.45, 0.2, 0.35)}


@dataclass(frozen=True)
class Actor:
    """A digit of a film.

    Attributes:
        label: its class 0..9 at the beginning.
        source: number of its scan in ``load_digits()``.
        action: a direction (``left``, ``right``, ``up``, ``down``), ``stays`` or ``turns``.
        becomes: class and scan of the digit it turns into, else None.
        boxes: the box of its ink in every frame, in pixels.
    """

    label: int
    source: int
    action: str
    becomes: tuple[int, int] | None = None
    boxes: tuple[Box, ...] = ()

    @property
    def moves(self) -> bool:
        """Whether it changes its place."""
        return self.action in DIRECTIONS

    @property
    def labels(self) -> tuple[int, ...]:
        """The classes it has, one after the other."""
        return (self.label,) if self.becomes is None else (self.label, self.becomes[0])

    @property
    def sentence(self) -> str:
        """``a three moves left``, ``a four turns into a seven``, ``an eight stays``."""
        if self.becomes is not None:
            return f"{article(self.label)} turns into {article(self.becomes[0])}"
        return f"{article(self.label)} {f'moves {self.action}' if self.moves else self.action}"


@dataclass(frozen=True)
class Film(Numbered):
    """A film and all that is known about it. ``actors`` stand in the order in which the caption names them."""

    actors: tuple[Actor, ...]
    data: bytes = field(repr=False)  # the mp4 file

    @property
    def path(self) -> str:
        """Where the film lies in the folder of the build: ``films/train_1/000123.mp4``."""
        return f"films/{self.stem}/{self.row:06d}.mp4"

    @property
    def caption(self) -> str:
        """The one right sentence: who is further left, or above, in the beginning comes first."""
        return " and ".join(actor.sentence for actor in self.actors)


def film_caption_row(film: Film) -> list[str]:
    """Columns id, film id, caption, nothing, path: read with ``--selected-cols 0,4,2``."""
    return [str(film.number), film.name, film.caption, "", film.path]


# -------------------------------------------------------------------------------- making


@dataclass(frozen=True)
class FilmMaker:
    """Makes film number ``row`` of a stream (= one output file); the same arguments always give the same bytes.

    Raises ValueError for a canvas that H.264 cannot hold and for fewer than 8 frames.
    """

    source: DigitSource
    seed: int
    canvas: int = 64
    max_digits: int = 2
    frames: int = 16

    def __post_init__(self) -> None:
        if self.canvas % 2:
            raise ValueError(f"films need an even number of pixels a side: {self.canvas} is odd, change --canvas")
        if self.frames < MIN_FRAMES:
            raise ValueError(f"films need at least {MIN_FRAMES} frames, not {self.frames}: change --frames")

    def make(self, split: str, stream: int, row: int) -> Film:
        """Film ``row`` of ``stream`` (1, 2, ...: one number per file) with digits of ``split`` only."""
        rng = np.random.default_rng([self.seed, stream, row, MEDIUM_NUMBER])
        actors = self._cast(rng, split)
        masks = self._masks(rng, actors)
        order, corners = _stage(rng, actors, [its[0].shape[0] for its in masks], self.canvas, self.frames)
        inks = [_ink(rng, its, self.frames) for its in masks]
        placed = tuple(replace(actors[i], boxes=_boxes(inks[i], corners[i])) for i in order)
        number = stream * MAX_ROWS + row
        data = encode_film(_draw(rng, inks, corners, self.canvas))
        return Film(number, f"film_{split}_{number}", split, placed, data)

    def _cast(self, rng: np.random.Generator, split: str) -> list[Actor]:
        """Digits of different classes and what they do; something happens if there are two."""
        count = 1 if self.max_digits == 1 or rng.random() < LONE_SHARE else 2
        actions = _actions(rng, count)
        labels = iter(rng.permutation(10).tolist())
        pools = self.source.pools[split]
        actors = []
        for action in actions:
            label = next(labels)
            becomes = None
            if action == TURNS:
                other = next(labels)
                becomes = other, int(rng.choice(pools[other]))
            actors.append(Actor(label, int(rng.choice(pools[label])), action, becomes))
        return actors

    def _masks(self, rng: np.random.Generator, actors: list[Actor]) -> list[list[np.ndarray]]:
        """For each actor the mask of its scan and, if it turns into another digit, of that one, in the same size."""
        low, high = (round(share * self.canvas) for share in SIZES[len(actors)])
        masks = []
        for actor in actors:
            size = int(rng.integers(low, high + 1))
            scans = [actor.source] if actor.becomes is None else [actor.source, actor.becomes[1]]
            masks.append([scan_mask(self.source.scans[scan], size, float(rng.uniform(-8, 8))) for scan in scans])
        return masks


def _actions(rng: np.random.Generator, count: int) -> list[str]:
    """What each digit does. Two digits neither both stay nor both turn into others."""
    while True:
        kinds = rng.choice(("moves", TURNS, STAYS), count, p=ACTION_SHARES[count]).tolist()
        if count == 1 or kinds[0] != kinds[1] or kinds[0] == "moves":
            return [list(DIRECTIONS)[int(rng.integers(4))] if kind == "moves" else kind for kind in kinds]


# -------------------------------------------------------------------------------- placing


def _stage(
    rng: np.random.Generator, actors: list[Actor], sizes: list[int], canvas: int, frames: int
) -> tuple[list[int], list[np.ndarray]]:
    """The order of the actors in the caption and the corners (frames, 2) of their tiles, which never overlap.

    Who comes first is clear in the beginning and does not change before the middle of the film.
    """
    for _ in range(ATTEMPTS):
        reaches = [rng.uniform(*REACH[len(actors)]) for _ in actors]
        corners = [
            _path(rng, actor.action, size, reach, canvas, frames)
            for actor, size, reach in zip(actors, sizes, reaches, strict=True)
        ]
        if len(actors) == 1:
            return [0], corners
        if not _apart(corners, sizes):
            continue
        for order in ([0, 1], [1, 0]):
            if all(_precedes(order, corners, sizes, frame, canvas) for frame in (0, frames // 2)):
                return order, corners
    raise ValueError(f"no place found for two digits on a canvas of {canvas} px; use a larger canvas")


def _path(rng: np.random.Generator, action: str, size: int, reach: float, canvas: int, frames: int) -> np.ndarray:
    """Corners (frames, 2) of a tile that moves evenly, ``reach`` of the canvas from first to last frame, or stays."""
    way = np.array(DIRECTIONS.get(action, (0, 0))) * min(round(reach * canvas), canvas - size - 2 * GAP)
    free = canvas - size - 2 * GAP - np.abs(way)
    start = GAP + rng.integers(0, free + 1) + np.maximum(0, -way)
    shares = np.linspace(0, 1, frames)[:, None]
    return np.rint(start + shares * way).astype(np.int64)


def _apart(corners: list[np.ndarray], sizes: list[int]) -> bool:
    """Whether two tiles are at least GAP pixels apart in all frames."""
    first, second = corners
    gaps = np.maximum(second - first - sizes[0], first - second - sizes[1]).max(axis=1)
    return bool((gaps >= GAP).all())


def _precedes(order: list[int], corners: list[np.ndarray], sizes: list[int], frame: int, canvas: int) -> bool:
    boxes = []
    for i in order:
        x, y = corners[i][frame].tolist()
        boxes.append((x, y, x + sizes[i], y + sizes[i]))
    return relation(boxes[0], boxes[1], MARGIN * canvas) is not None


# -------------------------------------------------------------------------------- drawing


def _ink(rng: np.random.Generator, masks: list[np.ndarray], frames: int) -> np.ndarray:
    """The tile (frames, size, size) in every frame: one mask, or one that fades into the other."""
    if len(masks) == 1:
        return np.broadcast_to(masks[0], (frames, *masks[0].shape))
    begin, length = FADE
    shares = (np.linspace(0, 1, frames) - rng.uniform(*begin)) / length
    amounts = np.clip(shares, 0, 1).astype(np.float32)[:, None, None]
    return (1 - amounts) * masks[0] + amounts * masks[1]


def _boxes(ink: np.ndarray, corners: np.ndarray) -> tuple[Box, ...]:
    boxes = []
    for tile, (x, y) in zip(ink, corners.tolist(), strict=True):
        box = ink_box(tile)
        boxes.append((x + box[0], y + box[1], x + box[2], y + box[3]))
    return tuple(boxes)


def _draw(rng: np.random.Generator, inks: list[np.ndarray], corners: list[np.ndarray], canvas: int) -> np.ndarray:
    """The frames (frames, canvas, canvas, 3) uint8; colours and noise are those of pictures and do not change."""
    frames = len(inks[0])
    ink = np.zeros((frames, canvas, canvas, 1), dtype=np.float32)
    for tiles, path in zip(inks, corners, strict=True):
        size = tiles.shape[1]
        for frame, (x, y) in enumerate(path.tolist()):
            ink[frame, y : y + size, x : x + size, 0] = tiles[frame]
    background, foreground = draw_colours(rng)
    noise = rng.normal(0, rng.uniform(2, 8), (canvas, canvas, 1)).astype(np.float32)
    pixels = background + noise + (foreground - background) * ink
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def encode_film(frames: np.ndarray) -> bytes:
    """An mp4 file (H.264) of frames (n, height, width, 3) uint8, 8 a second. Raises ValueError without PyAV."""
    try:
        import av
    except ImportError as error:
        raise ValueError("films need the package av: pip install av") from error

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=RATE, options=ENCODING)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, RATE)
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()
