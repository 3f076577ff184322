"""The manifest of addresses, and downloads from it; the server is this process, nothing leaves the machine."""

from __future__ import annotations

import fcntl
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request

import pytest

from unival_cli import links, links_fetch
from unival_cli.links import KINDS, Link, load_links
from unival_cli.links_fetch import fetch
from unival_cli.main import main
from unival_plugin.errors import ConfigError, DataError

CONTENT = bytes(range(256)) * 1200  # 307,200 bytes
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


@dataclass
class Server:
    """A server of one file, and how it behaves."""

    url: str = ""
    content: bytes = CONTENT
    ranges: bool = True
    etag: str = '"one"'
    status: int = 200
    kind: str = "application/octet-stream"
    cuts: list[int] = field(default_factory=list)  # bytes after which the next connections end
    redirect: str = ""
    shift: int = 0  # bytes between what is asked for and what is given
    asked: list[str] = field(default_factory=list)  # ranges of the requests


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.headers.get("Range", ""))
            if state.redirect and self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", state.redirect)
                self.end_headers()
                return
            if state.status != 200:
                self.send_error(state.status)
                return
            start = self._start()
            if start and start >= len(state.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(state.content)}")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Type", state.kind)
            self.send_header("ETag", state.etag)
            if start:
                self.send_header("Content-Range", f"bytes {start + state.shift}-/{len(state.content)}")
            self.send_header("Content-Length", str(len(state.content) - start))
            self.end_headers()
            body = state.content[start:]
            self.wfile.write(body[: state.cuts.pop(0)] if state.cuts else body)

        def _start(self) -> int:
            fits = state.ranges and self.headers.get("If-Range") == state.etag
            return int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) if fits else 0

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "*")
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{http.server_address[1]}/file.bin"
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def link(server: Server) -> Link:
    return Link("made", "trunk", server.url, file="file.bin", sha256=SHA256, page="https://example.org/page")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- downloads


