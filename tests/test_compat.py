"""Every workaround: what stock fairseq does without it (through ``__wrapped__``), and with it."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fairseq import checkpoint_utils, options
from fairseq.data import data_utils, iterators
from fairseq.file_io import PathManager
from fairseq.nan_detector import NanDetector
from omegaconf import OmegaConf
from torch.multiprocessing import ProcessRaisedException

from unival_plugin import compat
from unival_plugin.errors import ConfigError, DataError

FLAGS = ["x.tsv", "--task", "caption", "--arch", "unival_tiny", "--batch-size", "4"]


@pytest.fixture(autouse=True)
def same_command_line():
    """Leaves the noted command line as it was."""
    before = dict(compat.command_line)
    yield
    compat.command_line.clear()
    compat.command_line.update(before)


def _parse(*more: str, how: Callable[..., Any] = options.parse_args_and_arch, **kwargs: Any) -> argparse.Namespace:
    return how(options.get_training_parser(), input_args=[*FLAGS, *more], **kwargs)


def test_applying_twice_wraps_nothing_twice():
    before = checkpoint_utils.load_checkpoint, sys.excepthook, PathManager.copy
    compat.apply()
    assert (checkpoint_utils.load_checkpoint, sys.excepthook, PathManager.copy) == before


# ---- command line


def test_bf16_does_not_ask_for_a_tpu():
    assert _parse("--bf16", how=options.parse_args_and_arch.__wrapped__).tpu is True
    assert _parse("--bf16").tpu is False
    assert _parse("--bf16", "--tpu").tpu is True


def test_generation_answers_all_rows_on_a_machine_with_several_gpus():
    def shards(*more: str) -> int:
        parser = options.get_generation_parser()
        parser.set_defaults(distributed_world_size=4)  # what fairseq finds there
        words = ["x.tsv", "--task", "caption", "--path", "x.pt", *more]
        return options.parse_args_and_arch(parser, input_args=words).distributed_world_size

    assert shards() == 1
    assert shards("--distributed-world-size", "2") == 2


def test_options_are_noted_with_their_defaults():
    _parse("--beam-width-is-unknown", parse_known=True)
    assert compat.command_line["data"] == "x.tsv"
    assert compat.command_line["on_bad_row"] == "raise"


def test_options_given_explicitly_do_not_replace_the_noted_ones():
    _parse("--seed", "5")
    assert not hasattr(_parse("--seed", "6", suppress_defaults=True), "on_bad_row")
    assert compat.command_line["on_bad_row"] == "raise"


def test_a_missing_arch_is_named():
    words = ["x.tsv", "--task", "caption"]
    with pytest.raises(RuntimeError, match="^$"):
        options.parse_args_and_arch.__wrapped__(options.get_training_parser(), input_args=words)
    with pytest.raises(ConfigError, match="--arch is missing"):
        options.parse_args_and_arch(options.get_training_parser(), input_args=words)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_knows_the_options_of_the_task(flag: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        _parse(flag, how=options.parse_args_and_arch.__wrapped__)
    assert "--eval-cider" not in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        _parse(flag)
    assert caught.value.code == 0
    assert "--eval-cider" in capsys.readouterr().out


def test_a_log_set_up_by_an_import_is_removed(monkeypatch: pytest.MonkeyPatch):
    root = logging.RootLogger(logging.DEBUG)
    monkeypatch.setattr(logging, "getLogger", lambda name=None: root)
    stray = logging.StreamHandler()
    stray.setFormatter(logging.Formatter(logging.BASIC_FORMAT))
    root.addHandler(stray)
    compat.commands.drop_stray_log_handler()
    assert root.handlers == []
    assert root.level == logging.INFO


def test_other_logs_stay(monkeypatch: pytest.MonkeyPatch):
    root = logging.RootLogger(logging.INFO)
    monkeypatch.setattr(logging, "getLogger", lambda name=None: root)
    own = logging.StreamHandler()
    own.setFormatter(logging.Formatter("%(message)s"))
    root.addHandler(own)
    compat.commands.drop_stray_log_handler()
    assert root.handlers == [own]


def test_a_list_of_files_is_not_taken_for_a_folder():
    cfg = OmegaConf.create(
        {
            "task": {"_name": "caption", "data": "train.tsv,valid.tsv"},
            "dataset": {
                "ignore_unused_valid_subsets": False,
                "combine_valid_subsets": None,
                "disable_validation": False,
                "valid_subset": "valid",
            },
        }
    )
    check = data_utils.raise_if_valid_subsets_unintentionally_ignored
    with pytest.raises(FileNotFoundError):
        check.__wrapped__(cfg)
    check(cfg)
    cfg.task._name = "translation"
    with pytest.raises(FileNotFoundError):
        check(cfg)


# ---- processes


def _launch(main: Callable[..., Any] | None = None, **changes: Any) -> Any:
    """The configuration that fairseq's own start gets."""
    distributed = {
        "distributed_init_method": None,
        "distributed_world_size": 1,
        "distributed_no_spawn": False,
        "distributed_rank": 0,
        "distributed_backend": "nccl",
        "device_id": 1,
        "ddp_backend": "pytorch_ddp",
    }
    cfg = OmegaConf.create(
        {
            "distributed_training": {**distributed, **changes},
            "common": {"cpu": True, "fp16": changes.get("fp16", False)},
            "optimization": {},
        }
    )
    compat.commands.join_launcher(lambda cfg, main: None, cfg, main or test_applying_twice_wraps_nothing_twice)
    return cfg.distributed_training


