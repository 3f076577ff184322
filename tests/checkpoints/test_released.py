"""Files of the released layout, and files of other kinds, in every program that reads checkpoints."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Data, Outcome, checkpoint, differing, generate, run, succeed, train, validate
from fairseq import checkpoint_utils
from made_files import Payload, released_state

from unival_cli.main import main
from unival_plugin import compat
from unival_plugin.checkpoints.export import Export, convert
from unival_plugin.checkpoints.reading import average_of, read_checkpoint
from unival_plugin.errors import CheckpointError
from unival_plugin.hub import from_pretrained

BUFFERS = ("running_mean", "running_var", "version")
FRESH = ["--reset-optimizer", "--reset-dataloader", "--reset-meters", "--max-update", "1", "--disable-validation"]


@pytest.fixture(scope="module")
def data(digits: Path) -> Data:
    return Data(digits)


@pytest.fixture(autouse=True)
def no_command(monkeypatch: pytest.MonkeyPatch):
    """As in a program that uses the package as a library."""
    monkeypatch.setattr(compat.commands, "command_line", {})
    monkeypatch.setattr(compat.stored_options, "command_line", {})


# ---- as a library


def _as_args(state: dict[str, Any]) -> dict[str, Any]:
    flat = {**vars(state["cfg"]["model"]), "criterion": "adjust_label_smoothed_cross_entropy"}
    return {"args": argparse.Namespace(**flat), "model": state["model"]}


LAYOUTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "released": lambda state: state,
    "options in args": _as_args,
    "weights and options only": lambda state: {"cfg": state["cfg"], "model": state["model"]},
    "without criterion": lambda state: {**state, "cfg": {k: v for k, v in state["cfg"].items() if k != "criterion"}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_captions(digits: Path, released: Path, tmp_path: Path, picture: Path, layout: str):
    torch.save(LAYOUTS[layout](released_state(digits)), tmp_path / "x.pt")
    expected = list(from_pretrained(released, "cpu").stream([picture]))
    assert list(from_pretrained(tmp_path / "x.pt", "cpu").stream([picture])) == expected


def test_what_is_unknown_is_left_out_with_one_line(released: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO"):
        task = from_pretrained(released, "cpu").task
    assert task.cfg.num_frames == 4 and task.cfg.image_dir == "/home/authors/pictures"
    lines = [line for line in caplog.messages if "stored options" in line]
    assert lines == [
        f"{released}: 2 stored options that caption does not have here are left out (num_frames, strange_new_option)"
    ]


def test_overrides_win_even_where_the_file_lacks_the_option(released: Path):
    task = from_pretrained(released, "cpu", autocast="bf16", image_dir="here").task
    assert (str(task.cfg.autocast), task.cfg.image_dir) == ("bf16", "here")


def test_a_task_of_another_version_can_be_replaced(digits: Path, tmp_path: Path, picture: Path, released: Path):
    torch.save(released_state(digits, "unify_task_of_tomorrow"), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="task unify_task_of_tomorrow, which this version does not have; say"):
        from_pretrained(tmp_path / "x.pt", "cpu")
    asked = from_pretrained(tmp_path / "x.pt", "cpu", task="caption")
    assert asked.caption([picture]) == from_pretrained(released, "cpu").caption([picture])


def test_another_criterion_takes_the_place_of_an_unknown_one(
    digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    state = released_state(digits)
    state["cfg"]["criterion"] = {"_name": "criterion_of_tomorrow", "label_smoothing": 0.3}
    torch.save(state, tmp_path / "x.pt")
    cfg = checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "x.pt"))["cfg"]
    assert (cfg.criterion._name, cfg.criterion.label_smoothing) == ("adjust_label_smoothed_cross_entropy", 0.3)
    assert cfg.criterion.sentence_avg is False
    assert "criterion criterion_of_tomorrow is not in this version" in caplog.text


def test_the_average_predicts_when_asked(digits: Path, tmp_path: Path, released: Path, picture: Path):
    [last] = from_pretrained(released, "cpu").stream([picture])
    [average] = from_pretrained(released, "cpu", ema=True).stream([picture])
    assert last.score != average.score
    torch.save(released_state(digits, average=False), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="holds no average"):
        from_pretrained(tmp_path / "x.pt", "cpu", ema=True)


def test_safetensors_predict_the_same(released: Path, tmp_path: Path, picture: Path):
    convert(released, tmp_path / "x.safetensors", Export())
    converted = list(from_pretrained(tmp_path / "x.safetensors", "cpu").stream([picture]))
    assert converted == list(from_pretrained(released, "cpu").stream([picture]))


def test_predict_asks_for_the_task_and_the_average(
    digits: Path, tmp_path: Path, picture: Path, capsys: pytest.CaptureFixture[str]
):
    torch.save(released_state(digits, "unify_task_of_tomorrow"), tmp_path / "x.pt")
    scores = []
    for more in ([], ["--ema"]):
        words = ["predict", "--task", "caption", "--path", str(tmp_path / "x.pt"), "--device", "cpu", *more]
        assert main([*words, str(picture)]) == 0
        scores.append(json.loads(capsys.readouterr().out)["score"])
    assert scores[0] != scores[1]


# ---- fairseq's programs


def _valid_loss(outcome: Outcome) -> float:
    return float(outcome.last("valid", "valid_loss"))


@pytest.fixture(scope="module")
def foreign(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A released-style file of a task that this version does not have."""
    path = tmp_path_factory.mktemp("foreign") / "pretrained.pt"
    torch.save(released_state(digits, "unify_task_of_tomorrow"), path)
    return path


