"""The benchmarks answer, and print what their readers expect; how fast anything is, no test asks."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SCRIPTS = [
    "answers.py",
    "attention.py",
    "beam_search.py",
    "code_sampling.py",
    "data_files.py",
    "image_loader.py",
    "index_building.py",
    "log_mel.py",
    "merging.py",
    "pretraining_step.py",
    "train_step.py",
    "training_memory.py",
    "video_decoding.py",
]
TINY = ["--arch", "unival_tiny", "--patch-image-size", "64", "--rounds", "1", "--threads", "1"]
MACHINE = {"machine", "python", "torch", "threads", "clock"}


def output(script: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "ignore", str(BENCHMARKS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def json_lines(script: str, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output(script, *arguments).splitlines()]


@pytest.fixture
def train_step(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("train_step")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_explains_the_question(script: str) -> None:
    shown = output(script, "--help")
    assert "?" in shown.split("options:")[0]


def test_log_mel_compares_front_ends_readers_and_memory() -> None:
    sizes = "--batch-size 1 --hops 480 --formats wav --file-seconds 1 --rates 48000 --clips 10 --rounds 1"
    _, *lines = json_lines("log_mel.py", *sizes.split())
    assert {line["question"] for line in lines if "question" in line} == {"front end", "reading", "memory"}


def test_video_decoding_compares_readers_and_memory() -> None:
    sizes = "--rounds 1 --repeats 1 --frames 2 --length 12 --size 160 64 --clips 10 --ways pyav"
    _, *lines = json_lines("video_decoding.py", *sizes.split())
    assert len(lines) == 4 and {"speed", "memory"} <= {line["question"] for line in lines}


def test_a_pretraining_step_is_measured_with_shared_pictures_and_without() -> None:
    _, once, twice, compared = json_lines("pretraining_step.py", *TINY, "--pictures", "1")
    assert (once["way"], twice["way"], once["rows"]) == ("once", "twice", 2)
    assert compared["times_faster"]["median"] > 0 and compared["loss_difference"] < 1e-4


def test_train_step_reports_every_phase_of_every_way() -> None:
    machine, *phases = json_lines("train_step.py", *TINY, "--batch-size", "1", "--peak-tflops", "1")
    assert machine.keys() >= MACHINE
    assert [line["phase"] for line in phases] == ["forward", "forward_backward", "step"]
    for line in phases:
        assert set(line["seconds"]) == {"sdpa", "plain", "original"} == set(line["peak_GB"])
        assert set(line["by_sdpa"]) == {"plain", "original"}
        assert all(0 < value < 1 for value in line["utilisation"].values())
        assert line["peak_source"] == "--peak-tflops"
    assert phases[0]["tera_operations"] < phases[1]["tera_operations"] == phases[2]["tera_operations"]


def test_train_step_states_the_error_of_a_half_precision_and_why_xformers_does_not_run() -> None:
    arguments = [*TINY, "--precision", "bf16", "--ways", "sdpa", "xformers", "--phases", "forward"]
    _, parity, *others = json_lines("train_step.py", *arguments)
    assert parity["question"] == "precision parity"
    errors = parity["relative_error"]
    assert set(errors) == {"loss", "scores", "gradient_norm", "gradient"}
    assert all(0 < errors[name] < 0.1 for name in ("scores", "gradient_norm")), errors
    left_out = [line for line in others if line.get("left_out") == "xformers"]
    assert left_out
    assert left_out[0]["why"]


def test_attention_reports_both_phases_of_every_case() -> None:
    arguments = ["--patch-image-size", "64", "--batch-size", "2", "--rounds", "1", "--threads", "1"]
    machine, *lines = json_lines("attention.py", *arguments, "--backends", "sdpa", "plain")
    assert machine.keys() >= MACHINE
    assert [line["phase"] for line in lines] == ["forward", "forward_backward"] * 4
    for line in lines:
        assert set(line["milliseconds"]) == {"sdpa", "plain"} == set(line["peak_MB"])
        assert set(line["by_plain"]) == {"sdpa"}
        results = 1 if line["phase"] == "forward" else 5
        assert len(line["max_difference"]["sdpa"]) == results


def test_attention_says_why_xformers_does_not_run_on_the_cpu() -> None:
    arguments = ["--patch-image-size", "32", "--batch-size", "1", "--rounds", "1", "--threads", "1"]
    lines = json_lines("attention.py", *arguments, "--backends", "xformers")
    assert [line["left_out"] for line in lines if "left_out" in line] == ["xformers"]


def test_beam_search_finds_the_same_as_stock() -> None:
    arguments = [*TINY, "--batch-size", "1", "--beam", "2", "--max-len", "3"]
    machine, *lines = json_lines("beam_search.py", *arguments)
    assert machine.keys() >= MACHINE
    assert [line["early_ends"] for line in lines] == [False, True]
    assert all({"encoder", "ours", "stock", "stock_by_ours"} <= set(line["seconds"]) for line in lines)


def test_answers_are_the_same_as_stocks_and_as_the_written_out_scores() -> None:
    machine, free, prompted = json_lines(
        "answers.py", *TINY, "--batch-size", "2", "--beam", "9", "--answers", "9", "--memory"
    )
    assert machine.keys() >= MACHINE
    assert (free["prompt"], prompted["prompt"]) == (0, 7) and free["agree"] == prompted["agree"] == 2
    assert set(free["seconds"]) == set(prompted["seconds"]) | {"trie_after_softmax"} == set(free["extra_peak_GB"])
    assert {"stock_by_trie", "stock_by_all_candidates", "written_out_by_all_candidates"} <= set(prompted["ratios"])


def test_index_building_reports_speed_and_memory() -> None:
    speed, memory = json_lines(
        "index_building.py", "--rows", "20", "--cell-bytes", "100", "--short-rows", "100", "--repeats", "1"
    )
    assert (speed["question"], memory["question"]) == ("index speed", "index memory")
    assert speed["rows"] == 20


def test_image_loader_reports_one_core_and_workers() -> None:
    core, *workers = json_lines(
        "image_loader.py", "--sizes", "32", "--rounds", "1", "--rows", "4", "--batch-size", "2", "--workers", "0"
    )
    assert core["question"] == "one core"
    assert [line["question"] for line in workers] == ["workers"]


@pytest.mark.parametrize(
    ("device_name", "half", "full"),
    [
        ("NVIDIA H100 80GB HBM3", 989.0, 67.0),
        ("NVIDIA H100 PCIe", 756.0, 51.0),
        ("NVIDIA H200", 989.0, 67.0),
        ("NVIDIA A100-SXM4-80GB", 312.0, 19.5),
        ("NVIDIA L4", 121.0, 30.3),
        ("NVIDIA L40S", 362.0, 91.6),
    ],
)
def test_peak_of_a_gpu_is_found_by_its_name(train_step: Any, device_name: str, half: float, full: float) -> None:
    assert train_step.peak_tflops(device_name, "bf16") == train_step.peak_tflops(device_name, "fp16") == half
    assert train_step.peak_tflops(device_name, "fp32") == full


def test_an_unknown_gpu_has_no_peak(train_step: Any) -> None:
    assert train_step.peak_tflops("Example A1000", "bf16") is None
