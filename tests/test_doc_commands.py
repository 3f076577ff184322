"""Every command in the documents is one that works: parsed by the real parser, or run dry.

Commands stand in fenced bash blocks, in indented lines and in inline code, tables included. In them

* `…` alone stands for further arguments, so required ones may be missing, as in inline code; at the end of a word it
  means several such words, in a word any value;
* a word in capitals is a placeholder: where the parser wants a number, or one of a list, one is put there;
* `NAME=value` in front is an environment variable; `a | b` and `a && b` are two commands.

A command that no rule covers fails.
"""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from document_commands import Block, Command, blocks_of, commands_of, read
from document_rules import check
from fairseq.dataclass.configs import FairseqConfig
from fairseq.models import ARCH_MODEL_NAME_REGISTRY, MODEL_DATACLASS_REGISTRY
from fairseq.registry import REGISTRIES
from fairseq.tasks import TASK_DATACLASS_REGISTRY
from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    *(
        ROOT / name
        for name in ("README.md", "datasets.md", "checkpoints.md", "CONTRIBUTING.md", "benchmarks/README.md")
    ),
    *sorted((ROOT / "docs").glob("*.md")),
]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def all_commands() -> list[Command]:
    found = [command for path in DOCUMENTS for command in commands_of(path, name_of(path))]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize(
    "command", all_commands(), ids=lambda command: f"{command.where} {' '.join(command.words[:3])}"
)
def test_a_command_of_the_documents_works(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    check(command)


def test_the_job_for_slurm_starts_a_process_for_each_gpu_of_its_node(tmp_path: Path) -> None:
    path = ROOT / "docs" / "running.md"
    (job,) = (command for command in commands_of(path, "running") if command.words[0] == "srun")
    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/sh\necho first\necho second\n")
    scontrol.chmod(0o755)
    slurm = {"SLURM_NNODES": "2", "SLURM_NODEID": "1", "SLURM_JOB_NODELIST": "nodes"}
    gpus = {"CUDA_VISIBLE_DEVICES": "0,1,2", "DRY_RUN": "1", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment = {**os.environ, **slurm, **gpus}
    done = subprocess.run(job.words[1:], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60)
    launched = "torchrun --nnodes 2 --node-rank 1 --master-port 29500 --master-addr first --nproc-per-node 3"
    assert done.stdout.startswith(launched), done.stderr
    assert "--fp16" in done.stdout and "--save-interval-updates 1000" in done.stdout


# ---- other blocks


def blocks(language: str) -> list[tuple[str, Block]]:
    return [(name_of(p), b) for p in DOCUMENTS for b in blocks_of(p.read_text()) if b.language == language]


def test_all_blocks_are_of_known_languages() -> None:
    known = {"bash", "python", "yaml"}
    assert [(name_of(p), b.line) for p in DOCUMENTS for b in blocks_of(p.read_text()) if b.language not in known] == []


@pytest.mark.parametrize(("name", "block"), blocks("python"), ids=lambda value: value if isinstance(value, str) else "")
def test_python_can_be_parsed_and_its_imports_exist(name: str, block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.parametrize(("name", "block"), blocks("yaml"), ids=lambda value: value if isinstance(value, str) else "")
def test_options_in_yaml_exist_and_have_values_of_their_type(name: str, block: Block) -> None:
    known = OmegaConf.structured(FairseqConfig)
    for group, values in OmegaConf.create(block.text).items():
        if "_name" in values:
            OmegaConf.merge(OmegaConf.structured(dataclass_of(str(group), values.pop("_name"))), values)
        else:
            OmegaConf.merge(known[group], values)


def dataclass_of(group: str, name: str) -> Any:
    if group == "task":
        return TASK_DATACLASS_REGISTRY[name]
    if group == "model":
        return MODEL_DATACLASS_REGISTRY[ARCH_MODEL_NAME_REGISTRY.get(name, name)]
    return REGISTRIES[group]["dataclass_registry"][name]


# ---- the rules themselves


def wrong(line: str, whole: bool = True) -> bool:
    """Whether a command is refused."""
    (command,) = read(line, "here", whole)
    try:
        check(command)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize(
    "line",
    [
        "unival data pack --pictures photos --output train.tsv",
        "unival predict photo.jpg",
        "fairseq-train a.tsv --user-dir unival_plugin --task caption --arch unival_base --no-such-flag",
        "fairseq-generate a.tsv --task caption --path x.pt",
        "bash run_scripts/caption/no_such_script.sh",
        "bash run_scripts/caption/unival_caption_stage_1.sh NO_SUCH_SETTING=1",
        "bash run_scripts/caption/unival_caption_stage_1.sh EXTRA=--no-such-flag",
        "python dataset_tools/digits.py --no-such-flag",
        "pip install 'unival-plugin[no_such_extra]'",
        "torchrun --no-such-flag fairseq-train a.tsv --user-dir unival_plugin …",
        "fairseq-hydra-train --config-dir c --config-name d optimization.no_such_option=1",
        "rm -rf /",
    ],
)
def test_wrong_commands_are_noticed(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert wrong(line)


@pytest.mark.parametrize(
    "line",
    [
        "unival data shuffle IN OUT --copies K",
        "unival data validate FILE… --task TASK",
        "fairseq-train … --batch-size 4",
        "CUDA_VISIBLE_DEVICES= bash SCRIPT --help",
    ],
)
def test_placeholders_are_understood(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert not wrong(line)


def test_code_in_text_may_be_shorter() -> None:
    assert not wrong("unival predict --output", whole=False)
    assert wrong("unival predict --output")