def test_the_average_of_a_file_of_another_task_is_validated(data: Data, foreign: Path, tmp_path: Path):
    convert(foreign, tmp_path / "average.safetensors", Export(average=True))
    average = _valid_loss(succeed(validate(data, foreign, "--ema-eval")))
    assert average == _valid_loss(succeed(validate(data, tmp_path / "average.safetensors")))


def test_a_file_of_another_task_generates(data: Data, foreign: Path, tmp_path: Path):
    succeed(generate(data, foreign, tmp_path))
    assert list(tmp_path.glob("*.txt"))


def test_training_starts_from_the_average_and_averages_the_latest_weights(data: Data, foreign: Path, tmp_path: Path):
    """With learning rate 0 and decay 1 a run stores exactly what it started from."""
    flags = "--store-ema --ema-fp32 --ema-decay 1 --use-ema-weights-to-init-param --use-latest-weights-to-init-ema"
    convert(foreign, tmp_path / "x.safetensors", Export())
    start = ["--restore-file", str(tmp_path / "x.safetensors"), *FRESH, "--lr", "0", *flags.split()]
    outcome = succeed(train(data, tmp_path / "run", *start))
    assert "starting from its average of weights" in outcome.stdout
    before, after = read_checkpoint(foreign), checkpoint(tmp_path / "run" / "checkpoint_last.pt")
    average = average_of(before)
    learned = [key for key, value in average.items() if value.is_floating_point() and not key.endswith(BUFFERS)]
    stored = after["extra_state"]["ema_fp32_params"]
    assert differing({k: after["model"][k] for k in learned}, {k: average[k].float() for k in learned}) == []
    assert differing({k: stored[k] for k in learned}, {k: before["model"][k].float() for k in learned}) == []


def test_files_converted_twice_are_as_if_converted_once(released: Path, tmp_path: Path):
    convert(released, tmp_path / "x.safetensors", Export())
    convert(tmp_path / "x.safetensors", tmp_path / "x.pt", Export())
    convert(released, tmp_path / "y.pt", Export())
    assert differing(checkpoint_state(tmp_path / "x.pt"), checkpoint_state(tmp_path / "y.pt")) == []


def checkpoint_state(path: Path) -> dict[str, Any]:
    """The contents of a file with the Namespace as a dictionary."""
    state = read_checkpoint(path)
    state["cfg"]["model"] = vars(state["cfg"]["model"])
    return state


# ---- bad files in every program


def _bad_files(folder: Path, good: Path) -> list[Path]:
    torch.save({"model": Payload()}, folder / "payload.pt")
    torch.save({"model": Payload()}, folder / "old.pt", _use_new_zipfile_serialization=False)
    (folder / "cut.pt").write_bytes(good.read_bytes()[:-500])
    torch.save([1, 2], folder / "list.pt")
    (folder / "text.pt").write_text("no checkpoint")
    (folder / "empty.pt").touch()
    (folder / "cut.safetensors").write_bytes(b"\x10\0\0\0")
    (folder / "folder.pt").mkdir()
    return sorted([*folder.iterdir(), folder / "missing.pt"])


def test_unival_commands_explain_bad_files_and_execute_nothing(
    released: Path, tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    mark = tmp_path / "executed"
    monkeypatch.setenv("UNIVAL_TEST_MARK", str(mark))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    (tmp_path / "bad").mkdir()
    for path in _bad_files(tmp_path / "bad", released):
        for words in (["inspect", path], ["convert", path, tmp_path / "out.pt"], ["predict", "--path", path, picture]):
            code = main([str(word) for word in words])
            out, err = capsys.readouterr()
            complaints = [line for line in err.splitlines() if not line.startswith("reading ")]
            if words[0] == "inspect" and path.name in ("payload.pt", "old.pt"):
                assert (code, complaints) == (1, []) and "builtins.exec" in out
            else:
                assert code == 2 and len(complaints) == 1 and str(path) in complaints[0], (words, err)
    assert not mark.exists() and not (tmp_path / "out.pt").exists()


@pytest.mark.parametrize("name", ["train", "validate", "generate"])
def test_fairseq_programs_refuse_a_payload(data: Data, tmp_path: Path, name: str):
    path = tmp_path / "payload.pt"
    torch.save({"model": Payload(), "optimizer_history": [{"num_updates": 0}], "extra_state": {}}, path)
    commands = {
        "train": lambda: train(data, tmp_path / "run", "--restore-file", str(path)),
        "validate": lambda: validate(data, path),
        "generate": lambda: generate(data, path, tmp_path),
    }
    mark = tmp_path / "executed"
    environment = {"UNIVAL_TEST_MARK": str(mark), "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    line = run(commands[name](), **environment).complaint()
    assert line.startswith(f"fairseq-{name}: error: ")
    assert f"{path}: asks for builtins.exec" in line
    assert not mark.exists()
