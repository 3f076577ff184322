"""``unival data fetch``: downloads of the manifest's files that go on where they stopped and are checked at the end."""

from __future__ import annotations

import argparse
import fcntl
import http.client
import ipaddress
import json
import shutil
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from .light import light
from .links import BLOCK, Link, check_file, file_name, find_links, human_size

TIMEOUT = 60.0  # seconds without a byte
PARTIAL, OUT_OF_RANGE = 206, 416


class _Unreachable(Exception):
    """An address that does not give the file; the next one may."""


class _Interrupted(Exception):
    """A connection that ended before the file did."""


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to addresses that may be asked only: never from https to http, never to files."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme != "https" and not (req.type == "http" and urlsplit(newurl).scheme == "http"):
            raise URLError(f"redirects to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def run_fetch(args: argparse.Namespace) -> int:
    """Fetch the named files one after another."""
    links = find_links(args.names)
    if args.url is not None and len(links) != 1:
        raise light("errors").ConfigError("--url is the address of one file: name one link")
    for link in links:  # before the first of perhaps many gigabytes
        _addresses(link, args.url)
    for link in links:
        print(fetch(link, args.output, args.url, args.overwrite), flush=True)
    return 0


def fetch(link: Link, folder: Path, url: str | None = None, overwrite: bool = False) -> str:
    """Download a file, check it and give it its name; one line that tells what was done.

    A file that is there already is kept if it is the published one or nothing is published to compare it with.

    Args:
        link: what to fetch.
        folder: the file is written to ``folder / link.file``.
        url: an address to be used instead of the link's; http is allowed here.
        overwrite: whether a file that is there is replaced.

    Raises:
        ConfigError: the link has no address for programs, or the address may not be used.
        DataError: the file cannot be had, is not the published one, or does not fit on the disk.
    """
    addresses = _addresses(link, url)
    output = folder / (link.file or file_name(addresses[0]) or link.name)
    if output.exists() and not overwrite:
        return _keep(output, link)
    output.parent.mkdir(parents=True, exist_ok=True)
    part = _Part(output, link)
    reasons = []
    for address in addresses:
        try:
            part.download(address)
            break
        except _Unreachable as reason:
            reasons.append(str(reason))
    else:
        raise light("errors").DataError(
            f"{link.name}: {'; '.join(reasons)}; look at {link.page}, or give the address of a copy with --url"
        )
    verdict = check_file(part.path, link)
    if verdict.good is False:
        part.remove()
        raise light("errors").DataError(
            f"{link.name}: {address} gave {verdict.text}; nothing was kept: fetch it again, or look at {link.page}"
        )
    part.finish()
    return f"{output}: {human_size(output.stat().st_size)}; {verdict.text}"


def _keep(output: Path, link: Link) -> str:
    verdict = check_file(output, link)
    if verdict.good is False:
        raise light("errors").DataError(
            f"{output} exists and is not {link.name}: {verdict.text}; add --overwrite or choose another folder"
        )
    return f"{output}: is there already; {verdict.text}"


def _addresses(link: Link, url: str | None) -> Sequence[str]:
    """The addresses to try; raises ConfigError if there is none or one that may not be used."""
    if url is None and not link.url:
        raise light("errors").ConfigError(
            f"{link.name} has no address for programs: {link.note} ({link.page}); --url takes an address that you have"
        )
    addresses = [url] if url is not None else [link.url, *link.mirrors]
    for address in addresses:
        parts = urlsplit(address)
        if parts.scheme == "https" and parts.hostname:
            continue
        if not (parts.scheme == "http" and parts.hostname and (url is not None or _is_loopback(parts.hostname))):
            raise light("errors").ConfigError(f"{address}: only https addresses are fetched (http: with --url)")
    return addresses


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


@dataclass
class _State:
    """Where the bytes of a part came from, to go on with the same ones only."""

    url: str = ""
    validator: str = ""  # ETag or date of the file


class _Part:
    """The file ``.NAME.part`` and, in ``.NAME.part.json``, where its bytes came from."""

    def __init__(self, output: Path, link: Link) -> None:
        self.output, self.link = output, link
        self.path = output.with_name(f".{output.name}.part")
        self.note = self.path.with_name(f"{self.path.name}.json")

    def download(self, url: str) -> None:
        """Get all bytes; goes on after each interruption that came after new bytes.

        Raises:
            _Unreachable: the address does not give the file.
            DataError: interrupted without a new byte, or the file does not fit; what is there is kept.
        """
        while True:
            before = self.size
            try:
                return self._connect(url)
            except _Interrupted as reason:
                if self.size <= before:
                    raise light("errors").DataError(
                        f"{self.link.name}: {url}: {reason}; {human_size(self.size)} are kept: run the command again"
                    ) from None

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def finish(self) -> None:
        """Give the file its name."""
        self.path.replace(self.output)
        self.note.unlink(missing_ok=True)

    def remove(self) -> None:
        for path in (self.path, self.note):
            path.unlink(missing_ok=True)

    def _connect(self, url: str) -> None:
        state, start = self._state(), self.size
        headers = {"User-Agent": "unival-data-fetch", "Accept-Encoding": "identity"}
        if start and state.url == url and state.validator:
            headers |= {"Range": f"bytes={start}-", "If-Range": state.validator}
        else:
            start = 0
        try:
            with self._open(url, headers) as response:
                self._receive(response, url, start)
        except HTTPError as error:
            error.close()
            if error.code == OUT_OF_RANGE and start:
                if _range_total(error.headers) == start:
                    return None  # all bytes were there already
                self.remove()
                return self._connect(url)
            raise _Unreachable(f"{url}: HTTP {error.code} {error.reason}") from None
        except URLError as error:
            raise _Unreachable(f"{url}: {error.reason}") from None
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "filename", None) is not None:
                raise  # the disk, not the network
            raise _Interrupted(str(error) or type(error).__name__) from None

    @staticmethod
    def _open(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        opener = urllib.request.build_opener(_SafeRedirects)
        response: http.client.HTTPResponse = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
        return response

    def _receive(self, response: http.client.HTTPResponse, url: str, start: int) -> None:
        from tqdm import tqdm

        if response.status != PARTIAL:
            start = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise _Unreachable(f"{url}: gives another part of the file than it was asked for")
        total = self._total(response, url, start)
        self._reserve(total, start)
        bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=self.link.name, disable=None)
        with self.path.open("ab") as handle, bar:
            self._lock(handle)
            handle.truncate(start)
            if not start:
                state = _State(url, _validator(response.headers))
                self.note.write_text(json.dumps(asdict(state)), encoding="utf-8")
            while block := response.read(BLOCK):
                handle.write(block)
                bar.update(len(block))
        if total is not None and self.size < total:
            raise _Interrupted(f"the connection ended after {self.size:,} of {total:,} bytes")

    def _lock(self, handle: IO[bytes]) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise light("errors").DataError(
                f"{self.output}: another process fetches it just now; wait for it or end it"
            ) from None

    def _total(self, response: http.client.HTTPResponse, url: str, start: int) -> int | None:
        """Bytes of the whole file, as the server says."""
        if response.headers.get_content_type() == "text/html" and not self.output.suffix.startswith(".htm"):
            raise _Unreachable(f"{url}: gives a web page instead of the file")
        length = response.headers.get("Content-Length")
        total = start + int(length) if length is not None and length.isdigit() else None
        if None not in (total, self.link.size) and total != self.link.size:
            raise _Unreachable(f"{url}: has {total:,} bytes, published are {self.link.size:,}")
        return total

    def _reserve(self, total: int | None, start: int) -> None:
        free = shutil.disk_usage(self.path.parent).free
        if total is not None and total - start > free:
            raise light("errors").DataError(
                f"{self.link.name}: {human_size(total - start)} are to come, {self.path.parent} has room for "
                f"{human_size(free)}; choose another folder with --output"
            )

    def _state(self) -> _State:
        with suppress(OSError, ValueError, TypeError):
            return _State(**json.loads(self.note.read_text(encoding="utf-8")))
        return _State()


def _range_total(headers: Message) -> int | None:
    """Bytes of the whole file in the answer to a range that does not exist (``bytes */N``)."""
    total = headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdigit() else None


def _validator(headers: Message) -> str:
    """What makes sure that a later part is of the same file: a strong ETag, or the date of the file."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")
