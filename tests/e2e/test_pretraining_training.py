"""Pretraining through its scripts: killed and started again in every stage, two processes, bad rows, validation."""

from __future__ import annotations

import functools
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import (
    ENVIRONMENT,
    NETWORK,
    PLUGIN,
    ROOT,
    Outcome,
    checkpoint,
    copy_with,
    differing,
    kill_when,
    program,
    run,
    succeed,
    update_logged,
)
from test_answer_scripts import bash, dry

pytest.importorskip("av")
pytest.importorskip("soundfile")

STAGES = ["unival_s1", "unival_s2", "unival_s2_hs"]
FIRST, SECOND, THIRD = STAGES
KINDS = ["caption", "image_text", "qa", "ground", "video", "audio"]
LAST = "checkpoint_last.pt"
EPOCHS, UPDATES_PER_EPOCH = 2, 3  # 12 rows in batches of 2, two batches an update
PICTURES = {FIRST: 32, SECOND: 32, THIRD: 48}
CROPS = ["--max-audio-len", "9600"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A very small build: 12 pictures, 2 films (10 rows) and 2 sounds for each of 2 epochs; ``wrong`` has negatives."""
    folder = tmp_path_factory.mktemp("pretraining") / "rows"
    sizes = "--train-rows 12 --films 2 --sounds 2 --val-rows 3 --test-rows 1 --epoch-files 2 --canvas 48 --frames 8"
    names = ",".join(f"pretrain_{kind}" for kind in KINDS)
    _tool("digits.py", "--output", str(folder), "--tasks", names, *sizes.split())
    files = [str(folder / f"pretrain_{kind}_train_1.tsv") for kind in ("caption", "qa", "video", "audio")]
    _tool("negative_samples.py", "--output", str(folder / "wrong"), "--min-count", "2", "--task", "unify_task", *files)
    return folder


def _tool(name: str, *words: str) -> None:
    command = [sys.executable, str(ROOT / "dataset_tools" / name), *words]
    subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)


def table(rows: Path, kind: str, part: str = "train_1") -> Path:
    return rows / f"pretrain_{kind}_{part}.tsv"


def settings(rows: Path, stage: str, save_dir: Path, **more: Any) -> list[str]:
    """What a script is told: a network and data as small as they may be, a save after every second update."""
    text = f"--bpe sentencepiece --sentencepiece-model {rows}/digits.model --code-dict-size 8 --num-bins 8"
    lengths = ["--max-source-positions", "64", "--max-target-positions", "64"]
    flags = [*lengths, *CROPS, "--log-interval", "1", "--log-format", "json"]
    found: dict[str, Any] = {
        "ARCH": "unival_tiny", "NETWORK": shlex.join([*NETWORK[2:], "--image-bucket-size", "6"]), "TEXT": text,
        "RESNET": "", "RESNEXT": "", "MEDIA_FLAGS": "", "IMAGE_DIR": rows, "NEG_SAMPLE_DIR": rows / "wrong",
        "PATCH_IMAGE_SIZE": PICTURES[stage], "MAX_IMAGE_SIZE": 64, "SAMPLE_PATCH_NUM": 3, "BATCH_SIZE": 2,
        "WORKERS": 0, "MAX_EPOCH": EPOCHS, "LR": 1e-3, "WARMUP_RATIO": 0.1, "SAVE_INTERVAL_UPDATES": 2,
        "DATA": f"{table(rows, 'caption')},{table(rows, 'caption', 'train_2')}", "INIT_FROM": "",
        "EXTRA": " ".join(flags),
    }  # fmt: skip
    if stage == FIRST:
        found |= {"IMAGE_TEXT_DATA": table(rows, "image_text"), "IMAGE_TEXT_CNT": 4}
        found |= {"IMAGE_TEXT_VQA_DATA": table(rows, "qa"), "IMAGE_TEXT_GROUND_DATA": table(rows, "ground")}
    else:
        found |= {"VIDEO_DATA": table(rows, "video"), "AUDIO_DATA": table(rows, "audio"), "AUDIO_CNT": 3}
        found |= {"VIDEO_ENCODER": "timm_tiny", "AUDIO_ENCODER": "pann_tiny"}
        found |= {"NUM_FRAMES": 2 if stage == SECOND else 3, "PATCH_FRAME_SIZE": PICTURES[stage]}
    return [f"{name}={value}" for name, value in {**found, "SAVE_DIR": save_dir, **more}.items()]


def command(stage: str, words: list[str]) -> list[str]:
    """The command that the script of a stage runs."""
    (found,) = dry(f"pretraining/{stage}.sh", *words)
    return found


def perform(stage: str, words: list[str], **environment: str) -> Outcome:
    """The script itself."""
    done = bash(f"pretraining/{stage}.sh", *words, **environment)
    return Outcome(done.returncode, done.stdout, done.stderr)


# ---- killed and started again


Stage = Callable[[str], Path]


@pytest.fixture(scope="module")
def learned(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Folder of an uninterrupted run of a stage, which starts from the stage before; two loading processes."""

    @functools.cache
    def folder(stage: str) -> Path:
        found = tmp_path_factory.mktemp(stage)
        outcome = perform(stage, settings(rows, stage, found, **_start(folder, stage)))
        assert outcome.code == 0, outcome.text
        return found

    return folder


def _start(learned: Stage, stage: str) -> dict[str, Any]:
    before = {SECOND: FIRST, THIRD: SECOND}.get(stage)
    return {"WORKERS": 2, "INIT_FROM": learned(before) / "checkpoint1.pt" if before else ""}


@pytest.mark.parametrize(
    "stage", [FIRST, pytest.param(SECOND, marks=pytest.mark.slow), pytest.param(THIRD, marks=pytest.mark.slow)]
)
def test_a_kill_does_not_change_what_is_learnt(rows: Path, learned: Stage, stage: str, tmp_path: Path) -> None:
    once = command(stage, settings(rows, stage, tmp_path / "run", **_start(learned, stage)))
    kill_when(once, update_logged(UPDATES_PER_EPOCH))  # the last save is that of update 2, within epoch 1
    again = succeed(once)
    assert f"Loaded checkpoint {tmp_path / 'run' / LAST}" in again.stdout
    assert again.logged("train_inner")[0]["num_updates"] == "3"
    assert [record["train_rows_main"] for record in again.logged("train")] == ["12", "12"]
    final, expected = checkpoint(tmp_path / "run" / LAST), checkpoint(learned(stage) / LAST)
    assert final["optimizer_history"][-1]["num_updates"] == EPOCHS * UPDATES_PER_EPOCH
    assert differing(final["optimizer_history"][-1], expected["optimizer_history"][-1]) == []
    for part in ("model", "last_optimizer_state"):
        assert differing(final[part], expected[part]) == [], part
    assert final["extra_state"]["train_iterator"] == expected["extra_state"]["train_iterator"]


# ---- two processes


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A search path on which fairseq-train is the program that also notes what it does."""
    folder = tmp_path_factory.mktemp("bin")
    shutil.copy(Path(__file__).with_name("observed_pretraining.py"), folder / "fairseq-train")
    (folder / "fairseq-train").chmod(0o755)
    return os.pathsep.join([str(folder), str(Path(sys.executable).parent), ENVIRONMENT["PATH"]])


def uneven(rows: Path, folder: Path) -> dict[str, Any]:
    """Sources of 5, 3, 1 and 0 rows: a process reads 3 main rows, the other 2, and none in its last step."""

    def same(_: int, cells: list[bytes]) -> list[bytes]:
        return cells

    sizes = {"caption": 5, "image_text": 3, "video": 1, "qa": 0}
    files = {kind: copy_with(table(rows, kind), folder / f"{kind}.tsv", same, count) for kind, count in sizes.items()}
    return {
        "DATA": files["caption"], "IMAGE_TEXT_DATA": files["image_text"], "IMAGE_TEXT_CNT": 3, "AUDIO_DATA": "",
        "VIDEO_DATA": files["video"], "VIDEO_CNT": 3, "IMAGE_TEXT_VQA_DATA": files["qa"], "UPDATE_FREQ": 1,
        "IMAGE_TEXT_GROUND_DATA": "",
    }  # fmt: skip


@pytest.mark.slow
def test_two_processes_with_uneven_sources_end_with_the_same_weights(rows: Path, observed: str, tmp_path: Path) -> None:
    words = settings(rows, SECOND, tmp_path / "run", PROCESSES=2, **uneven(rows, tmp_path))
    outcome = perform(SECOND, words, PATH=observed, UNIVAL_OBSERVED=str(tmp_path))
    assert outcome.code == 0, outcome.text
    assert "source image_text_vqa has no rows and is left out" in outcome.stdout
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert ranks[0]["weights"] == ranks[1]["weights"] and len(set(ranks[0]["weights"])) == EPOCHS + 1

    patterns = [[len(step) for step in rank["steps"]] for rank in ranks]
    assert patterns == [[1, 2] * EPOCHS] * 2  # the film comes with the third row
    assert ranks[1]["steps"][1::2] == [[[], []]] * EPOCHS
    seen = Counter(name for rank in ranks for step in rank["steps"] for part in step for name in part)
    main = [line.split("\t")[0] for line in (tmp_path / "caption.tsv").read_text().splitlines()]
    web = [line.split("\t")[0] for line in (tmp_path / "image_text.tsv").read_text().splitlines()]
    assert all(seen[name] >= 2 * EPOCHS for name in main)
    counts = {"main": 5, "image_text": 1, "video": 1}
    film = (tmp_path / "video.tsv").read_text().split("\t")[0]
    assert seen[film] == 2 * EPOCHS * counts["video"] and set(seen) <= {*main, *web, film}
    assert sum(seen.values()) == 2 * EPOCHS * sum(counts.values())
    assert len(outcome.logged("train")) == EPOCHS
    for record in outcome.logged("train"):
        assert {name: int(record[f"train_rows_{name}"]) for name in counts} == counts
        assert {name: int(record[f"train_samples_{name}"]) for name in counts} == {n: 2 * c for n, c in counts.items()}
        assert not any("image_text_vqa" in name or "bad" in name for name in record)


@pytest.mark.slow
def test_films_and_a_backend_for_one_batch_are_refused_in_one_line(rows: Path, tmp_path: Path) -> None:
    outcome = perform(SECOND, settings(rows, SECOND, tmp_path, PROCESSES=2, DDP_BACKEND="pytorch_ddp"))
    ours = [line for line in outcome.stderr.splitlines() if "--ddp-backend" in line]  # torchrun says more than that
    assert outcome.code != 0 and f'File "{PLUGIN}' not in outcome.stderr, outcome.text
    message = "--ddp-backend pytorch_ddp takes one batch a step, but films make a second one: choose no_c10d"
    assert sorted(ours) == [f"[rank{rank}]: fairseq-train: error: {message}" for rank in range(2)]


# ---- bad rows, validation


@pytest.fixture(scope="module")
def damaged(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files by kind, of which row 2 cannot be used: a picture, a film, and an answer."""
    folder = tmp_path_factory.mktemp("damaged")

    def with_bad(column: int, cell: bytes) -> Callable[[int, list[bytes]], list[bytes]]:
        return lambda number, cells: [*cells[:column], cell, *cells[column + 1 :]] if number == 1 else cells

    changes = {"caption": (1, b"bm8gcGljdHVyZQ=="), "video": (1, b"films/gone.mp4"), "qa": (4, b"red")}
    return {
        kind: copy_with(table(rows, kind), folder / f"{kind}.tsv", with_bad(*change), 4)
        for kind, change in changes.items()
    }


@pytest.mark.slow
def test_bad_rows_are_counted_and_epochs_validated(rows: Path, damaged: dict[str, Path], tmp_path: Path) -> None:
    words = settings(
        rows, SECOND, tmp_path / "run", DATA=damaged["caption"], VIDEO_DATA=damaged["video"], AUDIO_DATA="",
        IMAGE_TEXT_VQA_DATA=damaged["qa"], IMAGE_TEXT_VQA_CNT=1, MAX_EPOCH=1, BATCH_SIZE=4,
    )  # fmt: skip
    found = command(SECOND, words)
    found.remove("--disable-validation")
    valid = str(table(rows, "ground", "val"))
    outcome = succeed([*found, "--on-bad-row", "skip", "--valid-data", valid])
    (record,) = outcome.logged("train")
    names = ("main", "video", "image_text_vqa")
    counted = {name: [int(record[f"train_{what}_{name}"]) for what in ("rows", "samples", "bad")] for name in names}
    assert counted == dict.fromkeys(names, [4, 6, 1]) and int(record["train_bad_rows"]) == 3
    for kind, column in (("caption", 1), ("video", 1), ("qa", 4)):
        assert f"row left out: {damaged[kind]}:row 2, column {column}" in outcome.stdout
    (validated,) = outcome.logged("valid")
    assert float(validated["valid_nsentences"]) == 6  # a region is found and described

    flags = ["--user-dir", str(PLUGIN), "--task", "unify_task", "--batch-size", "4", "--log-format", "json"]
    again = [program("fairseq-validate"), valid, *flags, "--path", str(tmp_path / "run" / LAST)]
    alone = succeed([*again, "--num-workers", "0", *_reading(found)])
    assert float(alone.last("valid", "valid_loss")) == pytest.approx(float(validated["valid_loss"]), abs=2e-3)
    assert float(alone.last("valid", "valid_nsentences")) == 6


def _reading(train: list[str]) -> list[str]:
    """The flags of a training that say how rows are read."""
    start = train.index("--image-dir")
    text = train[train.index("--bpe") : train.index("--selected-cols")]
    columns = ["--selected-cols", train[train.index("--selected-cols") + 1]]
    return [*text, *columns, *train[start : train.index("--arch")]]


def test_a_bad_row_stops_with_its_file_row_and_column(rows: Path, damaged: dict[str, Path], tmp_path: Path) -> None:
    words = settings(rows, SECOND, tmp_path / "run", VIDEO_DATA=damaged["video"], AUDIO_DATA="")
    line = run(command(SECOND, words)).complaint()
    assert f"{damaged['video']}:row 2, column 1: " in line and "gone.mp4 is no file" in line