def test_a_file_is_downloaded_and_checked(link: Link, tmp_path: Path) -> None:
    said = fetch(link, tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder" / "file.bin").read_bytes() == CONTENT
    assert names_in(tmp_path / "new" / "folder") == ["file.bin"]
    assert "SHA-256 as published" in said and "307.2 kB" in said


def test_md5_size_and_first_digits_are_checked(link: Link, tmp_path: Path) -> None:
    assert "MD5 as published (Zenodo)" in fetch(
        replace(link, sha256="", md5=MD5, checksum_source="Zenodo", size=len(CONTENT)), tmp_path / "md5"
    )
    assert f"begins with {SHA256[:8]}" in fetch(replace(link, sha256="", sha256_prefix=SHA256[:8]), tmp_path / "prefix")


def test_a_file_without_published_checksum_is_kept_and_its_own_is_told(link: Link, tmp_path: Path) -> None:
    said = fetch(replace(link, sha256=""), tmp_path)
    assert "no checksum is published" in said and SHA256 in said
    assert (tmp_path / "file.bin").exists()


@pytest.mark.parametrize("wrong", [{"sha256": "0" * 64}, {"sha256": "", "md5": "0" * 32}, {"sha256_prefix": "0" * 8}])
def test_a_file_with_a_wrong_checksum_is_removed(link: Link, tmp_path: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(DataError, match=r"made: http://.*published is 0+.*nothing was kept.*example\.org"):
        fetch(replace(link, **({"sha256": ""} | wrong)), tmp_path)
    assert names_in(tmp_path) == []


def test_a_file_of_another_size_is_refused_before_it_is_downloaded(link: Link, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 307,200 bytes, published are 5"):
        fetch(replace(link, size=5), tmp_path)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("status", [403, 404, 500])
def test_an_address_that_fails_is_named_with_the_page_of_its_owner(
    link: Link, server: Server, tmp_path: Path, status: int
) -> None:
    server.status = status
    with pytest.raises(DataError, match=rf"made: http://.*HTTP {status}.*example\.org/page.*--url"):
        fetch(link, tmp_path)
    assert names_in(tmp_path) == []


def test_the_next_mirror_is_tried(link: Link, server: Server, tmp_path: Path) -> None:
    closed = "http://127.0.0.1:9/file.bin"
    fetch(replace(link, url=closed, mirrors=(server.url,)), tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_web_page_is_not_taken_for_the_file(link: Link, server: Server, tmp_path: Path) -> None:
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(DataError, match="gives a web page instead of the file"):
        fetch(replace(link, sha256=""), tmp_path)


# ---- interruptions


def test_an_interrupted_download_goes_on_at_once(link: Link, server: Server, tmp_path: Path) -> None:
    server.cuts = [1000, 2000]
    fetch(link, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.asked == ["", "bytes=1000-", "bytes=3000-"]


def test_a_download_that_gets_no_new_bytes_stops_and_the_next_one_goes_on(
    link: Link, server: Server, tmp_path: Path
) -> None:
    server.cuts = [1000, 0]
    with pytest.raises(DataError, match=r"ended after 1,000 of 307,200 bytes; 1.0 kB are kept: run the command again"):
        fetch(link, tmp_path)
    assert names_in(tmp_path) == [".file.bin.part", ".file.bin.part.json"]
    fetch(link, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=1000-"


def test_a_file_that_changed_meanwhile_is_started_anew(link: Link, server: Server, tmp_path: Path) -> None:
    server.cuts = [1000, 0]
    with pytest.raises(DataError):
        fetch(link, tmp_path)
    server.content, server.etag = CONTENT[::-1], '"two"'
    fetch(replace(link, sha256=hashlib.sha256(server.content).hexdigest()), tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == server.content


def test_a_server_without_ranges_starts_anew_and_does_not_loop(link: Link, server: Server, tmp_path: Path) -> None:
    server.ranges, server.cuts = False, [1000, 500]
    with pytest.raises(DataError, match="run the command again"):
        fetch(link, tmp_path)
    fetch(link, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_another_part_than_the_one_that_is_missing_is_refused(link: Link, server: Server, tmp_path: Path) -> None:
    server.cuts, server.shift = [1000], 5
    with pytest.raises(DataError, match="another part of the file"):
        fetch(link, tmp_path)


def test_two_downloads_of_a_file_do_not_mix(link: Link, tmp_path: Path) -> None:
    with (tmp_path / ".file.bin.part").open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process fetches it"):
            fetch(link, tmp_path)


def test_a_download_that_was_complete_but_not_checked_is_only_checked(
    link: Link, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(links_fetch, "check_file", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fetch(link, tmp_path)
    fetch(link, tmp_path)
    assert server.asked[-1] == f"bytes={len(CONTENT)}-"
    assert names_in(tmp_path) == ["file.bin"]


def test_a_file_too_large_for_the_disk_is_refused(link: Link, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links_fetch.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(DataError, match=r"307.2 kB are to come, .* has room for 1.0 kB"):
        fetch(link, tmp_path)


# ---- files that are there


def test_the_published_file_is_not_downloaded_again(link: Link, server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(CONTENT)
    assert "is there already; SHA-256 as published" in fetch(link, tmp_path)
    assert server.asked == []


def test_another_file_of_the_same_name_is_kept_unless_told_otherwise(link: Link, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(b"mine")
    with pytest.raises(DataError, match="exists and is not made.*--overwrite"):
        fetch(link, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == b"mine"
    fetch(link, tmp_path, overwrite=True)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


# ---- addresses


def test_only_https_is_fetched_unless_the_user_gives_the_address(link: Link, tmp_path: Path) -> None:
    for address in ("http://example.org/file.bin", "file:///etc/hostname", "ftp://example.org/file.bin"):
        with pytest.raises(ConfigError, match="only https"):
            fetch(replace(link, url=address), tmp_path)
    with pytest.raises(ConfigError, match="only https"):
        fetch(link, tmp_path, url="file:///etc/hostname")


def test_a_mirror_that_the_user_gives_is_used_instead(link: Link, server: Server, tmp_path: Path) -> None:
    fetch(replace(link, url="https://127.0.0.1:9/gone"), tmp_path, url=server.url)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_mirror_serves_links_that_have_no_address(link: Link, server: Server, tmp_path: Path) -> None:
    fetch(replace(link, url="", file=""), tmp_path, url=server.url)
    assert names_in(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/file.bin"])
def test_redirects_to_other_protocols_are_refused(link: Link, server: Server, tmp_path: Path, target: str) -> None:
    server.redirect = target
    with pytest.raises(DataError, match="edirect"):
        fetch(replace(link, url=server.url.replace("file.bin", "moved")), tmp_path)


def test_redirects_from_https_to_http_are_refused() -> None:
    request = Request("https://example.org/file.bin")
    with pytest.raises(URLError, match="which is not https"):
        links_fetch._SafeRedirects().redirect_request(request, BytesIO(), 302, "", {}, "http://example.org/file.bin")


def test_redirects_are_followed(link: Link, server: Server, tmp_path: Path) -> None:
    server.redirect = server.url
    fetch(replace(link, url=server.url.replace("file.bin", "moved")), tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


# ---- the commands


@pytest.fixture
def manifest(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "links.json"
    page = {"page": "https://example.org", "licence": "MIT"}
    entries = {
        "made-file": {"kind": "trunk", "url": server.url, "sha256": SHA256, **page},
        "made-form": {"kind": "pictures", "note": "fill in the form", **page},
    }
    path.write_text(json.dumps(entries))
    made = load_links(path)
    monkeypatch.setattr(links, "load_links", lambda: made)


@pytest.mark.usefixtures("manifest")
class TestCommands:
    def test_links_prints_a_line_each(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["data", "links"]) == 0
        head, *lines = capsys.readouterr().out.splitlines()
        assert head.split() == ["name", "kind", "size", "checksum", "url", "licence"]
        assert [line.split()[0] for line in lines] == ["made-file", "made-form"]
        assert main(["data", "links", "--kind", "pictures"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 2

    def test_links_tells_all_about_a_name(self, capsys: pytest.CaptureFixture[str], server: Server) -> None:
        assert main(["data", "links", "made-file"]) == 0
        out = capsys.readouterr().out
        assert all(text in out for text in ("trunk", "MIT", server.url, SHA256, "https://example.org", "not published"))

    def test_an_unknown_name_gets_the_names_that_are_like_it(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["data", "links", "made-fil"]) == 2
        assert "did you mean made-file" in capsys.readouterr().err

    def test_a_file_at_hand_is_checked(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        good, bad = tmp_path / "good", tmp_path / "bad"
        good.write_bytes(CONTENT)
        bad.write_bytes(CONTENT[:-1])
        assert main(["data", "links", "made-file", "--check", str(good)]) == 0
        assert main(["data", "links", "made-file", "--check", str(bad)]) == 1
        out = capsys.readouterr().out.splitlines()
        assert "is made-file: SHA-256 as published" in out[0] and "is not made-file" in out[1]
        assert main(["data", "links", "--check", str(good)]) == 2
        assert "--check needs the name of one link" in capsys.readouterr().err

    def test_fetch_writes_the_files(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["data", "fetch", "made-file", "--output", str(tmp_path / "out")]) == 0
        assert names_in(tmp_path / "out") == ["file.bin"]
        assert str(tmp_path / "out" / "file.bin") in capsys.readouterr().out

    def test_what_needs_a_form_is_explained_before_anything_is_downloaded(
        self, tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["data", "fetch", "made-file", "made-form", "--output", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert "fill in the form" in error and "https://example.org" in error and error.count("\n") == 1
        assert server.asked == []

    def test_an_address_is_for_one_link(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        command = ["data", "fetch", "made-file", "made-form", "--url", "http://localhost/", "--output", str(tmp_path)]
        assert main(command) == 2
        assert "--url is the address of one file" in capsys.readouterr().err


# ---- the manifest itself


@pytest.mark.parametrize("link", load_links().values(), ids=lambda link: link.name)
def test_entries_are_well_formed(link: Link) -> None:
    assert all(part.isalnum() and part.islower() or part.isdigit() for part in link.name.split("-"))
    assert link.kind in KINDS
    assert link.licence
    assert link.page.startswith("http")
    assert all(url.startswith("https://") for url in (*filter(None, [link.url]), *link.mirrors))
    assert link.url or link.note, "an entry without a file says how to get it"
    assert not link.url or link.file
    assert not Path(link.file).is_absolute() and ".." not in Path(link.file).parts
    for digits, length in ((link.sha256, (64,)), (link.md5, (32,)), (link.sha256_prefix, (8,))):
        assert not digits or (len(digits) in length and set(digits) <= set("0123456789abcdef"))
    assert bool(link.checksum_source) == (link.checksum != "none published"), "a checksum has a source"


def test_no_file_is_named_twice() -> None:
    urls = [url for link in load_links().values() for url in (link.url, *link.mirrors) if url]
    assert len(urls) == len(set(urls))


def test_first_digits_are_those_of_the_file_name() -> None:
    prefixed = [link for link in load_links().values() if link.sha256_prefix]
    assert prefixed and all(link.sha256_prefix in link.file for link in prefixed)


def test_the_manifest_is_packed_with_the_command() -> None:
    setup = (Path(__file__).resolve().parents[2] / "setup.py").read_text()
    assert '"unival_cli": ["links.json"]' in setup
