"""Find and read the digits in pictures without any of our networks, and compare them with the captions.

    python dataset_tools/digits_recognition.py --predictions results/test_predict.json --pictures drawn/top1 \\
        --output found.json

reads what the task image_gen drew. The same for rows with real pictures, to see how far the reader itself can be
trusted:

    python dataset_tools/digits_recognition.py --tsv data/digits/test.tsv --selected-cols 0,4,2

With --tokenizer, the folder of digits_tokenizer.py, these pictures become codes and pictures again before they are
read: what the tokenizer loses no model that writes its codes can have.

It prints, and with --output writes as JSON, in how many pictures exactly the asked digits were found, in how many they
also stand as asked, and which digits were taken for which. The reader (digits_reader.py) knows the training scans only.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from digits_reader import Found, Reader
from digits_scenes import LAYOUTS, NAMES, article, relation
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from unival_cli.files import atomic_output, progress, refuse_existing
from unival_cli.light import light

TOOL = "digits_recognition.py"


# -------------------------------------------------------------------------------- what was asked


@dataclass(frozen=True)
class Asked:
    """What a caption asks for: the name of a layout and the digits in its order."""

    layout: str
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Agreement:
    """Whether exactly the asked digits are there, and whether they also stand as asked."""

    digits: bool
    arrangement: bool


_LABELS = {article(label): label for label in range(10)}
_PATTERNS = {
    name: re.compile(re.sub(r"\{\d\}", f"({'|'.join(_LABELS)})", layout.wording)) for name, layout in LAYOUTS.items()
}


def asked_by(caption: str) -> Asked:
    """What a caption of the digits' pictures asks for. Raises DataError for any other text."""
    text = " ".join(caption.lower().split())
    for name, pattern in _PATTERNS.items():
        if match := pattern.fullmatch(text):
            return Asked(name, tuple(_LABELS[word] for word in match.groups()))
    raise light("errors").DataError(f"caption {caption!r} is none of those of digits.py, as 'a two left of an eight'")


def agrees(found: Sequence[Found], caption: str) -> Agreement:
    """Compare what was found with a caption. Raises DataError if the caption is none of digits.py."""
    asked = asked_by(caption)
    if sorted(digit.label for digit in found) != sorted(asked.labels):
        return Agreement(False, False)
    return Agreement(True, any(_stands(order, asked) for order in itertools.permutations(found)))


def _stands(order: Sequence[Found], asked: Asked) -> bool:
    pairs = itertools.combinations([digit.box for digit in order], 2)
    # A pixel more or less at an edge must not decide: which distance is larger counts, without a margin.
    relations = tuple(relation(first, second, 0) for first, second in pairs)
    return tuple(digit.label for digit in order) == asked.labels and relations == LAYOUTS[asked.layout].relations


# -------------------------------------------------------------------------------- all pictures


@dataclass
class Tally:
    """What was found in pictures, all in all.

    Attributes:
        pictures, digits, arrangement: number of pictures, of those with exactly the asked digits, and of those in which
            they also stand as asked.
        number: pictures with as many digits as asked.
        asked, right: for each digit, how often it was asked for and how often of these it was there.
        taken_for: (asked, found) of pictures with as many digits as asked, all but one of them right.
    """

    pictures: int = 0
    digits: int = 0
    arrangement: int = 0
    number: int = 0
    asked: Counter[int] = field(default_factory=Counter)
    right: Counter[int] = field(default_factory=Counter)
    taken_for: Counter[tuple[int, int]] = field(default_factory=Counter)

    def add(self, found: Sequence[Found], caption: str) -> None:
        """Count a picture. Raises DataError if the caption is none of digits.py."""
        agreement, asked = agrees(found, caption), Counter(asked_by(caption).labels)
        there = Counter(digit.label for digit in found)
        missing, extra = list((asked - there).elements()), list((there - asked).elements())
        self.pictures += 1
        self.digits += agreement.digits
        self.arrangement += agreement.arrangement
        self.number += len(missing) == len(extra)
        self.asked += asked
        self.right += asked & there
        if len(missing) == len(extra) == 1:
            self.taken_for[missing[0], extra[0]] += 1

    def report(self) -> dict[str, Any]:
        """Plain data for JSON; shares are of pictures, or of the times a digit was asked for."""
        return {
            "pictures": self.pictures,
            "right_digits": round(self.digits / self.pictures, 4),
            "right_digits_and_arrangement": round(self.arrangement / self.pictures, 4),
            "right_number_of_digits": round(self.number / self.pictures, 4),
            "each_digit": {NAMES[label]: self._of_digit(label) for label in sorted(self.asked)},
        }

    def _of_digit(self, label: int) -> dict[str, Any]:
        taken = {NAMES[other]: n for (asked, other), n in self.taken_for.most_common() if asked == label}
        return {
            "asked": self.asked[label],
            "found": round(self.right[label] / self.asked[label], 4),
            "taken_for": taken,
        }


@dataclass(frozen=True)
class Rows:
    """Captions, and how to get the picture that belongs to each; pictures are read when they are asked for."""

    captions: list[str]
    picture: Callable[[int], Image.Image]


