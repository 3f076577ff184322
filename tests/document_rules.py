"""What makes a command of the documents right, by program; see test_doc_commands.py."""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import io
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from document_commands import ASSIGNMENT, OPEN, PLACEHOLDER, Command, is_command, read
from fairseq import options
from fairseq.dataclass.configs import FairseqConfig
from omegaconf import OmegaConf
from torch.distributed.run import get_args_parser

import unival_plugin  # noqa: F401  registers tasks, models and criterions
from unival_cli.main import build_parser
from unival_plugin.compat import command_line
from unival_plugin.errors import UnivalError

ROOT = Path(__file__).resolve().parents[1]
NOT_DRY = re.compile(r"run_scripts/(setup|test|quickstart\w*)\.sh$")
"""Scripts that install and train: only their settings are checked."""
BUILD_TOOLS = {"torch", "torchvision", "numpy", "cython", "setuptools", "wheel"}
JOB = "job.sh"
"""A file that a document tells the reader to write."""


def check(command: Command) -> None:
    """Raises AssertionError for a command that would not work; the working folder must be the repository's."""
    if not command.words:
        return  # variables only: the reader's own
    program = command.words[0]
    rule = next((rule for start, rule in RULES.items() if re.fullmatch(start, program)), None)
    assert rule, f"{command.where}: no rule for {program}: {' '.join(command.words)}"
    rule(command)


# ---- argparse


def parsed(parser: argparse.ArgumentParser, words: list[str], whole: bool) -> argparse.Namespace:
    """What the parser makes of the words; an assertion with its own message if they are wrong."""
    if not whole:
        make_optional(parser, words)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            return parser.parse_args(filled_in(parser, words, whole))
    except SystemExit as end:
        assert end.code == 0, f"{' '.join(words)}: {errors.getvalue().strip().splitlines()[-1]}"
        return argparse.Namespace()  # --help, --version


