"""datasets.md, and the addresses in all documents, say what the tools and the manifest of links say."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pytest

from unival_cli.links import load_links
from unival_cli.main import build_parser

ROOT = Path(__file__).resolve().parents[1]
DATASETS = ROOT / "datasets.md"
CHECKPOINTS = ROOT / "checkpoints.md"
SOURCES = ("unival_plugin", "unival_cli", "dataset_tools", "preprocess", "run_scripts", "benchmarks")
DOCUMENTS = [ROOT / "README.md", CHECKPOINTS, DATASETS, *sorted((ROOT / "docs").glob("*.md"))]

BEGIN, END = "<!-- made by: python dataset_tools/build.py --markdown -->\n", "<!-- end -->"
ADDRESS = re.compile(r"https?://[^\s)>\"'`|]+[^\s)>\"'`|.,;:]")
BROWSER_ONLY = {"drive.google.com", "mega.nz", "data.mendeley.com"}
SOURCE_HOSTS = {"github.com", "raw.githubusercontent.com"}  # of programs too: only what they release is data
PAGES = {"", ".html", ".htm", ".md", ".py", ".sh", ".org", ".pdf"}


def unnamed(text: str) -> list[str]:
    """Addresses of data in a text that are neither in the manifest nor the folder of a file there."""
    named = {address for link in load_links().values() for address in (link.url, link.page, *link.mirrors) if address}
    found = {address for address in ADDRESS.findall(text) if is_data(address)} - named
    return sorted(a for a in found if not (a.endswith("/") and any(address.startswith(a) for address in named)))


def is_data(address: str) -> bool:
    """Whether an address leads to data or weights: to a file that is no page, or to a host that has such files."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    if host.endswith(".example"):
        return False
    if host in SOURCE_HOSTS:
        return "/releases/download/" in parts.path or "/raw/" in parts.path or host != "github.com"
    hosts = {urlsplit(link.url).hostname for link in load_links().values()} - SOURCE_HOSTS
    is_file = PurePosixPath(parts.path).suffix.lower() not in PAGES and "arxiv.org" not in host
    return is_file or host in hosts | BROWSER_ONLY


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_addresses_of_data_are_in_the_manifest(document: Path) -> None:
    assert unnamed(document.read_text()) == []


@pytest.mark.parametrize("folder", SOURCES)
def test_programs_name_no_other_addresses(folder: str) -> None:
    files = [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".sh", ".md")]
    assert files and [address for path in files for address in unnamed(path.read_text())] == []


@pytest.mark.parametrize(
    "address, data",
    [
        ("https://arxiv.org/abs/2307.16184", False),
        ("https://github.com/openai/CLIP", False),
        ("https://docs.pytorch.org/docs/stable/distributed.html", False),
        ("https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/a.pth", True),
        ("https://example.org/weights.pt", True),
        ("https://zenodo.org/record/1", True),
        ("https://drive.google.com/drive/folders/1", True),
    ],
)
def test_what_counts_as_data(address: str, data: bool) -> None:
    assert is_data(address) == data


@pytest.mark.parametrize("document", [CHECKPOINTS, DATASETS], ids=lambda path: path.name)
def test_names_that_are_fetched_exist(document: Path) -> None:
    lines = re.findall(r"unival data (?:fetch|links) ([^`#]+)", document.read_text())
    names = {word for line in lines for word in line.split("--")[0].split() if re.fullmatch(r"[a-z0-9-]+", word)}
    assert names and names - {"lists"} <= set(load_links())


def test_every_checkpoint_and_its_checksum_are_in_the_document() -> None:
    text = CHECKPOINTS.read_text()
    needed = {link.name: link for link in load_links().values() if link.kind in ("checkpoint", "trunk", "weights")}
    assert [name for name in needed if f"`{name}`" not in text and f" {name}" not in text] == ["unival-bart-base"]
    digits = [link.sha256 or link.md5 or link.sha256_prefix for link in needed.values()]
    assert [digit for digit in digits if digit and f"`{digit}`" not in text] == []


# ---- public data sets


def generated(text: str) -> str:
    return text.split(BEGIN)[1].split(END)[0]


def test_public_data_sets_are_described_as_the_tool_does() -> None:
    command = [sys.executable, str(ROOT / "dataset_tools" / "build.py"), "--markdown"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert generated(DATASETS.read_text()).strip() == said.strip(), (
        "put the output of python dataset_tools/build.py --markdown between the two marks of datasets.md"
    )


def test_links_of_the_builders_are_in_the_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "dataset_tools"))
    from public import BUILDERS

    missing = {name for builder in BUILDERS.values() for name in builder.links} - set(load_links())
    assert sorted(missing) == []
    assert [builder.name for builder in BUILDERS.values() if not builder.links] == []


# ---- tools


def subcommands(parser: argparse.ArgumentParser) -> list[str]:
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return list(found[0].choices)


def data_commands() -> list[str]:
    parsers = next(action for action in build_parser("data")._actions if isinstance(action, argparse._SubParsersAction))
    return subcommands(parsers.choices["data"])


def tools() -> str:
    return DATASETS.read_text().split("\n## Tools\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("name", data_commands())
def test_every_data_command_is_in_the_table_of_tools(name: str) -> None:
    assert f"| `unival data {name} " in tools()


def test_every_tool_of_the_folder_is_in_the_table() -> None:
    runnable = [
        path.name for path in (ROOT / "dataset_tools").glob("*.py") if '__name__ == "__main__"' in path.read_text()
    ]
    assert runnable and [name for name in runnable if f"dataset_tools/{name}" not in tools()] == []


def test_own_pictures_are_packed_as_in_the_readme() -> None:
    blocks = []
    for path in (ROOT / "README.md", DATASETS):
        section = path.read_text().split("## Your own pictures, in four commands")[1]
        blocks.append(re.search(r"```bash\n(.*?)```", section, re.DOTALL))
    assert blocks[0] and blocks[1] and blocks[0][1] == blocks[1][1]
