"""Commands in documents: where they stand, and what their words mean."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

OPEN = "…"
"""Stands for what a reader has to fill in."""

PROGRAM = re.compile(r"(bash|python|unival|torchrun|pip|sbatch|srun|git|sha256sum|fairseq-[a-z-]+)$")
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9_]*$")
_FENCE = re.compile(r"^```(\w*)$")
_CODE = re.compile(r"`([^`]+)`")
_SEPARATORS = {"|", "&&", ";"}


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        words: without comments and without environment variables in front.
        variables: the latter, as ``NAME=value``.
        where: document and line.
        whole: it can be typed as it stands; otherwise required arguments may be missing.
    """

    words: tuple[str, ...]
    variables: tuple[str, ...]
    where: str
    whole: bool


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    language: str
    text: str
    line: int


def blocks_of(text: str) -> Iterator[Block]:
    """Fenced blocks, in order."""
    opened: tuple[str, int] | None = None
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if opened is None and fence:
            opened, lines = (fence[1], number), []
        elif opened is not None and fence:
            yield Block(opened[0], "\n".join(lines), opened[1])
            opened = None
        elif opened is not None:
            lines.append(line)


def commands_of(path: Path, name: str) -> Iterator[Command]:
    """All commands of a document: of bash blocks, of indented lines, and of code within the text."""
    text = path.read_text()
    for block in blocks_of(text):
        if block.language == "bash":
            for line, number in _joined(block.text.splitlines(), block.line + 1):
                yield from read(line, f"{name}:{number}")
    for line, number in _indented(text):
        yield from read(line, f"{name}:{number}")
    for line, number in _inline(text):
        yield from read(line, f"{name}:{number}", whole=False)


def read(line: str, where: str, whole: bool = True) -> Iterator[Command]:
    """The commands of one line, which may be several, or none (an empty line, a comment)."""
    words = list(takewhile(lambda word: not word.startswith("#"), shlex.split(line)))
    while words:
        one = list(takewhile(lambda word: word not in _SEPARATORS, words))
        words = words[len(one) + 1 :]
        variables = list(takewhile(ASSIGNMENT.match, one))
        own = one[len(variables) :]
        complete = whole and OPEN not in own
        meant = tuple(word.removesuffix(OPEN) if len(word) > 1 else word for word in own if word != OPEN)
        if meant or variables:
            yield Command(meant, tuple(variables), where, complete)


def _joined(lines: list[str], first: int) -> Iterator[tuple[str, int]]:
    """Lines, those that end in a backslash with the next one, and the number of each."""
    start, parts = first, []
    for number, line in enumerate(lines, first):
        parts.append(line.removesuffix("\\"))
        if not line.endswith("\\"):
            yield " ".join(parts), start
            start, parts = number + 1, []


def _indented(text: str) -> Iterator[tuple[str, int]]:
    """Indented lines that begin with a program."""
    plain = _without_blocks(text)
    number = 0
    while number < len(plain):
        line, start = plain[number], number
        while line.endswith("\\") and number + 1 < len(plain):
            number += 1
            line = line.removesuffix("\\") + plain[number]
        number += 1
        if line.startswith("    ") and is_command(line):
            yield line, start + 1


def _inline(text: str) -> Iterator[tuple[str, int]]:
    """Code within text and tables that begins with a program and says more than its name, also over a line's end."""
    paragraph: list[str] = []
    start = 1
    for number, line in enumerate([*_without_blocks(text), ""], 1):
        if line.strip() and not line.startswith(("|", "    ")):
            paragraph.append(line)
            continue
        whole = " ".join(paragraph)
        spans = [(found[1], start) for found in _CODE.finditer(whole)]
        spans += [(found[1], number) for found in _CODE.finditer(line) if line.startswith("|")]
        for span, place in spans:
            plain = span.replace("\\|", "|")
            if is_command(plain) and len(plain.split()) > 1:
                yield plain, place
        paragraph, start = [], number + 1


def is_command(line: str) -> bool:
    """Whether a line begins with a program, perhaps behind environment variables."""
    words = [word for word in line.split() if not ASSIGNMENT.match(word)]
    return bool(words) and PROGRAM.match(words[0]) is not None


def _without_blocks(text: str) -> list[str]:
    """Lines, those of fenced blocks empty."""
    lines, inside = [], False
    for line in text.splitlines():
        fence = _FENCE.match(line) is not None
        lines.append("" if inside or fence else line)
        inside ^= fence
    return lines