def actions_of(parser: argparse.ArgumentParser, words: list[str]) -> Iterator[argparse.Action]:
    """Those of the parser and of the subcommands that the words name."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            name = next((word for word in words if word in action.choices), None)
            if name is not None:
                yield from actions_of(action.choices[name], words[words.index(name) + 1 :])


def make_optional(parser: argparse.ArgumentParser, words: list[str]) -> None:
    for action in actions_of(parser, words):
        action.required = False
        if not action.option_strings and action.nargs in (None, "+"):
            action.nargs = "*" if not isinstance(action, argparse._SubParsersAction) else action.nargs
    for group in getattr(parser, "_mutually_exclusive_groups", []):
        group.required = False


def filled_in(parser: argparse.ArgumentParser, words: list[str], whole: bool) -> list[str]:
    """The words with something usable in the place of placeholders, and of a last value that is left out."""
    takes = {flag: action for action in actions_of(parser, words) for flag in action.option_strings}
    if not whole and words and words[-1] in takes and takes[words[-1]].nargs != 0:
        words = [*words, "VALUE"]
    filled = []
    for before, word in zip(["", *words], words, strict=False):
        action = takes.get(before)
        if action is not None and (PLACEHOLDER.match(word) or OPEN in word):
            word = str(next(iter(action.choices))) if action.choices else ("1" if action.type in (int, float) else word)
        filled.append(word)
    return filled


# ---- our own command


def check_unival(command: Command) -> None:
    words = list(command.words[1:])
    found = parsed(build_parser(words[0]), words, command.whole)
    for evaluation in getattr(found, "evaluate", None) or []:  # NAME=COMMAND of unival merge
        for nested in read(str(evaluation).partition("=")[2].replace("{", "").replace("}", ""), command.where):
            check(nested)


# ---- fairseq's commands

PARSERS = {
    "fairseq-train": options.get_training_parser,
    "fairseq-validate": options.get_validation_parser,
    "fairseq-generate": options.get_generation_parser,
}
USUAL = {
    "--task": "caption",
    "--user-dir": "unival_plugin",
    "--arch": "unival_base",
    "--path": "checkpoint.pt",
}
"""What a command with `…` may leave out."""


def check_fairseq(command: Command) -> None:
    program, *words = command.words
    given = {word.split("=")[0] for word in words}
    if not command.whole:
        evaluates = program != "fairseq-train"
        usual = [(k, v) for k, v in USUAL.items() if k not in given and k != ("--arch" if evaluates else "--path")]
        words = [*([] if words and not words[0].startswith("-") else ["x.tsv"]), *words, *sum(usual, ())]
    assert "--user-dir" in {word.split("=")[0] for word in words}, f"{command.where}: without --user-dir"
    flags_are_known(program, tuple(words))


@functools.lru_cache
def flags_are_known(program: str, words: tuple[str, ...]) -> None:
    before, errors = dict(command_line), io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            options.parse_args_and_arch(PARSERS[program](), input_args=list(words))
    except SystemExit as end:
        raise AssertionError(f"{program} {' '.join(words)}: {errors.getvalue().strip().splitlines()[-1]}") from end
    except UnivalError as error:
        raise AssertionError(f"{program} {' '.join(words)}: {error}") from error
    finally:
        command_line.clear()
        command_line.update(before)


FIXED_GROUPS = {"common", "dataset", "optimization", "checkpoint", "distributed_training", "generation", "ema"}
"""Groups of options in YAML that are the same whatever task, model or criterion is chosen."""


def check_hydra(command: Command) -> None:
    words = [word for word in command.words[1:] if "=" in word]
    flags = [word for word in command.words[1:] if word.startswith("-")]
    assert set(flags) <= {"--config-dir", "--config-name"}
    known = OmegaConf.structured(FairseqConfig)
    for word in words:
        key = word.partition("=")[0].removeprefix("+")
        group, _, name = key.partition(".")
        assert group == "hydra" or group in known, f"{command.where}: {key}"
        assert group not in FIXED_GROUPS or name in known[group], f"{command.where}: {key}"


# ---- other programs


def check_bash(command: Command) -> None:
    script, *arguments = command.words[1:]
    if is_placeholder(script):
        return
    path = ROOT / script
    assert path.is_file(), f"{command.where}: {script} does not exist"
    assert all(ASSIGNMENT.match(word) or word in ("-h", "--help") for word in arguments), (
        f"{command.where}: {arguments}"
    )
    settings = [word.partition("=")[0] for word in (*command.variables, *arguments) if ASSIGNMENT.match(word)]
    assert [name for name in settings if not is_setting(name, script)] == [], command.where
    if not NOT_DRY.search(script):
        runs_dry(script, command.variables, tuple(arguments))


def is_placeholder(script: str) -> bool:
    """Whether a name stands for any script, as in ``benchmarks/FILE.py``."""
    return PLACEHOLDER.match(Path(script).stem) is not None


@functools.lru_cache
def words_of_script(script: str) -> set[str]:
    """All words of a script's help, and of what all scripts share."""
    done = subprocess.run(
        ["bash", str(ROOT / script), "--help"], capture_output=True, text=True, check=True, timeout=30
    )
    shared = (ROOT / "run_scripts" / "common.sh").read_text()
    return set(re.findall(r"\w+", done.stdout + shared))


def is_setting(name: str, script: str) -> bool:
    """Whether a script has a setting; of pretraining's sources its help tells the beginnings of names."""
    known = words_of_script(script)
    return name in known or any(name.endswith(end) and name.removesuffix(end) in known for end in ("_DATA", "_CNT"))


@functools.lru_cache
def runs_dry(script: str, variables: tuple[str, ...], arguments: tuple[str, ...]) -> None:
    given = dict(word.split("=", 1) for word in variables)
    command = ["bash", str(ROOT / script), *arguments]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **given, "DRY_RUN": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, f"{script} {' '.join(arguments)}: {done.stderr[-500:]}"
    for line in done.stdout.splitlines():
        started = re.sub(r"\S*/(fairseq-\w+|unival|torchrun)(?=\s)", r"\1", line)
        if is_command(started):
            for shown in read(started, f"{script} {' '.join(arguments)}"):
                check(shown)