def test_processes_of_torchrun_join_one_training_on_the_cpu(monkeypatch: pytest.MonkeyPatch):
    for name, value in (("MASTER_ADDR", "localhost"), ("MASTER_PORT", "1"), ("WORLD_SIZE", "3"), ("RANK", "2")):
        monkeypatch.setenv(name, value)
    cfg = _launch()
    assert (cfg.distributed_world_size, cfg.distributed_rank, cfg.device_id) == (3, 2, 0)
    assert (cfg.distributed_init_method, cfg.distributed_no_spawn) == ("env://", True)
    assert (cfg.distributed_backend, cfg.ddp_backend) == ("gloo", "legacy_ddp")


def test_a_single_process_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    cfg = _launch()
    assert (cfg.distributed_world_size, cfg.distributed_init_method, cfg.ddp_backend) == (1, None, "pytorch_ddp")


def test_several_processes_without_launcher_and_gpu_are_refused(monkeypatch: pytest.MonkeyPatch):
    """Stock fairseq starts none at all and exits with 0."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(ConfigError, match="torchrun --nproc-per-node"):
        _launch(distributed_world_size=2)


def test_training_in_fp16_without_gpu_is_refused():
    """Stock fairseq stops with "Found no NVIDIA driver"; evaluation in fp16 runs."""
    from fairseq_cli import train, validate

    with pytest.raises(ConfigError, match="--autocast bf16"):
        _launch(train.main, fp16=True)
    _launch(validate.main, fp16=True)


# ---- messages


def _caused(cause: BaseException) -> BaseException:
    try:
        try:
            raise cause
        except Exception:
            raise RuntimeError("Cannot load") from None
    except RuntimeError as error:
        return error


WORKER = "Caught DataError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  ...\n"


@pytest.mark.parametrize(
    "error",
    [
        DataError("a.tsv:row 3: bad"),
        _caused(DataError("a.tsv:row 3: bad")),
        DataError(WORKER + "unival_plugin.errors.DataError: a.tsv:row 3: bad"),
        DataError(WORKER + "unival_plugin.data.picture_cells.MediumError: a.tsv:row 3: bad"),
        ProcessRaisedException("\n\n-- Process 0 …\nunival_plugin.errors.DataError: a.tsv:row 3: bad\n", 0, 1),
    ],
    ids=["plain", "behind another", "from a worker", "a special case", "from a spawned process"],
)
def test_a_mistake_is_found_behind_other_errors(error: BaseException):
    assert compat.user_error(error) == "a.tsv:row 3: bad"
    assert isinstance(compat.user_mistake(error), DataError)


@pytest.mark.parametrize("error", [None, ValueError("x"), ProcessRaisedException("\nKeyError: 'x'\n", 0, 1)])
def test_other_errors_are_no_mistakes(error: BaseException | None):
    assert compat.user_error(error) is None


def test_a_mistake_without_words_is_named_by_its_type():
    assert compat.user_error(ConfigError("")) == "ConfigError"


def test_only_mistakes_are_printed_as_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["/some/where/fairseq-train"])
    others: list[BaseException] = []

    def stock(kind: type, error: BaseException, trace: Any) -> None:
        others.append(error)

    compat.messages.one_line_errors(stock, DataError, DataError("a.tsv: bad"), None)
    bug = KeyError("x")
    compat.messages.one_line_errors(stock, KeyError, bug, None)
    assert capsys.readouterr().err == "fairseq-train: error: a.tsv: bad\n"
    assert others == [bug]


@pytest.mark.parametrize("module, printed", [("fairseq_cli.validate", True), ("somewhere", False)])
def test_what_commands_assert_of_their_options_is_one_line(
    capsys: pytest.CaptureFixture[str], module: str, printed: bool
) -> None:
    seen: list[Any] = []
    scope: dict[str, Any] = {"__name__": module}
    exec('def main():\n    assert False, "Must specify batch size"', scope)  # the assertion's frame names its module
    try:
        scope["main"]()
    except AssertionError as error:
        compat.messages.one_line_errors(lambda *args: seen.append(args), AssertionError, error, error.__traceback__)
    assert ("error: Must specify batch size" in capsys.readouterr().err) == printed
    assert bool(seen) != printed


# ---- loading


def test_threads_that_load_ahead_end_with_the_program():
    iterator = iterators.BufferedIterator(2, range(1000))
    assert next(iterator) == 0 and iterator._consumer.is_alive()
    compat.commands.end_loading()
    assert not iterator._consumer.is_alive()
    compat.commands.end_loading()


def test_a_batch_that_never_comes_does_not_keep_the_program(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compat.commands, "LAST_BATCH_SECONDS", 0.1)
    hold = threading.Event()

    class Stuck(list):
        def __iter__(self):
            yield 0
            hold.wait()

    iterator = iterators.BufferedIterator(2, Stuck([0, 1]))
    assert next(iterator) == 0
    compat.commands.end_loading()
    assert iterator._consumer.is_alive()
    hold.set()
    iterator._consumer.join()


class _Encoder(torch.nn.Module):
    """Returns what encoders do: a dictionary of lists."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> dict[str, list[torch.Tensor | None]]:
        return {"encoder_out": [self.inner(x)], "nothing": [None], "empty": []}


def test_the_layer_whose_gradient_is_not_finite_is_named(caplog: pytest.LogCaptureFixture):
    """torch's own hook raises StopIteration at the dictionary."""
    model = torch.nn.Sequential(_Encoder())
    with NanDetector(model) as detector, caplog.at_level(logging.WARNING):
        out = model(torch.ones(2, 3))["encoder_out"][0]
        (out * torch.tensor([1.0, float("inf"), 1.0])).sum().backward()
    assert "Inf detected in output of" in caplog.text and "backward" in caplog.text
    assert detector.has_printed_b and not detector.has_printed_f
    caplog.clear()
    model(torch.full((2, 3), float("nan")))  # the hooks are gone
    assert not caplog.text
