"""What the documents say about files, flags and sizes is true."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import re
import shlex
import subprocess
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest
import torch
from fairseq import options
from fairseq.registry import REGISTRIES

import unival_plugin  # noqa: F401  registers tasks, models and criterions
from unival_cli.main import COMMANDS, build_parser
from unival_plugin.compat import commands
from unival_plugin.unival.model.config import SCRIPT_FLAGS, from_preset
from unival_plugin.unival.model.network import UnIVALNetwork
from unival_plugin.unival.model.registration import UnIVALModelConfig

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "unival_plugin"
DOCUMENTS = [ROOT / "README.md", ROOT / "checkpoints.md", ROOT / "datasets.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_FLAGS = [
    ROOT / "checkpoints.md",
    *(ROOT / "docs" / name for name in ("model.md", "tasks.md", "merging.md", "pretraining.md", "pictures.md")),
    *(ROOT / "docs" / name for name in ("resume.md", "running.md", "memory.md", "troubleshooting.md")),
]
OTHERS_FLAGS = {
    "torchrun": {"standalone", "nnodes", "node-rank", "nproc-per-node", "no-python", "master-addr", "master-port"},
    "pip": {"no-build-isolation"},
    "Slurm": {"requeue"},
    "Hydra": {"config-dir", "config-name"},
    "benchmarks and scripts": {"device", "help", "medium", "threads", "variants"},
}
"""Flags of programs that are not ours, or that test_doc_commands.py checks where they are used."""
VOCABULARY = 59457

NOT_OURS = {
    *("train.py", "evaluate.py", "average_save_models.py", "preprocess/compress.py"),
    *("run_scripts/image_gen/generate_code.py", "job.sh"),
}
"""Files of the original, and one that the reader writes."""

LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
ANCHOR = re.compile(r"\]\(([^)#\s:]*)#([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
FLAG = re.compile(r"(?<![\w-])--([a-z][\w-]*)")
SOURCE_FILE = re.compile(r"^[\w./-]+\.(py|sh|md|toml)$")
TABLE_OF_FILES = re.compile(r"^\| file in `([^`]+)`")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(params=DOCUMENTS, ids=name_of)
def document(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


# ---- files


def test_relative_links_lead_to_files(document: Path) -> None:
    targets = [target for target in LINK.findall(document.read_text()) if "://" not in target]
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_links_to_headings_lead_to_headings(document: Path) -> None:
    lost = [
        f"{target}#{anchor}"
        for target, anchor in ANCHOR.findall(document.read_text())
        if (target.endswith(".md") or not target)
        and anchor not in anchors((document.parent / target) if target else document)
    ]
    assert lost == []


def anchors(path: Path) -> set[str]:
    """Names of the headings, as pages show them: lower case, blanks as hyphens, no other signs."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_files_and_folders_that_are_named_exist(document: Path) -> None:
    named = [(name, bases) for name, bases in named_files(document.read_text()) if name not in NOT_OURS]
    assert [name for name, bases in named if not exists(name, bases)] == []


def named_files(text: str) -> Iterator[tuple[str, list[Path]]]:
    """Names that stand for our own files, with the folders that they may lie in."""
    bases = [ROOT, PACKAGE]
    extra: list[Path] = []
    for line in text.splitlines():
        if table := TABLE_OF_FILES.match(line):
            extra = [PACKAGE / table[1]]
        elif not line.startswith("|"):
            extra = []
        for code in CODE.findall(line):
            for word in code.split():
                if SOURCE_FILE.match(word) or is_ours(word):
                    yield word, bases + extra
        for word in re.findall(r"\brun_scripts/[\w/.-]*\w", line):
            yield word, bases


def is_ours(word: str) -> bool:
    """Whether a name begins with a folder of the repository or the package."""
    first, slash, rest = word.partition("/")
    return bool(slash) and re.fullmatch(r"[\w./-]*", rest) is not None and exists(f"{first}/", [ROOT, PACKAGE])


def exists(name: str, bases: list[Path]) -> bool:
    if "/" not in name:  # a bare name may lie anywhere in the package or be a document
        return any((base / name).exists() for base in bases) or any(PACKAGE.rglob(name))
    return any((base / name).is_dir() if name.endswith("/") else (base / name).exists() for base in bases)


# ---- flags


@functools.lru_cache
def known_flags() -> dict[str, set[str]]:
    """Flags by command."""
    fairseq_commands = {
        "fairseq-train": options.get_training_parser,
        "fairseq-validate": options.get_validation_parser,
        "fairseq-generate": options.get_generation_parser,
    }
    known = {name: flags_of(make("caption")) | registered_flags() for name, make in fairseq_commands.items()}
    known["fairseq-train"] |= fields_of(UnIVALModelConfig)
    for name in COMMANDS:
        chosen = next(
            action.choices[name]
            for action in build_parser(name)._actions
            if isinstance(action, argparse._SubParsersAction)
        )
        known[f"unival {name}"] = flags_of(chosen)
    return known