def table_rows(path: Path, columns: Sequence[int]) -> Rows:
    """Rows of a table with pictures; columns of id, picture and caption. Raises DataError if it cannot be read."""
    images, table = light("data.image"), light("data.tsv").TsvTable(path, tuple(columns))
    captions = [table.row(i)[2] for i in range(len(table))]
    return Rows(captions, lambda i: images.read_cell_image(table.row(i)[1], table.where(i, 1)))


def predicted_rows(path: Path, folder: Path) -> Rows:
    """What the task image_gen drew: its file of predictions and the folder with the pictures that it names.

    Raises:
        DataError: the file is missing or is no list of objects with "caption" and "picture".
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        names, captions = ([str(entry[key]) for entry in entries] for key in ("picture", "caption"))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise light("errors").DataError(
            f"{path} is no list of objects with caption and picture: give the test_predict.json of task image_gen"
        ) from error
    images = light("data.image")
    return Rows(captions, lambda i: images.read_cell_image(names[i], f"{path}:entry {i + 1}", folder, from_path=True))


def redrawn(rows: Rows, folder: Path) -> Rows:
    """The same rows with each picture as an image tokenizer draws its codes.

    Args:
        rows: with real pictures.
        folder: with last.ckpt and model.yaml of the tokenizer.

    Raises:
        CheckpointError: the tokenizer cannot be read.
    """
    tokenizer = light("checkpoints.image_tokenizer").read_image_tokenizer(folder / "last.ckpt", folder / "model.yaml")
    transform = light("data.image").eval_transform(tokenizer.config.resolution)

    def picture(i: int) -> Image.Image:
        pixels = tokenizer.decode(tokenizer.encode(transform(rows.picture(i))[None]))[0]
        return Image.fromarray(pixels.add(1).mul(127.5).round().byte().permute(1, 2, 0).numpy())

    return Rows(rows.captions, picture)


def tally(rows: Rows, reader: Reader) -> Tally:
    """Read all pictures. Raises DataError if a picture or a caption cannot be used, or there is none."""
    found = Tally()
    for i in progress(range(len(rows.captions)), len(rows.captions), "pictures", "picture"):
        found.add(reader.read(rows.picture(i)), rows.captions[i])
    if not found.pictures:
        raise light("errors").DataError("there are no pictures: give a file with at least one row")
    return found


# -------------------------------------------------------------------------------- command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    of_what = parser.add_mutually_exclusive_group(required=True)
    of_what.add_argument("--predictions", type=Path, metavar="FILE", help="test_predict.json of task image_gen")
    of_what.add_argument("--tsv", type=Path, metavar="FILE", help="rows with pictures (base64)")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="folder with the pictures of --predictions")
    parser.add_argument(
        "--selected-cols",
        type=_columns,
        default=(0, 4, 2),
        metavar="A,B,C",
        help="numbers of the columns (from 0) of id, picture and caption in --tsv (default: 0,4,2)",
    )
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="redraw the pictures of --tsv with its codes")
    parser.add_argument(
        "--seed", type=int, default=7, metavar="N", help="seed with which the data were built (default: 7)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write what was found as JSON")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier --output")
    return parser


def _columns(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not three column numbers, as in 0,4,2")
    return tuple(int(part) for part in parts)


def _text(report: dict[str, Any]) -> str:
    lines = [
        f"{report['pictures']} pictures: exactly the asked digits in {report['right_digits']:.1%}, "
        f"also in the asked arrangement in {report['right_digits_and_arrangement']:.1%}, "
        f"as many digits as asked in {report['right_number_of_digits']:.1%}"
    ]
    for name, digit in report["each_digit"].items():
        taken = ", ".join(f"{other} {times}" for other, times in digit["taken_for"].items())
        lines.append(
            f"{name:5}: {digit['found']:.1%} of {digit['asked']} found" + (f"; taken for {taken}" if taken else "")
        )
    return "\n".join(lines)


def _rows(args: argparse.Namespace) -> Rows:
    if args.tsv is None:
        return predicted_rows(args.predictions, args.pictures)
    rows = table_rows(args.tsv, args.selected_cols)
    return rows if args.tokenizer is None else redrawn(rows, args.tokenizer)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if (args.predictions is None) != (args.pictures is None):
        parser.error("--predictions and --pictures belong together: give both or, instead, --tsv")
    if args.tokenizer is not None and args.tsv is None:
        parser.error("--tokenizer redraws the pictures of --tsv: give that")
    if args.seed < 0:
        parser.error("--seed must be at least 0")
    try:
        if args.output is not None:
            refuse_existing(args.output, args.overwrite)
        rows = _rows(args)
        report = tally(rows, Reader.trained(args.seed)).report()
        if args.output is not None:
            with atomic_output(args.output, args.overwrite) as handle:
                handle.write((json.dumps(report, indent=2) + "\n").encode("utf-8"))
    except (OSError, ValueError) as error:
        print(f"{TOOL}: error: {error}", file=sys.stderr)
        return 2
    print(_text(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
