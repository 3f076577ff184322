"""The README's commands for a folder of one's own pictures, as they stand there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ENVIRONMENT, ROOT
from PIL import Image

SMALL = {
    "ARCH": "unival_tiny",
    "NETWORK": "--entangle-position-embedding",
    "PATCH_IMAGE_SIZE": "32",
    "MAX_EPOCH": "1",
    "BATCH_SIZE": "8",
    "WORKERS": "0",
    "EXTRA": "--cpu",
    "VIRTUAL_ENV": sys.prefix,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{ENVIRONMENT['PATH']}",
}
COLOURS = {"red": (200, 0, 0), "green": (0, 160, 0), "blue": (0, 0, 200), "white": (250, 250, 250)}


def own_commands() -> list[str]:
    """The four commands of the README, with the scripts of this repository."""
    section = (ROOT / "README.md").read_text().split("## Your own pictures, in four commands")[1]
    block = re.search(r"```bash\n(.*?)```", section, re.DOTALL)
    assert block
    return block[1].replace("\\\n", " ").replace("run_scripts/", f"{ROOT}/run_scripts/").splitlines()


def run(command: str, folder: Path, **settings: str) -> str:
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env={**ENVIRONMENT, **SMALL, **settings}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_folder_of_pictures_with_a_table_becomes_a_captioner(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    lines = ["image,caption"]
    for number in range(40):
        name, colour = list(COLOURS.items())[number % 4]
        Image.new("RGB", (40 + number, 30), colour).save(tmp_path / "photos" / f"{number}.jpg")
        lines.append(f'{number}.jpg,"a {name} picture, number {number}"')
    (tmp_path / "captions.csv").write_text("\n".join(lines) + "\n")
    text = f"--bpe sentencepiece --sentencepiece-model {digits}/digits.model --code-dict-size 8 --num-bins 32"
    commands = own_commands()
    assert len(commands) == 4
    start = (
        commands[3].replace("INIT_FROM=unival_s2_hs/checkpoint1.pt", "INIT_FROM=").replace("runs/photos", "runs/start")
    )
    for command in (*commands[:3], start):
        run(command, tmp_path, TEXT=text)
    (tmp_path / "unival_s2_hs").mkdir()
    (tmp_path / "runs/start/checkpoint_last.pt").rename(tmp_path / "unival_s2_hs" / "checkpoint1.pt")
    assert "unival_s2_hs/checkpoint1.pt" in run(commands[3], tmp_path, TEXT=text)

    found = run(
        "unival predict --task caption --path runs/photos/checkpoint_best.pt photos/ --output out.jsonl", tmp_path
    )
    captions = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(captions) == 40, found
