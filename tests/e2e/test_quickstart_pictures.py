"""What the quickstart of text to picture runs: tools, two stages through their scripts, drawing, reading."""

from __future__ import annotations

import pytest
from test_answer_scripts import dry as dry_lines
from test_answer_scripts import value

SCRIPT = "quickstart_pictures.sh"
FOLDER = "runs/drawn"


def dry(*settings: str) -> list[list[str]]:
    """The commands, without the lines that tell what is being done."""
    lines = dry_lines(SCRIPT, f"FOLDER={FOLDER}", *settings, CUDA_VISIBLE_DEVICES="")
    return [command for command in lines if command[0] not in ("==", "contact")]


@pytest.fixture(scope="module")
def commands() -> list[list[str]]:
    return dry()


def of_tool(commands: list[list[str]], name: str) -> list[list[str]]:
    return [command for command in commands if any(word.endswith(name) for word in command[:7])]


def files(command: list[str]) -> list[str]:
    place = next(k for k, word in enumerate(command) if word.endswith("fairseq-train"))
    return [name.removeprefix(f"{FOLDER}/data/") for name in command[place + 1].split(",")]


def test_every_file_that_is_trained_on_or_drawn_is_encoded(commands: list[list[str]]) -> None:
    written = {value(command, "--output") for command in of_tool(commands, "encode_pictures.py")}
    trainings = of_tool(commands, "fairseq-train")
    assert {f"{FOLDER}/data/{name}" for command in trainings for name in files(command)} <= written
    assert f"{FOLDER}/data/codes_test.tsv" in written
    made = int(of_tool(commands, "digits.py")[0][-1])
    assert {value(command, "--tsv") for command in of_tool(commands, "encode_pictures.py")} == {
        f"{FOLDER}/data/{name}.tsv" for name in (*(f"train_{k + 1}" for k in range(made)), "val", "test")
    }


def test_the_second_stage_starts_from_the_first(commands: list[list[str]]) -> None:
    first, second = of_tool(commands, "fairseq-train")
    assert "--finetune-from-model" not in first
    assert value(second, "--finetune-from-model") == f"{FOLDER}/stage_1/checkpoint_last.pt"
    criterions = [value(command, "--criterion") for command in (first, second)]
    assert criterions == ["adjust_label_smoothed_cross_entropy", "clip_scst_reward_criterion"]


def test_single_digits_come_first_and_only_once(commands: list[list[str]]) -> None:
    names = files(of_tool(commands, "fairseq-train")[0])
    assert names[:2] == ["codes_train_1.tsv"] * 2 and "codes_train_1.tsv" not in names[2:]
    assert names[-1] == "codes_val.tsv"


def test_rewards_are_for_pictures_of_all_kinds(commands: list[list[str]]) -> None:
    """With single digits alone it forgot how to draw several."""
    assert "codes_train_1.tsv" not in files(of_tool(commands, "fairseq-train")[1])


def test_all_use_the_same_tokenizer_and_clip(commands: list[list[str]]) -> None:
    (tokenizer,), (clip,) = (of_tool(commands, name) for name in ("digits_tokenizer.py", "digits_clip.py"))
    users = of_tool(commands, "fairseq-train") + of_tool(commands, "fairseq-generate")
    for command in users:
        assert value(command, "--vqgan-model-path") == f"{value(tokenizer, '--output')}/last.ckpt"
        assert value(command, "--clip-model-path").startswith(f"{value(clip, '--output')}/")
        assert value(command, "--code-dict-size") == "128" and value(command, "--code-image-size") == "64"


def test_the_reward_can_be_left_out() -> None:
    commands = dry("REWARD_UPDATES=0")
    assert len(of_tool(commands, "fairseq-train")) == len(of_tool(commands, "fairseq-generate")) == 1
    assert value(of_tool(commands, "unival")[0], "--path") == f"{FOLDER}/stage_1/checkpoint_last.pt"
