"""Runs an UnIVAL checkout beside ours, in a process of its own and without changing anything in it.

The checkout's folder goes on that process's path; fairseq is the one installed there. The two processes take turns: the
benchmark asks for one measurement, waits for the answer, and goes on with its own. Where the checkout's imports fail
the answer says why.

    python benchmarks/reference.py '{"folder": "UnIVAL", …}'      (started by the other benchmarks)
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import FIRST_WORD, RELEASED_FLAGS, fill, picture_batch, timed

MEASURED_ARCHS = ("unival_base", "unival_large")


class Reference:
    """The benchmark's end: starts the process and asks it.

    Args:
        folder: the checkout.
        python: interpreter to use.
        settings: what to build; see :func:`serve`.
        state: weights that it shall take over.
    """

    def __init__(self, folder: str, python: str | None, settings: dict[str, Any], state: dict[str, Any]) -> None:
        self.why_not: str | None = None
        if settings["arch"] not in MEASURED_ARCHS:
            self.why_not = f"it has no {settings['arch']}"
            return
        handle, weights = tempfile.mkstemp(suffix=".pt")
        os.close(handle)
        torch.save(state, weights)
        try:
            self._start(folder, python or sys.executable, {**settings, "weights": weights})
        finally:
            Path(weights).unlink()

    def _start(self, folder: str, python: str, settings: dict[str, Any]) -> None:
        command = [python, "-W", "ignore", __file__, json.dumps({**settings, "folder": str(Path(folder).resolve())})]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.why_not = self._answer().get("failed") or self._try().get("failed")

    def ask(self) -> dict[str, Any]:
        """One measurement.

        Raises:
            RuntimeError: the checkout failed although it could run before.
        """
        answer = self._try()
        if "failed" in answer:
            raise RuntimeError(f"the reference stopped: {answer['failed']}")
        return answer

    def _try(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write("again\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return {"failed": f"its process ended with status {self.process.wait()}"}
        return self._answer()

    def close(self) -> None:
        if hasattr(self, "process"):
            self.process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"failed": f"its process ended with status {self.process.wait()}"}


def build(settings: dict[str, Any]) -> Any:
    """The checkout's network with the weights of ours."""
    from fairseq.data import Dictionary
    from fairseq.models import ARCH_CONFIG_REGISTRY
    from models.unival.unival import UnIVALModel

    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS)
    UnIVALModel.add_args(parser)
    args = parser.parse_args([])
    vars(args).update(RELEASED_FLAGS, patch_image_size=settings["size"], orig_patch_image_size=settings["size"])
    ARCH_CONFIG_REGISTRY[settings["arch"]](args)
    dictionary = Dictionary()
    for index in range(FIRST_WORD, settings["vocabulary"]):
        dictionary.add_symbol(f"w{index}")
    task = argparse.Namespace(source_dictionary=dictionary, target_dictionary=dictionary)
    model = UnIVALModel.build_model(args, task)
    fill(model, settings["seed"])
    missing = model.load_state_dict(torch.load(settings["weights"], weights_only=True), strict=False)
    if missing.missing_keys or missing.unexpected_keys:
        raise RuntimeError(f"weights do not fit: {missing}")
    return model.to(settings.get("device", "cpu")), dictionary


def generating(settings: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    from models.sequence_generator import SequenceGenerator

    model, dictionary = build(settings)
    batch = picture_batch(
        settings["seed"], settings["batch"], settings["size"], settings["source"], 1, settings["vocabulary"]
    )
    generator = SequenceGenerator(
        [model.eval()], dictionary, beam_size=settings["beam"], max_len_b=settings["max_len"], stop_on_max_len=False
    )

    def generate() -> dict[str, Any]:
        found: list[Any] = []
        seconds = timed(lambda: found.extend(generator.generate([model], {"net_input": batch})), settings["clock"])
        best = [hypotheses[0] for hypotheses in found]
        return {
            "seconds": seconds,
            "tokens": [[h["tokens"].tolist() for h in hypotheses] for hypotheses in found],
            "scores": [float(h["score"]) for h in best],
        }

    return generate


def training(settings: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    from train_step import Trainer  # the same step as ours, around their network

    model, _ = build(settings)
    step = Trainer(model, settings)
    return lambda: {"seconds": timed(step, settings["clock"]), "loss": step.loss, "memory_GB": step.memory()}


def serve(settings: dict[str, Any]) -> None:
    """Answers the lines of standard input with one JSON line each, the first one as soon as it is ready."""
    answers = os.fdopen(os.dup(1), "w")
    for stream in (1, 2):  # what the checkout prints is not an answer
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)

    def answer(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    torch.set_num_threads(settings["threads"])
    sys.path.insert(0, settings["folder"])
    try:
        ask = {"generate": generating, "train": training}[settings["question"]](settings)
        answer({"ready": True})
        for _ in sys.stdin:
            answer(ask())
    except Exception as error:  # whatever a foreign checkout raises is the answer
        answer({"failed": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
