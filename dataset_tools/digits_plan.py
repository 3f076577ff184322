"""What the command builds: its flags, the files that follow from them, and how the items in them are numbered."""

from __future__ import annotations

from dataclasses import dataclass

# Streams number the output files: 1, 2, ... for the training files, these two for the others.
EVAL_STREAMS = {"val": 900, "test": 901}
MAX_EPOCH_FILES = min(EVAL_STREAMS.values()) - 1
MAX_ROWS = 1_000_000  # items in one stream; an item's number is stream * MAX_ROWS + row


@dataclass(frozen=True)
class BuildPlan:
    """What to build; the fields are the flags of the command."""

    tasks: tuple[str, ...] = ("caption",)
    train_rows: int = 12_000
    val_rows: int = 300
    test_rows: int = 600
    epoch_files: int = 1
    easy_files: int = 0
    films: int = 1500
    sounds: int = 500
    pictures: int = 0
    canvas: int = 64
    max_digits: int = 3
    file_format: str = "jpeg"
    frames: int = 16
    seed: int = 7

    def files(self, in_training: int) -> list[OutputFile]:
        """All files of a medium, of which each training file has ``in_training`` pictures, films or sounds."""
        train = [
            OutputFile(f"train_{k}", "train", k, in_training, k <= self.easy_files)
            for k in range(1, self.epoch_files + 1)
        ]
        held_out = {"val": self.val_rows, "test": self.test_rows}
        return train + [OutputFile(split, split, EVAL_STREAMS[split], number) for split, number in held_out.items()]


@dataclass(frozen=True)
class OutputFile:
    """One file of every task that shares a medium.

    Attributes:
        stem: ``train_1``, ..., ``val``, ``test``; what a task puts before it makes the name.
        split: train, val or test.
        stream: the number that makes the randomness of this file its own.
        number: how many pictures, films or sounds it is about.
        easy: whether they are of the simplest kind.
    """

    stem: str
    split: str
    stream: int
    number: int
    easy: bool = False


@dataclass(frozen=True)
class Numbered:
    """What pictures, films and sounds have in common.

    Attributes:
        number: unique over all items of its medium in one build.
        name: contains the number, e.g. "digits_test_901000012".
        split: train, val or test.
    """

    number: int
    name: str
    split: str

    @property
    def stream(self) -> int:
        """Number of the file that the item belongs to."""
        return self.number // MAX_ROWS

    @property
    def row(self) -> int:
        """Place of the item in its file, from 0."""
        return self.number % MAX_ROWS

    @property
    def stem(self) -> str:
        """``train_3`` for an item of stream 3, else the split."""
        return f"train_{self.stream}" if self.split == "train" else self.split
