"""Files of distinct captions for ``unival data negatives``, in little memory."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import numpy as np


class HashSet:
    """A set of numbers from 1 to 2**64-1 that takes 12 to 24 bytes each; Python's own takes about 80."""

    def __init__(self) -> None:
        self._slots = array("Q", [0]) * 1024
        self._filled = 0

    def __len__(self) -> int:
        return self._filled

    def add(self, number: int) -> bool:
        """False if the number is there already."""
        if 3 * self._filled >= 2 * len(self._slots):
            old, self._slots = self._slots, array("Q", [0]) * (2 * len(self._slots))
            for there in filter(None, old):
                self._slots[self._place(there)] = there
        place = self._place(number)
        if self._slots[place]:
            return False
        self._slots[place] = number
        self._filled += 1
        return True

    def _place(self, number: int) -> int:
        """Slot of the number, or the free one that it belongs in."""
        slots, mask = self._slots, len(self._slots) - 1
        place = number & mask
        while slots[place] and slots[place] != number:
            place = (place + 1) & mask
        return place

    def smallest(self, count: int) -> int:
        """The number that ``count`` of the set do not exceed."""
        slots = np.frombuffer(self._slots, np.uint64)
        free = len(slots) - self._filled
        return int(np.partition(slots, free + count - 1)[free + count - 1])


class CaptionFile:
    """Writes every caption once, in the order in which they come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = HashSet()
        self._handle = path.open("w", encoding="utf-8", newline="\n")

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, caption: str) -> None:
        """Write the caption if it is new."""
        if self._seen.add(_digest(caption)):
            self._handle.write(f"{caption}\n")

    def lines(self) -> Iterator[str]:
        """The captions written so far."""
        self._handle.flush()
        with self.path.open(encoding="utf-8", newline="\n") as file:
            yield from (line.rstrip("\n") for line in file)

    def close(self, limit: Optional[int]) -> int:
        """Cut the file to ``limit`` captions, chosen by their hashes, and return how many there are."""
        if limit is None or len(self) <= limit:
            self._handle.close()
            return len(self)
        highest = self._seen.smallest(limit)
        scratch = self.path.with_suffix(".tmp")
        with scratch.open("w", encoding="utf-8", newline="\n") as out:
            out.writelines(f"{caption}\n" for caption in self.lines() if _digest(caption) <= highest)
        self._handle.close()
        scratch.replace(self.path)
        return limit


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little") or 1
