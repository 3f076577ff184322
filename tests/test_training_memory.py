"""The benchmark behind docs/memory.md, with the smallest network and without processes of its own."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("training_memory")


def measured(memory: Any, variant: str = "plain", medium: str = "picture") -> dict[str, Any]:
    case = memory.Case("unival_tiny", medium, 32, 1, variant, None, "cpu", 1, 1)
    return dict(memory.measure(case))


def test_what_a_peak_consists_of_is_told(memory: Any) -> None:
    plain, frozen = measured(memory), measured(memory, "only-linear")
    assert plain["trained"] == plain["parameters"] > frozen["trained"]
    assert plain["optimizer_GB"] == pytest.approx(8 * plain["trained"] / 1e9, abs=0.01)
    assert plain["weights_GB"] == pytest.approx(4 * plain["parameters"] / 1e9, abs=0.01)
    assert plain["GB"] >= plain["before_the_step_GB"] > 0


@pytest.mark.parametrize("medium", ["film", "codes"])
def test_other_media_are_measured(memory: Any, medium: str) -> None:
    assert measured(memory, medium=medium)["GB"] > 0


@pytest.mark.parametrize("variant", ["bf16", "both", "lora-checkpoint-activations", "average"])
def test_ways_to_save_memory_are_measured(memory: Any, variant: str) -> None:
    assert measured(memory, variant)["GB"] > 0


def test_what_does_not_fit_says_why(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory\nand more")

    monkeypatch.setattr(memory, "in_own_process", fail)
    assert memory.outcome(None) == {"error": "RuntimeError: out of memory"}
