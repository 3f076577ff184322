"""The entry point: fast help, exit codes, one-line errors."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from unival_cli import main as entry

ROOT = Path(__file__).resolve().parents[2]


class FakeCommand:
    """A subcommand module whose ``run`` does what the test wants."""

    def __init__(self, action):
        self.action = action

    def add_arguments(self, parser):
        parser.add_argument("--twice", type=int, default=0)

    def run(self, args):
        return self.action(args)


@pytest.fixture
def command(monkeypatch):
    """Install ``action`` as the subcommand ``predict``."""

    def install(action):
        monkeypatch.setattr(entry.importlib, "import_module", lambda name: FakeCommand(action))

    return install


def raising(error):
    def action(args):
        raise error

    return action


@pytest.mark.parametrize(
    "argv", [["--help"], ["data", "--help"], ["data", "validate", "--help"], ["merge", "--help"], ["--version"]]
)
def test_help_imports_nothing_heavy(argv):
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from unival_cli.main import main
try:
    main({argv!r})
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = {{"torch", "fairseq", "numpy", "PIL", "unival_plugin", "tqdm"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_help_lists_the_subcommands(capsys):
    with pytest.raises(SystemExit):
        entry.main(["--help"])
    out = capsys.readouterr().out
    assert "predict" in out and "data" in out


DATA_COMMANDS = [
    *["pack", "validate", "index", "shuffle", "split", "show", "answers", "negatives", "links", "fetch"],
    *["pretraining", "cider-df", "convert-df", "convert-answers"],
]


def test_all_data_commands_are_listed(capsys):
    with pytest.raises(SystemExit):
        entry.main(["data", "--help"])
    listed = re.findall(r"^    ([a-z-]+)\b", capsys.readouterr().out, re.MULTILINE)
    assert sorted(listed) == sorted(DATA_COMMANDS)


@pytest.mark.parametrize("name", DATA_COMMANDS)
def test_every_data_command_explains_itself_with_an_example(capsys, name):
    with pytest.raises(SystemExit) as stop:
        entry.main(["data", name, "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0 and "example" in out and f"unival data {name}" in out


@pytest.mark.parametrize("argv", [[], ["bogus"], ["data"], ["data", "bogus"]])
def test_unknown_or_missing_command_is_a_usage_error(argv):
    with pytest.raises(SystemExit) as stop:
        entry.main(argv)
    assert stop.value.code == 2


def test_the_commands_status_is_returned(command):
    command(lambda args: args.twice * 2)
    assert entry.main(["predict", "--twice", "3"]) == 6


def test_user_error_is_one_line(command, capsys):
    from unival_plugin.errors import DataError

    command(raising(DataError("file.tsv:row 3: the picture\nis damaged")))
    assert entry.main(["predict"]) == 2
    assert capsys.readouterr().err == "unival: error: file.tsv:row 3: the picture is damaged\n"


def test_a_file_that_cannot_be_opened_is_a_user_error(command, capsys):
    command(lambda args: len(Path("no-such-file.tsv").read_bytes()))
    assert entry.main(["predict"]) == 2
    assert capsys.readouterr().err == "unival: error: no-such-file.tsv: No such file or directory\n"


def test_debug_shows_the_traceback(command):
    from unival_plugin.errors import DataError

    command(raising(DataError("bad row")))
    with pytest.raises(DataError):
        entry.main(["--debug", "predict"])


def test_a_programming_error_is_not_hidden(command):
    command(raising(ValueError("a bug")))
    with pytest.raises(ValueError, match="a bug"):
        entry.main(["predict"])


def test_interrupt_gives_130(command, capsys):
    command(raising(KeyboardInterrupt()))
    assert entry.main(["predict"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_closed_pipe_ends_quietly():
    code = "import sys; from unival_cli import main as m; sys.exit(m.main(['data', 'index', '--help']))"
    done = subprocess.run(
        f'{sys.executable} -c "{code}" | true', shell=True, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr


def test_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "unival_cli", "--version"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stdout.startswith("unival ")
