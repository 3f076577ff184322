"""``unival data links``: the manifest of all addresses that the project names, and the check of a file against it."""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from .light import light

MANIFEST = Path(__file__).with_name("links.json")
KINDS = {
    "checkpoint": "a whole model",
    "trunk": "weights of a picture, film or sound trunk",
    "weights": "an image tokenizer, CLIP, Inception",
    "bpe": "GPT-2's vocabulary",
    "rows": "rows made by others, in the format of this package",
    "annotations": "questions, boxes, labels",
    "captions": "captions, also with the addresses of pictures",
    "pictures": "the pictures themselves",
    "films": "the films themselves",
    "sounds": "the sounds themselves",
}
BLOCK = 1 << 20


@dataclass(frozen=True)
class Link:
    """An entry of the manifest.

    Attributes:
        name: kebab-case.
        kind: one of KINDS.
        url: address of the file; empty where there is none that a program may use (a form, a page, a folder).
        mirrors: other addresses of the same bytes, in the order in which they are tried.
        file: path of the file below the folder it is fetched into.
        size: bytes; None if not published.
        sha256, md5: published checksums in hex, or empty.
        sha256_prefix: the first digits of the SHA-256, as in the file names of torch's model zoo, or empty.
        checksum_source: who publishes the checksum.
        licence: as its owner states it; "see page" where that could not be read.
        page: the owner's page.
        note: what else to know; for entries without address: how to get the file.
    """

    name: str
    kind: str
    url: str = ""
    mirrors: tuple[str, ...] = ()
    file: str = ""
    size: int | None = None
    sha256: str = ""
    sha256_prefix: str = ""
    md5: str = ""
    checksum_source: str = ""
    licence: str = "see page"
    page: str = ""
    note: str = ""

    @property
    def checksum(self) -> str:
        """The published checksum in words, or "none published"."""
        if self.sha256:
            return f"sha256 {self.sha256}"
        if self.md5:
            return f"md5 {self.md5}"
        return f"sha256 begins with {self.sha256_prefix}" if self.sha256_prefix else "none published"


@lru_cache
def load_links(path: Path = MANIFEST) -> dict[str, Link]:
    """All links by name, in the order of the manifest."""
    return {name: _link(name, fields) for name, fields in json.loads(path.read_text(encoding="utf-8")).items()}


def _link(name: str, fields: dict[str, Any]) -> Link:
    fields = dict(fields)
    size = fields.pop("bytes", None)
    file = fields.pop("file", "") or file_name(fields.get("url", ""))
    return Link(name, mirrors=tuple(fields.pop("mirrors", ())), size=size, file=file, **fields)


def file_name(url: str) -> str:
    """The name of the file that an address leads to, or an empty text."""
    return unquote(PurePosixPath(urlsplit(url).path).name)


def find_links(names: Sequence[str]) -> list[Link]:
    """The links of these names.

    Raises:
        ConfigError: there is no such name; with the names that are like it.
    """
    links = load_links()
    for name in names:
        if name not in links:
            like = difflib.get_close_matches(name, links, n=3, cutoff=0.5)
            hint = f"did you mean {', '.join(like)}?" if like else "unival data links shows all names"
            raise light("errors").ConfigError(f"no link is named {name}; {hint}")
    return [links[name] for name in names]


def digests(path: Path, *names: str) -> list[str]:
    """Hex digests of a file (``sha256``, ``md5``), read once; with a progress bar."""
    from tqdm import tqdm

    counters = [hashlib.new(name, usedforsecurity=False) for name in names]
    size = path.stat().st_size
    with path.open("rb") as handle, tqdm(total=size, unit="B", unit_scale=True, desc="checking", disable=None) as bar:
        while block := handle.read(BLOCK):
            for counter in counters:
                counter.update(block)
            bar.update(len(block))
    return [counter.hexdigest() for counter in counters]


@dataclass(frozen=True)
class Verdict:
    """What a file is beside its entry: ``good`` is None where nothing is published to compare it with."""

    good: bool | None
    text: str


def check_file(path: Path, link: Link) -> Verdict:
    """Compare a file with the published size and checksum."""
    size = path.stat().st_size
    if link.size is not None and size != link.size:
        return Verdict(False, f"{size:,} bytes, published are {link.size:,}")
    source = f" ({link.checksum_source})" if link.checksum_source else ""
    if link.md5 and not link.sha256:
        sha256, md5 = digests(path, "sha256", "md5")
        if md5 != link.md5:
            return Verdict(False, f"MD5 {md5}, published is {link.md5}{source}")
        return Verdict(True, f"MD5 as published{source}; SHA-256 {sha256}")
    (sha256,) = digests(path, "sha256")
    wanted = link.sha256 or link.sha256_prefix
    if not wanted:
        return Verdict(None, f"no checksum is published to compare with; SHA-256 {sha256}")
    if not sha256.startswith(wanted):
        return Verdict(False, f"SHA-256 {sha256}, published is {wanted}{source}")
    part = "" if link.sha256 else f"begins with {wanted} "
    return Verdict(True, f"SHA-256 {part}as published{source}; SHA-256 {sha256}")


def human_size(size: int | None) -> str:
    """Bytes in words, or "-"."""
    if size is None:
        return "-"
    for unit, power in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= power:
            return f"{size / power:.1f} {unit}"
    return f"{size} B"


def describe(link: Link) -> Iterable[str]:
    """Lines that tell all about a link."""
    size = "not published" if link.size is None else f"{link.size:,} bytes ({human_size(link.size)})"
    source = f", from {link.checksum_source}" if link.checksum_source else ""
    cells = {
        "kind": f"{link.kind} ({KINDS[link.kind]})",
        "licence": link.licence,
        "url": link.url or "none that a program may use",
        "mirrors": " ".join(link.mirrors),
        "page": link.page,
        "file": link.file,
        "size": size if link.url else "",
        "checksum": f"{link.checksum}{source}" if link.url else "",
        "note": link.note,
    }
    yield link.name
    yield from (f"  {key:9} {value}" for key, value in cells.items() if value)


def _row(link: Link) -> tuple[str, ...]:
    has = next((word for word in ("sha256", "md5") if link.checksum.startswith(word)), "-")
    return link.name, link.kind, human_size(link.size), has, link.url or f"no file: see {link.page}", link.licence


def run_links(args: argparse.Namespace) -> int:
    """Print the links, or check a file; 1 if the file is not the published one."""
    links = find_links(args.names) if args.names else list(load_links().values())
    if args.check is not None:
        return _check(args.check, links if args.names else [])
    links = [link for link in links if args.kind in (None, link.kind)]
    if args.names:
        print("\n".join(line for link in links for line in describe(link)))
        return 0
    for *cells, url, licence in (("name", "kind", "size", "checksum", "url", "licence"), *map(_row, links)):
        print("".join(f"{cell:{width}}" for cell, width in zip(cells, (34, 13, 10, 10), strict=True)), url, licence)
    return 0


def _check(path: Path, links: Sequence[Link]) -> int:
    if len(links) != 1:
        raise light("errors").ConfigError(
            "--check needs the name of one link: unival data links NAME --check FILE (names: unival data links)"
        )
    verdict = check_file(path, links[0])
    answer = {True: f"is {links[0].name}: ", False: f"is not {links[0].name}: ", None: ""}[verdict.good]
    print(f"{path}: {answer}{verdict.text}")
    return 1 if verdict.good is False else 0
