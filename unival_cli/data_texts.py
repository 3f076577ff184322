"""What is wrong with a text: traces of damage, nothing in it, or far too much."""

from __future__ import annotations

import re

from .data_report import Fault, Report
from .data_schemas import SEPARATOR

LONGEST_TEXT = 5000
"""Characters; the longest captions of public sets, of whole films, have about a tenth of them."""

LONGEST_WORD = 500
"""Characters; so long a word is a picture or other data in a column of text. (Some languages write no spaces.)"""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# U+FFFD stands for what could not be decoded, U+FEFF in a cell is the beginning of another file, and the pairs are what
# UTF-8 becomes when it is read as Latin-1 or Windows-1252.
_MANGLED = re.compile("\ufffd|\ufeff|[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac")


def damage(name: str, text: str) -> Fault | None:
    """Characters that no text has unless something went wrong on its way, or a text that is none."""
    if found := _MANGLED.search(text):
        reason = (
            f"{name} has {ascii(found[0])} at character {found.start() + 1}: it was read in a wrong encoding; write"
        )
        return Fault("mangled text", f"{reason} the row anew from its source, as UTF-8")
    if found := _CONTROL.search(text):
        reason = f"{name} has the control character {ascii(found[0])} at character {found.start() + 1}: remove it"
        return Fault("control character", reason)
    return None


def no_word(name: str, text: str) -> Fault | None:
    """A text must say something, and must not be data from elsewhere."""
    if len(text) > LONGEST_TEXT:
        return _overlong(f"{name} has {len(text)} characters")
    longest = max((len(word) for word in text.split() if word.isascii()), default=0)
    if longest > LONGEST_WORD:
        return _overlong(f"{name} has a word of {longest} characters")
    if not any(character.isalnum() for character in text):
        return Fault("no word", f"{name} {text[:40]!r} has no word: write one or remove the row")
    return None


def _overlong(found: str) -> Fault:
    remedy = "is this another column's content, or several rows in one? check --selected-cols, or cut it"
    return Fault("overlong text", f"{found}: {remedy}")


def captions_fault(name: str, text: str, report: Report) -> Fault | None:
    """One caption or several, joined by ``&&``."""
    captions = text.split(SEPARATOR)
    if not all(caption.strip() for caption in captions):
        return Fault("empty caption", f"one of the captions between && is empty: remove it with its && from the {name}")
    for caption in captions:
        if fault := no_word(name, caption):
            return fault
    report.spreads["captions a row"][len(captions)] += 1
    report.spreads["words a caption"].update(len(caption.split()) for caption in captions)
    return None
