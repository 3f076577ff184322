"""``unival merge --sweep``: coefficients, records, interruptions, and the guide."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from merge_bench import Bench, weight_in

from unival_cli.main import build_parser, main
from unival_cli.merge_evaluations import evaluations_of
from unival_cli.merge_sweep import coefficients_of, file_name
from unival_plugin.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
PNG = b"\x89PNG"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


# ---- coefficients


@pytest.mark.parametrize(
    "text, numbers",
    [
        ("0:1:0.2", [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ("0:1:0.3", [0, 0.3, 0.6, 0.9, 1]),
        ("1,0,0.25", [0, 0.25, 1]),
        ("-0.5:1.5:1", [-0.5, 0.5, 1.5]),
    ],
)
def test_coefficients_are_exact_and_hold_both_ends(text: str, numbers: list[float]) -> None:
    assert coefficients_of(text) == numbers


@pytest.mark.parametrize("text", ["x", "0:1", "0:1:0", "1:0:0.1", "nan", "1e999", "0,,1", "0:1:1e-9"])
def test_other_coefficients_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--sweep"):
        coefficients_of(text)


def test_files_have_two_decimals_unless_that_loses_something() -> None:
    assert [file_name(number) for number in (0.2, 1.0, 0.125)] == [
        "merged_l0.20.pt",
        "merged_l1.00.pt",
        "merged_l0.125.pt",
    ]


# ---- sweeps


def test_a_line_for_every_coefficient_and_evaluation(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.sweep(commands={"one": bench.script(1.0), "three": bench.script(3.0)}) == 0
    assert bench.lines() == [
        {"coefficient": coefficient, "evaluation": name, "metric": "near", "value": value}
        for coefficient, name, value in [
            (0, "one", -2),
            (0, "three", 0),
            (0.5, "one", -1),
            (0.5, "three", -1),
            (1, "one", 0),
            (1, "three", -2),
        ]
    ]
    assert capsys.readouterr().out.splitlines() == [
        "coefficient\tone: near\tthree: near",
        "0\t-2\t0",
        "0.5\t-1\t-1",
        "1\t0\t-2",
    ]
    assert (bench.output / "sweep.png").read_bytes().startswith(PNG)


def test_merged_files_are_removed_unless_kept(bench: Bench) -> None:
    assert bench.sweep() == 0
    assert list(bench.output.glob("*.pt")) == []
    assert bench.sweep("--keep-checkpoints") == 0
    assert [weight_in(bench.output / f"merged_l{c}.pt") for c in ("0.00", "0.50", "1.00")] == [3, 2, 1]
    assert len(bench.evaluated()) == 3


def test_merging_without_evaluating(bench: Bench) -> None:
    assert bench.sweep("--keep-checkpoints", commands={}) == 0
    assert weight_in(bench.output / "merged_l0.50.pt") == 2
    assert bench.sweep(commands={}) == 2


def test_files_of_an_earlier_sweep_are_not_taken_for_this_one(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.sweep("--keep-checkpoints", commands={}) == 0
    assert bench.sweep("--keep-checkpoints", commands={}) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert bench.sweep("--keep-checkpoints", "--overwrite", commands={}, at="0.5") == 0
    assert [path.name for path in bench.output.glob("*.pt")] == ["merged_l0.50.pt"]


def test_a_second_run_evaluates_only_what_is_new(bench: Bench) -> None:
    assert bench.sweep(at="0,1") == 0
    assert bench.sweep(at="0:1:0.5") == 0
    assert bench.evaluated() == [3, 1, 2]
    assert bench.sweep(commands={"one": bench.script(1.0), "three": bench.script(3.0)}) == 0
    assert bench.evaluated() == [3, 1, 2, 3, 2, 1]
    assert len(bench.lines()) == 6


def test_an_interrupted_line_is_evaluated_again(bench: Bench) -> None:
    assert bench.sweep() == 0
    path = bench.output / "sweep.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    assert bench.sweep() == 0
    assert [line["coefficient"] for line in bench.lines()] == [0, 0.5, 1]
    assert bench.evaluated() == [3, 2, 1, 1]


@pytest.mark.parametrize("change", ["command", "files", "skip"])
def test_other_settings_are_refused_until_overwritten(
    bench: Bench, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    assert bench.sweep() == 0
    before = bench.lines()
    flags = ["--skip", "nothing"] if change == "skip" else []
    commands = {"one": bench.script(2.0)} if change == "command" else None
    if change == "files":
        bench.file = lambda name, weight, file=bench.file: file(name, weight + 1)  # type: ignore[method-assign]
    assert bench.sweep(*flags, commands=commands) == 2
    assert "other settings" in capsys.readouterr().err
    assert bench.lines() == before
    assert bench.sweep(*flags, "--overwrite", commands=commands) == 0
    assert len(bench.lines()) == 3 and len(bench.evaluated()) == 6


def test_a_failing_command_is_told_and_earlier_lines_stay(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    code = "print('loading'); import sys; print('no such picture', file=sys.stderr); sys.exit(7)"
    commands = {"one": bench.script(1.0), "bad": bench.python(code)}
    assert bench.sweep(commands=commands) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "--evaluate bad" in error and "exit code 7" in error and "merged_l0.00.pt" in error
    assert "loading / no such picture" in error
    assert [line["evaluation"] for line in bench.lines()] == ["one"]
    assert list(bench.output.glob("*.pt")) == []
    repaired = {"one": bench.script(1.0), "bad": bench.script(3.0)}
    assert bench.sweep(commands=repaired) == 0
    assert len(bench.lines()) == 6


@pytest.mark.parametrize(
    "code, told",
    [
        ("print('nothing')", "no line of a validation"),
        ("print(\"valid on 'v' subset | loss 2 | cider 1\")", "has loss, cider"),
        ("print(\"valid on 'v' subset | near far\")", "'far' is no number"),
    ],
)
def test_a_metric_that_is_not_there_is_an_error(
    bench: Bench, capsys: pytest.CaptureFixture[str], code: str, told: str
) -> None:
    assert bench.sweep(commands={"one": bench.python(code)}) == 2
    error = capsys.readouterr().err
    assert told in error and "log.txt" in error


def test_a_command_that_does_not_exist_is_told(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.sweep(commands={"one": "no-such-command {checkpoint}"}) == 2
    assert "no-such-command: cannot be started" in capsys.readouterr().err


def test_no_shell_and_no_other_braces_are_interpreted(bench: Bench) -> None:
    code = "import sys; assert sys.argv[3:] == ['$HOME;', '{\"beam\": 1}']; print(\"valid on 'v' subset | near 1\")"
    command = f"{bench.python(code)} '$HOME;' '{{\"beam\": 1}}'"
    assert bench.sweep(at="0.5", commands={"one": command}) == 0


@pytest.mark.parametrize(
    "flags",
    [
        ["--greedy"],
        ["--minimise"],
        ["--plot", "x.jpg"],
        ["--coefficients", "0.5,0.5"],
        ["--metric", "one=near", "--metric", "two=near"],
    ],
)
def test_flags_that_do_not_go_together(bench: Bench, flags: list[str]) -> None:
    assert bench.sweep(*flags) == 2
    assert bench.evaluated() == []


def test_three_files_need_a_base(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    files = [bench.file(f"{number}.pt", number) for number in range(3)]
    assert main(["merge", *files, "--sweep", "0,1", "--keep-checkpoints", "--output", str(bench.output)]) == 2
    assert "two files, not 3" in capsys.readouterr().err


def test_a_sweep_of_task_vectors_has_one_coefficient_for_all(bench: Bench) -> None:
    base, *files = [bench.file(f"{number}.pt", weight) for number, weight in enumerate([1.0, 2.0, 5.0])]
    flags = ["--method", "task_arithmetic", "--base", base, "--sweep", "0,0.5", "--keep-checkpoints"]
    assert main(["merge", *files, *flags, "--output", str(bench.output)]) == 0
    assert [weight_in(bench.output / f"merged_l{c}.pt") for c in ("0.00", "0.50")] == [1, 3.5]


@pytest.mark.parametrize("mode", [["--sweep", "0.5", "--keep-checkpoints"], ["--greedy"]])
def test_files_in_the_output_folder_are_not_touched(bench: Bench, mode: list[str]) -> None:
    bench.output.mkdir()
    own = [bench.file(f"out/{name}", 1.0) for name in ("merged_l0.50.pt", "soup.pt")]
    evaluate = ["--evaluate", f"one={bench.script(1.0)}", "--metric", "one=near"]
    assert main(["merge", *own, *mode, *evaluate, "--overwrite", "--output", str(bench.output)]) == 2
    assert [weight_in(Path(path)) for path in own] == [1, 1]


def test_a_checkpoint_can_be_read_by_the_evaluation(bench: Bench) -> None:
    code = (
        "import sys, torch; state = torch.load(sys.argv[1], weights_only=True); "
        "print(\"valid on 'v' subset | near\", float(state['model']['w']), '| epoch', state['extra_state']['epoch'])"
    )
    assert (
        bench.sweep("--metric", "one=near", "--metric", "one=epoch", at="0.5", commands={"one": bench.python(code)})
        == 0
    )
    assert [line["value"] for line in bench.lines()] == [2, 3]


# ---- help and guide


def test_help_is_quick_and_complete() -> None:
    code = (
        "import sys; from unival_cli.main import main\n"
        "try: main(['merge', '--help'])\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'fairseq', 'numpy', 'matplotlib', 'tqdm', 'unival_plugin'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(flag in done.stdout for flag in ("--sweep", "--greedy", "--evaluate", "--metric", "--plot"))


def test_commands_of_the_guide_can_be_parsed() -> None:
    text = (ROOT / "docs" / "merging.md").read_text()
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in blocks.splitlines() if line.startswith("unival merge")]
    assert len(lines) >= 10
    for words in lines:
        args = build_parser("merge").parse_args(words[1:])
        assert len(evaluations_of(args.evaluate, args.metric)) == len(args.evaluate)
        assert not args.sweep or coefficients_of(args.sweep)
