"""Every published experiment has its script, and the script passes what the original's passes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache

import pytest
from commands import ENVIRONMENT, ROOT
from published import Row, checkpoints_of, experiments, files_of, flags_of, overrides_of, some, without_sizes
from test_answer_scripts import dry

SCRIPTS = ROOT / "run_scripts"
COMMON = ["common.sh", "pretraining/common.sh", "image_gen/common.sh"]
LONGEST, LONGEST_IN_ALL = 20, 1500


def of_pictures(row: Row) -> bool:
    return not row["task"].startswith(("video", "audio")) and row["task"] != "unify_task"


def draws(row: Row) -> bool:
    return row["task"] == "image_gen"


def evaluates(row: Row) -> bool:
    return not row["arch"]


def trains(row: Row) -> bool:
    return bool(row["arch"])


LEFT_OUT: dict[str, tuple[str, Callable[[Row], bool]]] = {
    "--strict": ("checkpoints are always loaded so", lambda row: True),
    "--reset-optimizer": ("starting from INIT_FROM always does this", trains),
    "--reset-dataloader": ("starting from INIT_FROM always does this", trains),
    "--reset-meters": ("starting from INIT_FROM always does this", trains),
    "--resnet-model-path": ("the weights of INIT_FROM replace the file's; setting RESNET", trains),
    "--video-model-path": ("the weights of INIT_FROM replace the file's; setting RESNEXT", trains),
    "--resnet-type": ("the network's default", trains),
    "--save-on-cuda": ("where checkpoints are put together changes nothing in them", trains),
    "--video-encoder-name": ("a trunk that tasks with pictures do not use; setting VIDEO_ENCODER", of_pictures),
    "--patch-frame-size": ("of films, which tasks with pictures do not read", of_pictures),
    "--text-selected-cols": ("no code of the original defines it", lambda row: row["task"] == "unify_task"),
    "--image-selected-cols": ("no code of the original defines it", lambda row: row["task"] == "unify_task"),
    "--detection-selected-cols": ("no code of the original defines it", lambda row: row["task"] == "unify_task"),
    "--model-overrides": ("given as flags, which are compared one by one", evaluates),
    "--metric": ("accuracies at all overlaps are always told", lambda row: row["task"] == "refcoco"),
    "--zero-shot": ("changes nothing for boxes, and nothing for three words", lambda row: row["task"] != "caption"),
    "--noconstraints": ("changes nothing for three words", lambda row: row["task"] == "snli_ve"),
    "--beam-search-vqa-eval": ("is --val-inference-type beamsearch here", evaluates),
    "--fp16": ("captions are scored in single precision on every machine", evaluates),
    "--constraint-range": ("the dictionary tells the task which symbols are codes", draws),
    "--max-tgt-length": ("the task knows how many codes a picture has", draws),
    "--min-len": ("the task knows how many codes a picture has", draws),
    "--max-len-a": ("the task knows how many codes a picture has", draws),
    "--max-len-b": ("the task knows how many codes a picture has", draws),
    "--keep-last-epochs": ("the best and the last checkpoint are kept, as in all finetuning scripts", draws),
}
"""Flags of the original that scripts leave out, with the reason, and for which rows this is allowed."""

OURS = {
    # where things are, and how the programs run
    *[
        "--user-dir",
        "--bpe-dir",
        "--save-dir",
        "--path",
        "--gen-subset",
        "--results-path",
        "--num-workers",
        "--log-format",
        "--seed",
    ],
    *["--log-interval", "--finetune-from-model", "--init-from", "--distributed-world-size", "--keep-interval-updates"],
    # an interrupted training continues; the best and the last checkpoint are kept
    *["--save-interval-updates", "--validate-interval-updates", "--no-epoch-checkpoints", "--keep-best-checkpoints"],
    # scores and answers in the evaluation itself
    *["--scoring", "--caption-cider-df", "--eval-cider-cached-tokens", "--acc-thresh"],
    *["--ans2label-file", "--val-inference-type", "--valid-batch-size"],
    # what evaluations of the original take from the checkpoint
    *["--image-dir", "--max-src-length", "--patch-image-size", "--max-image-size", "--prompt-type", "--num-frames"],
    *["--patch-frame-size", "--fp16-scale-window", "--beam"],
    *["--clip-model-path", "--vqgan-model-path", "--vqgan-config-path", "--gen-images-path"],
}
"""Flags beside those of the table."""

EVERY_TRAINING = {
    **{"--optimizer": "adam", "--adam-betas": "(0.9,0.999)", "--adam-eps": "1e-08", "--weight-decay": "0.01"},
    **{"--lr-scheduler": "polynomial_decay_ratio", "--attention-dropout": "0.0"},
    **dict.fromkeys(["--encoder-normalize-before", "--decoder-normalize-before", "--share-all-embeddings"], ""),
    **dict.fromkeys(["--share-decoder-input-output-embed", "--layernorm-embedding", "--patch-layernorm-embedding"], ""),
    **dict.fromkeys(["--code-layernorm-embedding", "--add-type-embedding", "--disable-entangle"], ""),
    **dict.fromkeys(["--scale-attn", "--scale-fc", "--scale-heads"], ""),
}
"""What every training of the original passes; not in the table."""


@lru_cache
def commands_of(script: str) -> tuple[list[str], ...]:
    """The commands of a script on a machine with a GPU, with all files of the table."""
    row = experiments()[script]
    frequencies = flags_of(row).get("--eval-cider-cached-tokens", "")
    given = [f"CIDER_DF={frequencies.removesuffix('.p')}.json"] if frequencies else []
    return tuple(dry(script, *given, CUDA_VISIBLE_DEVICES="0"))


def expected(row: Row) -> dict[str, str]:
    """The table's flags as the script should pass them."""
    flags = flags_of(row) | {flag: value for flag, value in overrides_of(row).items() if flag != "--data"}
    for flag in ("--ans2label-file", "--eval-cider-cached-tokens"):  # pickles, converted by unival data convert-…
        if flag in flags:
            flags[flag] = flags[flag].removesuffix(".pkl").removesuffix(".p") + ".json"
    if "--beam-search-vqa-eval" in flags:
        flags["--val-inference-type"] = "beamsearch"
    if draws(row):
        flags |= {flag: without_sizes(flags[flag]) for flag in ("--eval-args", "--scst-args") if flag in flags}
    if row["task"] == "caption" and trains(row) and "onlylinear" not in row["script"]:
        # the same steps are validated; they are saved as well, so that the best ones are not lost
        flags |= {"--save-interval-updates": "2000", "--validate-interval-updates": "0"}
    flags.pop("--gen-subset", None)  # names the result, see the test of files
    flags.pop("--gen-images-path", None)
    return flags