def flags_of(parser: argparse.ArgumentParser) -> set[str]:
    """Flags of a parser and of its subcommands."""
    own = {flag[2:] for action in parser._actions for flag in action.option_strings if flag.startswith("--")}
    nested = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return own.union(*(flags_of(chosen) for choices in nested for chosen in choices.values()))


def fields_of(dataclass: type) -> set[str]:
    return {field.name.replace("_", "-") for field in dataclasses.fields(dataclass)}


def registered_flags() -> set[str]:
    """Flags of our tasks and of whatever criterion, optimizer and schedule may be chosen."""
    from fairseq.tasks import TASK_DATACLASS_REGISTRY

    chosen = [dataclass for name, dataclass in TASK_DATACLASS_REGISTRY.items() if commands.is_ours(name)]
    for registry in REGISTRIES.values():
        chosen += registry["dataclass_registry"].values()
    return set().union(*(fields_of(dataclass) for dataclass in chosen if dataclass is not None))


def commands_of(text: str) -> Iterator[list[str]]:
    """Words of the commands in a document's blocks, without comments."""
    for block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            words = list(takewhile(lambda word: word != "#", shlex.split(line)))
            if words:
                yield words


def command_name(words: list[str]) -> str:
    return " ".join(words[:2]) if words[0] == "unival" else words[0]


@pytest.mark.parametrize("path", WITH_FLAGS, ids=name_of)
def test_flags_that_are_explained_exist(path: Path) -> None:
    known = set().union(*known_flags().values(), *OTHERS_FLAGS.values())
    text = re.sub(r"\(http[^)]*\)|^#SBATCH.*$", "", path.read_text(), flags=re.MULTILINE)
    found = set(FLAG.findall(text))
    wildcards = {flag for flag in found if flag.endswith("-")}  # as in --use-…
    assert sorted(found - wildcards - known) == []
    assert all(any(flag.startswith(start) for flag in known) for start in wildcards)


@pytest.mark.parametrize("path", [ROOT / "checkpoints.md", ROOT / "datasets.md"], ids=name_of)
def test_commands_know_the_flags_that_they_are_given(path: Path) -> None:
    unknown = [
        (command_name(words), flag)
        for words in commands_of(path.read_text())
        if command_name(words) in known_flags()
        for flag in FLAG.findall(" ".join(words))
        if flag not in known_flags()[command_name(words)]
    ]
    assert unknown == []


def test_unival_commands_can_be_parsed() -> None:
    lines = [words for words in commands_of((ROOT / "checkpoints.md").read_text()) if words[0] == "unival"]
    assert {words[1] for words in lines} >= {"inspect", "predict", "convert"}
    for words in lines:
        build_parser(words[1]).parse_args(words[1:])


def test_settings_given_to_scripts_are_explained_by_their_help() -> None:
    for words in commands_of((ROOT / "checkpoints.md").read_text()):
        if words[0] == "bash":
            command = ["bash", str(ROOT / words[1]), "--help"]
            explained = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            assert [word for word in words[2:] if not re.search(rf"\b{word.split('=')[0]}\b", explained)] == []


# ---- sizes


def configurations() -> Iterator[tuple[str, dict[str, str], int, int]]:
    """Rows of the table of configurations: name, flags, parameters, entries."""
    for line in (ROOT / "checkpoints.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and re.fullmatch(r"[\d,]{9,}", cells[2]):
            words = cells[1].strip("`").split()
            flags = dict(zip(words[::2], words[1::2], strict=True))
            given = {flag.removeprefix("--").replace("-", "_"): value for flag, value in flags.items()}
            yield cells[0], given, int(cells[2].replace(",", "")), int(cells[3])


def test_four_configurations_have_a_size() -> None:
    assert len(list(configurations())) == 4


@pytest.mark.parametrize("name, flags, parameters, entries", configurations())
def test_networks_have_the_stated_sizes(name: str, flags: dict[str, str], parameters: int, entries: int) -> None:
    values = {key: int(value) if value.isdigit() else value for key, value in flags.items()}
    arch = str(values.pop("arch", "unival_base"))
    with torch.device("meta"):
        network = UnIVALNetwork(from_preset(arch, {**SCRIPT_FLAGS, **values}), VOCABULARY)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert len(network.state_dict()) == entries


def test_flags_that_all_released_models_share_are_the_scripts() -> None:
    text = (ROOT / "checkpoints.md").read_text()
    sentence = re.search(r"All released models are (.*?), and differ", text, re.DOTALL)
    assert sentence
    flags = {flag.replace("-", "_") for flag in FLAG.findall(sentence[1])}
    assert flags == {"arch", *SCRIPT_FLAGS}