class _Parsed(Exception):  # noqa: N818  no error: the arguments are right, and nothing more is wanted
    pass


def check_python(command: Command) -> None:
    words = list(command.words[1:])
    while words and words[0] == "-W":
        words = words[2:]
    if words[0] == "-c":
        ast.parse(words[1])
        return
    script, *arguments = words
    if is_placeholder(script):
        return
    assert (ROOT / script).is_file(), f"{command.where}: {script} does not exist"

    def stop(parser: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        with mock.patch.object(argparse.ArgumentParser, "parse_args", stock):
            parsed(parser, list(sys.argv[1:] if args is None else args), command.whole)
        raise _Parsed

    stock = argparse.ArgumentParser.parse_args
    path, modules = list(sys.path), set(sys.modules)
    try:
        with (
            mock.patch.object(argparse.ArgumentParser, "parse_args", stop),
            mock.patch.object(sys, "argv", [script, *arguments]),
            mock.patch.object(sys, "path", [str((ROOT / script).parent), *path]),
            pytest.raises(_Parsed),
        ):
            runpy.run_path(str(ROOT / script), run_name="__main__")
    finally:
        for name in set(sys.modules) - modules:  # what lies beside a script is no package that others may find
            if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == (ROOT / script).parent:
                del sys.modules[name]


def check_pip(command: Command) -> None:
    verb, *words = command.words[1:]
    if verb == "uninstall":
        assert set(words) <= {"-y", "fairseq", "fairseq-fixed"}
        return
    assert verb == "install"
    facts = setup_arguments()
    while words:
        word = words.pop(0)
        if word == "-c":
            assert (ROOT / words.pop(0)).is_file()
        elif word == "-e":
            assert words or not command.whole, command.where
            words = words[1:]
        elif not word.startswith("--"):
            package, _, extras = re.fullmatch(r"([^\[=]+)(\[(.*)\]|==.*)?", word).group(1, 2, 3)  # type: ignore[union-attr]
            ours = package in (".", facts["name"])
            known = [*facts["install_requires"], *sum(facts["extras_require"].values(), [])]
            named = {requirement.partition(";")[0].strip() for requirement in known}
            named |= {re.split("[<>=]", requirement)[0] for requirement in named}
            assert ours or package in BUILD_TOOLS or word in named, f"{command.where}: {word}"
            assert {extra for extra in (extras or "").split(",") if extra} <= set(facts["extras_require"]), word


@functools.lru_cache
def setup_arguments() -> dict[str, Any]:
    """What setup.py says."""
    with mock.patch("setuptools.setup") as setup:
        runpy.run_path(str(ROOT / "setup.py"))
    return dict(setup.call_args.kwargs)


def check_torchrun(command: Command) -> None:
    words = list(command.words[1:])
    first = next(i for i, word in enumerate(words) if word.startswith("fairseq-"))
    parser = get_args_parser()
    parsed(parser, [*words[:first], "fairseq-train"], whole=True)
    check(Command(tuple(words[first:]), (), command.where, command.whole))


def check_launched(command: Command) -> None:
    """srun COMMAND"""
    check(Command(command.words[1:], command.variables, command.where, command.whole))


def check_sbatch(command: Command) -> None:
    assert set(command.words[1:]) <= {"--requeue", JOB}


def check_anything(command: Command) -> None:
    """Programs of the system, with one argument or more."""
    assert len(command.words) > 1


RULES: dict[str, Callable[[Command], None]] = {
    "unival": check_unival,
    "fairseq-(train|validate|generate)": check_fairseq,
    "fairseq-hydra-train": check_hydra,
    "bash": check_bash,
    "python": check_python,
    "pip": check_pip,
    "torchrun": check_torchrun,
    "srun": check_launched,
    "sbatch": check_sbatch,
    "git|sha256sum|cat|cd|export": check_anything,
}
"""By the names of programs."""