@pytest.mark.parametrize("script", experiments())
def test_flags_are_the_published_ones(script: str) -> None:
    row = experiments()[script]
    wanted = expected(row) | (EVERY_TRAINING if trains(row) else {})
    for command in commands_of(script):
        if not command[0].endswith(("fairseq-train", "fairseq-generate")):
            continue
        for flag, value in wanted.items():
            if flag in command:
                assert command.count(flag) == 1, flag
                assert not value or command[command.index(flag) + 1] == value, flag
            else:
                assert flag in LEFT_OUT and LEFT_OUT[flag][1](row), flag
        further = {word for word in command if word.startswith("--")} - wanted.keys()
        assert further <= OURS | ({"--clip-norm"} if trains(row) else set())


@pytest.mark.parametrize("script", experiments())
def test_files_and_checkpoints_are_the_published_ones(script: str) -> None:
    row = experiments()[script]
    commands = [words for words in commands_of(script) if words[0].endswith(("fairseq-train", "fairseq-generate"))]
    if trains(row):
        assert [command[1].split(",") for command in commands] == files_of(row)
        start = "--init-from" if "--init-from" in commands[0] else "--finetune-from-model"
        assert commands[0][commands[0].index(start) + 1] == row["init_checkpoint"]
        return
    paths = list(dict.fromkeys(command[command.index("--path") + 1] for command in commands))
    assert [command[1] for command in commands] == [file for (file,) in files_of(row)] * len(paths)
    # a row without a checkpoint has a setting there; no script of the original writes what its image_gen evaluates
    if row["init_checkpoint"] and not draws(row):
        known = checkpoints_of(row)
        assert paths[: len(known)] == known
        # the row names the first one of its loop
        assert {re.sub(r"_l\d\.\d\d", "_l0.00", path) for path in paths} <= set(row["init_checkpoint"].split(" ; "))
    assert commands[0][commands[0].index("--gen-subset") + 1].endswith(flags_of(row).get("--gen-subset", ""))


def test_no_reason_is_left_over() -> None:
    used = set()
    for script, row in experiments().items():
        used |= expected(row).keys() - set(commands_of(script)[0])
    assert used == LEFT_OUT.keys()


def test_scripts_are_short() -> None:
    """Lines of code a script; lines of all scripts and what they share, with their help."""
    sources = {script: (SCRIPTS / script).read_text().splitlines() for script in experiments()}
    code = {
        script: sum(1 for line in lines if line.strip() and not line.lstrip().startswith("#"))
        for script, lines in sources.items()
    }
    assert {script: number for script, number in code.items() if number > LONGEST} == {}
    shared = [line for name in COMMON for line in (SCRIPTS / name).read_text().splitlines()]
    assert sum(map(len, sources.values())) + len(shared) <= LONGEST_IN_ALL


def test_no_script_stands_beside_the_table_unseen() -> None:
    """Scripts that the original does not have: procedures, quickstarts, setup, and evaluations that it only names."""
    here = {str(path.relative_to(SCRIPTS)) for path in SCRIPTS.rglob("*.sh")} - set(COMMON) - set(experiments())
    assert {path for path in here if "/" in path} == {
        *["averaging/average.sh", "averaging/common.sh", "averaging/interpolate.sh", "averaging/rewarded_soups.sh"],
        *[
            "averaging/fusing/fusing.sh",
            "averaging/ratatouille/ratatouille.sh",
            "caption/scst/unival_caption_stage_2.sh",
        ],
        *["caption/eval/audio/eval_audio_caption.sh", "caption/eval/video/eval_video_caption.sh"],
    }


PARSE = """
import json, sys
from fairseq import options
for words in json.load(sys.stdin):
    parsers = {"fairseq-train": options.get_training_parser, "fairseq-generate": options.get_generation_parser}
    print(options.parse_args_and_arch(parsers[words[0]](), words[1:]).task)
"""


def test_the_programs_know_all_flags() -> None:
    commands = [commands_of(script)[0] for script in experiments()]
    commands = [[command[0].rsplit("/", 1)[-1], *command[1:]] for command in commands]
    parsed = subprocess.run(
        [sys.executable, "-c", PARSE], input=json.dumps(commands), capture_output=True, text=True, env=ENVIRONMENT
    )
    assert parsed.returncode == 0, parsed.stderr
    assert parsed.stdout.split() == [row["task"] for row in experiments().values()]


def test_the_table_is_whole() -> None:
    assert len(experiments()) == 73 and len(some(r"averaging/.*")) == 23
